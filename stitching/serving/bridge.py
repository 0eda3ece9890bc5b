"""New queries on the old gallery."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from .checks import Floats, Rows, checked, refuse
from .file import MapFile, Turn
from .index import finder

__all__ = ["Bridge"]


class Bridge:
    """Maps new queries into the old space, and searches an index of old rows with them.

    ``turn`` takes new rows ``(m, q)`` to old ones ``(m, p)``; ``index`` as `finder` takes it, or None to map only.
    """

    def __init__(self, turn: Turn, index: Any = None) -> None:
        self.turn = turn
        self.new_dim, self.old_dim = turn.dims
        self._find = None if index is None else finder(index, self.old_dim)

    @classmethod
    def load(cls, path: str | Path, index: Any = None, *, side: Literal["target", "source"] = "target") -> Bridge:
        """From the file of `suture gallery estimate --save`, whose target is the new encoder; or, with
        ``side="source"``, from a map that was fitted from the new encoder to the old one.
        """
        file = MapFile(path)
        turn = file.back() if side == "target" else file.forward()
        return cls(replace(turn, to_unit=True), index)

    def __call__(self, new: Any) -> Floats:
        """``(q,)`` or ``(m, q)`` to unit rows ``(m, p)``, which any index of old rows understands."""
        return self.turn(checked(new, self.new_dim, "new query"))

    def search(self, new: Any, old: Any = None, k: int = 10) -> tuple[Floats, Rows]:
        """Scores and rows ``(m, k)``; ``old`` is not needed and not read."""
        if self._find is None:
            refuse("this Bridge was made without an index; give one to search, or call it to map queries only.")
        return self._find(self(new), k)
