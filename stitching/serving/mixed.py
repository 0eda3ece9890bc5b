"""A gallery that is re-embedded in part: two kinds of rows, whose scores cannot be compared, in one answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from .cascade import Searcher
from .checks import Floats, Rows, checked, refuse, unit
from .index import finder

__all__ = ["MixedSearch"]


class MixedSearch:
    """Native rows by the new query, all others by ``base``, merged by rank.

    ``native``: an index of the re-embedded rows, answering with positions, and ``native_rows`` ``(n,)`` the gallery
    row of each. ``base`` may still hold their old vectors: they are left out of its answer. ``total``: rows of the
    whole gallery. The j-th of n rows of a kind stands at (j - 1/2) / n, native ones first on a tie.
    """

    def __init__(self, native: Any, native_rows: Any, base: Searcher, *, total: int, new_dim: int) -> None:
        self._rows = np.asarray(native_rows, np.int64)
        if self._rows.ndim != 1 or len(np.unique(self._rows)) != len(self._rows):
            refuse("native_rows: expected each re-embedded gallery row once.")
        if len(self._rows) > total:
            refuse(f"expected at most {total} native rows, the size of the gallery, got {len(self._rows)}.")
        held = len(native) if isinstance(native, np.ndarray) else getattr(native, "ntotal", len(self._rows))
        if held != len(self._rows):
            refuse(f"expected a gallery row for each of the {held} native vectors, got {len(self._rows)}.")
        self._find = finder(native, new_dim) if len(self._rows) else None
        self._sorted = np.sort(self._rows)
        self.base, self.total, self.new_dim = base, total, new_dim

    def search(self, new: Any, old: Any = None, k: int = 10) -> tuple[Floats, Rows]:
        """Quantiles (1 is best) and gallery rows ``(m, k)``; -1 where there are no more rows."""
        queries = unit(checked(new, self.new_dim, "new query"))
        own = len(self._rows)
        parts = []
        if self._find is not None:
            at = self._find(queries, min(k, own))[1]
            parts.append(placed(np.where(at >= 0, self._rows[at], -1), own, 0.0))
        if own < self.total:
            parts.append(placed(self._others(new, old, min(k, self.total - own)), self.total - own, 1e-9))
        place, rows = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
        order = np.argsort(place, axis=1, kind="stable")[:, :k]
        place, rows = np.take_along_axis(place, order, 1), np.take_along_axis(rows, order, 1)
        return np.where(rows >= 0, 1 - place, -np.inf).astype(np.float32), rows

    def _others(self, new: Any, old: Any, k: int) -> Rows:
        """The first k rows of the base that are not native; it is asked for more until there are enough."""
        asked = k
        while True:
            asked = min(2 * asked + 16, self.total)
            rows = np.asarray(self.base.search(new, old, asked)[1], np.int64)
            keep = (rows >= 0) & ~np.isin(rows, self._sorted)
            if asked == self.total or bool((keep.sum(1) >= k).all()):
                order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
                return np.where(np.take_along_axis(keep, order, 1), np.take_along_axis(rows, order, 1), -1)


def placed(rows: Rows, count: int, late: float) -> tuple[Floats, Rows]:
    """The place of each row among ``count`` of its kind; none for -1."""
    place = (np.arange(rows.shape[1]) + 0.5) / count + late
    return np.where(rows >= 0, place, np.inf), rows
