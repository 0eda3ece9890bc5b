"""Small worlds for upgrades: an old gallery, a map fitted on some of its rows, and children to be killed."""

import hashlib
import os
import resource
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from suture.aligners import Procrustes, save_alignment
from suture.stitching.dumps import hash_ids
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.plan import Plan, load_plan
from suture.stitching.upgrade.planning import make_plan
from suture.stitching.upgrade.switch import rollback, switch
from suture.stitching.upgrade.verify import verify

LATENT, OLD, NEW = 12, 24, 32
ROWS = 600
Rows = np.ndarray[Any, Any]


def unit(rows: Rows) -> Rows:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def encode(latent: Rows, dim: int, seed: int, noise: float = 0.2) -> Rows:
    matrix = np.random.default_rng(seed).normal(size=(LATENT, dim))
    spoilt = noise * LATENT**0.5 * np.random.default_rng([seed, len(latent)]).normal(size=(len(latent), dim))
    return unit(latent @ matrix + spoilt)


@dataclass(frozen=True)
class World:
    """Rows of both models for the same items, their ids and payload, and a map file."""

    old: Rows
    new: Rows
    ids: Rows
    payload: list[dict[str, Any]]
    map: Path


def make_world(folder: Path, *, rows: int = ROWS, text_ids: bool = False, name: str = "map") -> World:
    latent = np.random.default_rng(0).normal(size=(rows, LATENT))
    old, new = encode(latent, OLD, 11), encode(latent, NEW, 12)
    ids = np.arange(rows) * 3 + 2**60  # integers that no float64 holds
    if text_ids:
        ids = np.array([f"doc {i:05d} ä" for i in range(rows)], object)
    payload = [{"lang": ("en", "de", "fr")[i % 3], "n": i, "tenant": f"t{i % 2}", "score": i / 7} for i in range(rows)]
    path = folder / f"{name}.safetensors"
    fit = slice(0, rows * 2 // 3)
    save_alignment(Procrustes().fit(old[fit], new[fit], keys=hash_ids(ids[fit])), path)
    return World(old, new, ids, payload, path)


def write_parquet(folder: Path, world: World, parts: int = 3, dtype: type = np.float32) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    for i, rows in enumerate(np.array_split(np.arange(len(world.ids)), parts)):
        flat = pa.array(world.old[rows].astype(dtype).reshape(-1))
        columns = {"id": pa.array(world.ids[rows].tolist()), "vector": pa.FixedSizeListArray.from_arrays(flat, OLD)}
        columns["lang"] = pa.array([world.payload[j]["lang"] for j in rows]).dictionary_encode()
        columns["n"] = pa.array([world.payload[j]["n"] for j in rows], pa.int16())
        columns["score"] = pa.array([world.payload[j]["score"] for j in rows])
        columns["tags"] = pa.array([["a", None] if j % 2 else None for j in rows.tolist()])
        pq.write_table(pa.table(columns), folder / f"old-{i}.parquet")


def tree(folder: Path, inner: str = "*") -> dict[str, str]:
    """Checksums of all files under a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(inner))
        if path.is_file()
    }


# What children do. They are forked from a server that has torch loaded, so that one costs milliseconds.


def run(plan: Path, what: str = "apply", tell: Callable[..., None] = lambda step, facts: None) -> None:
    """One command of an upgrade."""
    if what == "apply-on-dask":
        from suture.stitching.upgrade.dask import apply_on_dask

        apply_on_dask(load_plan(plan), workers=2)
        return
    {"apply": apply, "verify": verify, "switch": switch, "rollback": rollback}[what](load_plan(plan), tell=tell)  # type: ignore[operator]


def run_and_die(plan: Path, what: str, at: int) -> None:
    """Die by SIGKILL at step ``at``, counted from 0, or end well where there are fewer."""
    torch.set_num_threads(1)
    count = 0

    def tell(step: str, facts: dict[str, Any]) -> None:
        nonlocal count
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    run(plan, what, tell)


def run_and_die_after(plan: Path, what: str, seconds: float) -> None:
    """Die by SIGKILL after some time, or end well before."""
    torch.set_num_threads(1)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
    timer.start()
    run(plan, what)
    timer.cancel()


def run_shard(plan: Path, i: int, n: int) -> None:
    """Every n-th fragment."""
    torch.set_num_threads(1)
    apply(load_plan(plan), shard=(i, n))


def run_with_little_disk(plan: Path, largest: int) -> None:
    """No file may grow beyond ``largest`` bytes; exit code 6 where the run says that it is incomplete."""
    from suture.aligners.errors import IncompleteError

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    try:
        run(plan)
    except IncompleteError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        (plan.parent / "said.txt").write_text(str(error)[:400])
        os._exit(6)


def planned(world: World, source: str, target: str, path: Path, **options: Any) -> Plan:
    """A plan with small fragments."""
    options = {"fragment_rows": 150, "model": "new-model", **options}
    return make_plan(world.map, source, target, path, **options)


def run_backfill_and_die(plan: Path, budget: int, at: int) -> None:
    """Die at step ``at`` of a backfill by the rows in new-model.npy."""
    from suture.stitching.upgrade.backfill import backfill

    torch.set_num_threads(1)
    keys = np.load(plan.parent / "new-ids.npy").tolist()
    rows = dict(zip(keys, np.load(plan.parent / "new-model.npy"), strict=True))
    count = 0

    def tell(step: str, facts: dict[str, Any]) -> None:
        nonlocal count
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    backfill(load_plan(plan), lambda ids, _: np.stack([rows[key] for key in ids]), budget=budget, tell=tell)


def run_and_weigh(plan: Path) -> None:
    """Apply, and write the peak memory in bytes beside the plan."""
    torch.set_num_threads(1)
    run(plan)
    peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    plan.with_suffix(".peak").write_text(str(int(peak) << 10))
