"""A small world with an estimate on its gallery, saved for the upgrade."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from upgrade_worlds import OLD, ROWS, World, encode

from suture.aligners import Procrustes
from suture.stitching.dumps import open_dump, pair
from suture.stitching.gallery.estimate import Estimate, estimate
from suture.stitching.gallery.inputs import gather_inputs
from suture.stitching.gallery.upgrade import save_upgrade

ASKED = 120


def measured(folder: Path, *, labels: bool, order: Any = slice(None)) -> tuple[World, Estimate]:
    """A world whose models have equally wide rows, and an estimate on its gallery in the ``order`` of a dump."""
    latent = np.random.default_rng(0).normal(size=(ROWS, 12))
    asked = latent[:ASKED] + 0.4 * np.random.default_rng(1).normal(size=(ASKED, 12))
    old, new = encode(latent, OLD, 11), encode(latent, OLD, 12)
    ids = np.arange(ROWS) * 3 + 2**60
    for name, rows in {
        "gallery": old[order],
        "pool": new[order],
        "queries.old": encode(asked, OLD, 11),
        "queries.new": encode(asked, OLD, 12),
        "pairs.old": old[200:],
        "pairs.new": new[200:],
    }.items():
        np.save(folder / f"{name}.npy", rows)
    np.save(folder / "ids.npy", ids[order])
    np.save(folder / "pairs.ids.npy", ids[200:])
    gallery = open_dump(folder / "gallery.npy", ids=folder / "ids.npy")
    row_of = {key: i for i, key in enumerate(ids[order].tolist())}
    inputs = gather_inputs(
        gallery,
        pair(*(open_dump(folder / f"pairs.{side}.npy", ids=folder / "pairs.ids.npy") for side in ("old", "new"))),
        old_queries=open_dump(folder / "queries.old.npy"),
        new_queries=open_dump(folder / "queries.new.npy"),
        relevant=[[row_of[key]] for key in ids[:ASKED].tolist()] if labels else None,
        pool=None if labels else open_dump(folder / "pool.npy", ids=folder / "ids.npy"),
    )
    found = estimate(
        inputs, aligners=[Procrustes()], smaller=False, progress=lambda total, what: nullcontext(lambda rows: None)
    )
    save_upgrade(found, folder / "upgrade.safetensors", overwrite=True)
    payload = [{"lang": "en", "n": i, "score": i / 7} for i in range(ROWS)]
    return World(old, new, ids, payload, folder / "upgrade.safetensors"), found
