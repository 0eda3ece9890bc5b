"""What a map or a dump is, as plain JSON values."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..aligners.arrays import row_norms
from ..aligners.file import load
from ..aligners.maps import Affine, Identity
from .dumps import Dump, find_bad
from .dumps.badrows import REASONS

__all__ = ["describe_dump", "describe_map"]


def describe_dump(dump: Dump, advance: Callable[[int], None] = lambda rows: None) -> dict[str, Any]:
    """Shape, dtype, ids, row norms and bad rows of a dump, read through once in constant memory."""
    bad = dict.fromkeys(REASONS, 0)
    found_norms = Norms(np.zeros(dump.dim))
    for block in dump.blocks():
        rows = torch.from_numpy(block)
        found = find_bad(block)
        for reason, at in found.items():
            bad[reason] += len(at)
        if found:
            good = np.ones(len(block), bool)
            good[np.concatenate(list(found.values()))] = False
            rows = rows[torch.from_numpy(good)]
        if len(rows):
            found_norms.add(rows)
        advance(len(block))
    return {
        "kind": "dump",
        "name": dump.name,
        "rows": dump.rows,
        "dim": dump.dim,
        "dtype": str(dump.dtype),
        "ids": None if dump.ids is None else dump.ids.kind,
        "unit": abs(found_norms.low - 1) < 2e-3 and abs(found_norms.high - 1) < 2e-3,
        **found_norms.as_json(),
        "bad_rows": bad,
    }


@dataclass
class Norms:
    """The norms of ``rows`` rows and the mean row ``(dim,)``, merged block by block (Chan, Golub & LeVeque 1983).

    Nothing is squared that is not divided by its block's largest number first: rows of 1e200 have norms too.
    """

    mean_row: NDArray[np.float64]
    rows: int = 0
    low: float = math.inf
    high: float = 0.0
    mean: float = 0.0
    std: float = 0.0

    def add(self, block: Tensor) -> None:
        """Take in the rows of ``block`` ``(m, dim)``, at least one."""
        norms = row_norms(block)
        low, high = float(norms.min()), float(norms.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        if not math.isfinite(self.high):
            return
        unit = norms / high
        mean, std = float(unit.mean()) * high, float(unit.std(correction=0)) * high
        before, self.rows = self.rows, self.rows + len(block)
        share = len(block) / self.rows
        apart = mean - self.mean
        self.std = math.hypot(
            self.std * (before / self.rows) ** 0.5, std * share**0.5, apart * (share * before / self.rows) ** 0.5
        )
        self.mean += share * apart
        self.mean_row += share * ((block.double() / high).mean(0).numpy() * high - self.mean_row)

    def as_json(self) -> dict[str, Any]:
        """``norms`` and ``mean_norm`` as plain finite JSON values, both null with a reason where there are none."""
        if not math.isfinite(self.high) or not self.rows:
            reason = "a row is longer than the largest float64" if self.rows or self.high else "no row is good"
            return {"norms": None, "mean_norm": None, "norms_reason": reason}
        return {
            "norms": {"min": self.low, "mean": self.mean, "max": self.high, "std": self.std},
            "mean_norm": math.hypot(*self.mean_row),
            "norms_reason": None,
        }


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
