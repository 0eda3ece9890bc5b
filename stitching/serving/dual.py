"""Both encoders on one index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .checks import Floats, Rows, checked, refuse, same_length, unit
from .file import MapFile, Turn
from .index import finder

__all__ = ["DualSearch"]


class DualSearch:
    """Scores ``c_old q_old . g + c_new q_new . map(g)`` with the ``coefficients`` of an estimate, by one query vector.

    On the untouched old index that vector is ``c_old q_old + c_new W q_new``; with ``concat`` it is the two side by
    side, for an index of `rows`. ``turn``: the map of old rows ``(n, p)`` into the new space ``(n, q)``. ``tuned``
    ``(p + q, p)``: what labelled queries made of it, ``[q_old, q_new] tuned``, instead.
    """

    def __init__(
        self,
        turn: Turn,
        coefficients: tuple[float, float],
        index: Any,
        *,
        concat: bool = False,
        tuned: Floats | None = None,
    ) -> None:
        self.turn, self.concat, self.tuned = turn, concat, tuned
        self.coefficients = coefficients
        self.old_dim, self.new_dim = turn.dims
        self._find = finder(index, self.old_dim + self.new_dim if concat else self.old_dim)
        self._back = np.ascontiguousarray(turn.weight.T)

    @classmethod
    def load(cls, path: str | Path, index: Any, *, concat: bool = False, tuned: bool = False) -> DualSearch:
        """From the file of `suture gallery estimate --save`: its ``dual``, ``dual-concat`` or ``dual-tuned``."""
        if concat and tuned:
            refuse("expected concat or tuned, got both: the trained vector is for the untouched old index.")
        file = MapFile(path)
        name = "dual-concat" if concat else "dual"
        mixing = file.upgrade["mixing"]
        if name not in mixing:
            refuse(f"{path}: this estimate did not measure {name}; it needs the queries by the old encoder too.")
        old, new = mixing[name]["coefficients"]
        return cls(file.forward(), (old, new), index, concat=concat, tuned=file.tuned() if tuned else None)

    def rows(self, old: Any) -> Floats:
        """What an index with ``concat`` holds for gallery rows ``(n, p)``: old and mapped, of length 1 each, divided by
        the root of 2 so that the whole has length 1.
        """
        known = checked(old, self.old_dim, "gallery rows")
        return np.multiply(np.concatenate([unit(known), unit(self.turn(known))], axis=1), np.float32(0.5**0.5))

    def vector(self, new: Any, old: Any) -> Floats:
        """The query vectors, of unit length: scores of the index are then cosines."""
        if old is None:
            refuse("a dual search needs the query by the old encoder too; without it, use a Bridge.")
        q_new, q_old = checked(new, self.new_dim, "new query"), checked(old, self.old_dim, "old query")
        same_length(q_new, q_old)
        if self.tuned is not None:
            return unit(np.concatenate([unit(q_old), unit(q_new)], axis=1) @ self.tuned)
        c_old, c_new = self.coefficients
        parts: list[Floats] = [np.multiply(unit(q), np.float32(c)) for q, c in ((q_old, c_old), (q_new, c_new))]
        if self.concat:
            return unit(np.concatenate(parts, axis=1))
        return unit(parts[0] + parts[1] @ self._back)

    def search(self, new: Any, old: Any = None, k: int = 10) -> tuple[Floats, Rows]:
        """Scores and rows ``(m, k)`` for the same queries by both encoders."""
        return self._find(self.vector(new, old), k)
