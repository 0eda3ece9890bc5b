"""Rows of many spaces: which item each row is, and blocks of items with what every space knows of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..arrays import Array, as_matrix
from ..errors import RefusedError, SutureError, UsageError
from ..pairs import BLOCK_ROWS, as_keys, mix

__all__ = ["Gathered", "Many", "ManyBlock"]


class ManyBlock(NamedTuple):
    """``keys`` ``(b,)`` of items and for each space the ``rows`` ``(m, dim)`` of those ``present`` ``(b,)`` in it."""

    keys: Tensor
    rows: Mapping[str, Tensor]
    present: Mapping[str, Tensor]


class Many(Protocol):
    """A stream of items of which each space has some."""

    @property
    def dims(self) -> Mapping[str, int]:
        """Width of each space, by name."""

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[ManyBlock]:
        """One pass over all items; no item comes twice."""


@dataclass(frozen=True, eq=False)
class Gathered:
    """Spaces in memory: rows by name, and for each the place ``(items,)`` of every item among them, -1 if missing."""

    rows: Mapping[str, Tensor]
    places: Mapping[str, Tensor]
    keys: Tensor

    @classmethod
    def of(cls, spaces: Mapping[str, Array], keys: Mapping[str, Array] | None = None) -> Gathered:
        """Spaces ``(n_k, p_k)`` whose rows are the items named by integer ``keys`` ``(n_k,)``, or row by row the same.

        Raises `UsageError` with fewer than two spaces, `RefusedError` on an item that is twice in one space.
        """
        if len(spaces) < 2:
            raise UsageError(f"expected at least two spaces, got {len(spaces)}.")
        rows = {name: as_matrix(x, name) for name, x in spaces.items()}
        for name, x in rows.items():
            if not bool(torch.isfinite(x).all()):
                raise SutureError(f"{name}: expected finite rows, got NaN or infinite values; drop those rows first.")
        if keys is None:
            if len({len(x) for x in rows.values()}) > 1:
                raise RefusedError(
                    "without keys rows are paired by position and every space needs as many, got "
                    f"{', '.join(f'{name}: {len(x)}' for name, x in rows.items())}; give keys for all."
                )
            numbers = mix(torch.arange(len(next(iter(rows.values())))))
            own = dict.fromkeys(rows, numbers)
        else:
            own = {name: as_keys(keys[name]) for name in rows}
        for name, k in own.items():
            if len(k) != len(rows[name]):
                raise SutureError(f"{name}: expected one key per row, got {len(k)} for {len(rows[name])} rows.")
            if len(torch.unique(k)) != len(k):
                raise RefusedError(
                    f"{name}: expected every item once, {len(k) - len(torch.unique(k))} rows repeat one."
                )
        every = torch.unique(torch.cat(list(own.values())))
        places = {}
        for name, k in own.items():
            places[name] = torch.full((len(every),), -1)
            places[name][torch.searchsorted(every, k)] = torch.arange(len(k))
        return cls(rows, places, every)

    @property
    def dims(self) -> Mapping[str, int]:
        """Width of each space, by name."""
        return {name: x.shape[1] for name, x in self.rows.items()}

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[ManyBlock]:
        """One pass over all items."""
        for start in range(0, len(self.keys), size):
            some = slice(start, start + size)
            present = {name: place[some] >= 0 for name, place in self.places.items()}
            rows = {name: x[self.places[name][some][present[name]]] for name, x in self.rows.items()}
            yield ManyBlock(self.keys[some], rows, present)
