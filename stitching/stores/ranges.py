"""Stores that give rows by id but not in the order of ids: the order is made of a list of all ids."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..dumps.arrays import Array
from ..dumps.ids import id_array
from .batch import Batch, joined
from .files import by_id
from .store import Fragment, Store

__all__ = ["RangeStore"]

PAGE = 1000


class RangeStore(Store):
    """Fragments are ranges of ids; memory holds the ids of the gallery, not its rows."""

    live = True
    tolerance = 1e-6  # rows that are caught up are multiplied in other blocks, which rounds otherwise

    @abstractmethod
    def ids(self) -> list[Any]:
        """All ids of rows that have a vector, in any order."""

    @abstractmethod
    def rows(self, ids: list[Any], vectors: bool) -> Batch:
        """Rows with these ids, in any order; absent ones are left out."""

    def fragments(self, rows: int) -> Iterator[Fragment]:
        """Ranges from ``after`` (excluded) to ``upto``; the ends are open, so that new ids belong to one of them."""
        keys = sorted(self.ids())
        for start in range(0, len(keys), rows):
            stop = min(start + rows, len(keys))
            yield {
                "after": keys[start - 1] if start else None,
                "upto": keys[stop - 1] if stop < len(keys) else None,
                "rows": stop - start,
            }

    def read(self, fragment: Fragment, size: int, *, vectors: bool = True) -> Iterator[Batch]:
        """Rows of the range by id."""
        after, upto = fragment["after"], fragment["upto"]
        keys = sorted(k for k in self.ids() if (after is None or k > after) and (upto is None or k <= upto))
        for start in range(0, len(keys), min(size, PAGE)):
            page = keys[start : start + min(size, PAGE)]
            yield by_id(self.rows(page, vectors), id_array(page, self.name))

    def fetch(self, number: int, ids: Array, *, vectors: bool = True) -> Batch:
        """By id, wherever they are."""
        pages = [self.rows(ids[i : i + PAGE].tolist(), vectors) for i in range(0, len(ids), PAGE)]
        found = [page for page in pages if len(page)]
        if not found:
            return Batch(ids[:0], np.empty((0, 0), np.float32), None if self.shared else [], [])
        return by_id(joined(found), ids)

    def count(self) -> int:
        """As many as there are ids."""
        return len(self.ids())
