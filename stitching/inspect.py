"""What a map or a dump is, as plain JSON values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..aligners.file import load
from ..aligners.maps import Affine, Identity
from .dumps import Dump, find_bad
from .dumps.badrows import REASONS

__all__ = ["describe_dump", "describe_map"]


def describe_dump(dump: Dump, advance: Callable[[int], None] = lambda rows: None) -> dict[str, Any]:
    """Shape, dtype, ids, row norms and bad rows of a dump, read through once in constant memory."""
    bad = dict.fromkeys(REASONS, 0)
    low, high, total, square = np.inf, 0.0, 0.0, 0.0
    sums = np.zeros(dump.dim)
    for block in dump.blocks():
        rows = torch.from_numpy(block).double()
        found = find_bad(block)
        for reason, at in found.items():
            bad[reason] += len(at)
        if found:
            good = np.ones(len(block), bool)
            good[np.concatenate(list(found.values()))] = False
            rows = rows[torch.from_numpy(good)]
        if len(rows):
            norms = torch.linalg.vector_norm(rows, dim=1)
            low, high = min(low, float(norms.min())), max(high, float(norms.max()))
            total, square = total + float(norms.sum()), square + float(norms.square().sum())
            sums += rows.sum(0).numpy()
        advance(len(block))
    good_rows = dump.rows - sum(bad.values())
    mean = total / good_rows if good_rows else None
    return {
        "kind": "dump",
        "name": dump.name,
        "rows": dump.rows,
        "dim": dump.dim,
        "dtype": str(dump.dtype),
        "ids": None if dump.ids is None else dump.ids.kind,
        "unit": bool(good_rows) and abs(low - 1) < 2e-3 and abs(high - 1) < 2e-3,
        "norms": {"min": low, "mean": mean, "max": high, "std": spread(square, mean, good_rows)} if good_rows else None,
        "mean_norm": float(np.linalg.norm(sums)) / good_rows if good_rows else None,
        "bad_rows": bad,
    }


def spread(square: float, mean: float | None, rows: int) -> float | None:
    """The standard deviation behind a sum of squares."""
    return None if mean is None else float(max(square / rows - mean * mean, 0.0)) ** 0.5


def describe_map(path: str | Path) -> dict[str, Any]:
    """Kind, dims, sides and provenance of the map file at ``path``."""
    alignment = load(path)
    two = {"source", "target"} <= set(alignment.sides)
    through = alignment.translate() if two and alignment.translates("source", "target") else None
    return {
        "kind": "map",
        "name": str(path),
        "maps": {name: m.kind for name, m in alignment.maps.items()},
        "source_dim": alignment.map_of("source").source_dim if two else None,
        "target_dim": alignment.map_of("target").source_dim if two else None,
        "shared_dim": alignment.shared_dim,
        "affine": all(isinstance(m, Affine | Identity) for m in ([through] if two else alignment.maps.values())),
        "orthogonal_deviation": through.deviation() if isinstance(through, Affine) else None,
        "spaces": {
            name: {
                "dim": s.dim,
                "unit": s.unit,
                "fingerprint": s.fingerprint,
                "canaries": 0 if s.canaries is None else len(s.canaries),
            }
            for name, s in alignment.spaces.items()
        },
        **alignment.provenance,
    }
