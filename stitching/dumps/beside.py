"""Several dumps of the same items side by side, as one: what a fused map takes."""

from collections.abc import Iterator, Sequence

import numpy as np

from ...aligners.errors import RefusedError
from .arrays import Array, Rows
from .dump import Dump
from .pairs import in_same_order

__all__ = ["Beside"]


class Beside(Dump):
    """Rows `[x_1, .., x_K]` of dumps whose rows correspond by position; the ids are the first one's.

    RefusedError where lengths differ, or where two dumps have ids that do.
    """

    def __init__(self, parts: Sequence[Dump]) -> None:
        first = parts[0]
        for other in parts[1:]:
            if other.rows != first.rows:
                raise RefusedError(
                    f"expected dumps of the same items side by side, {first.name} has {first.rows} rows and "
                    f"{other.name} {other.rows}."
                )
            a, b = first.ids, other.ids
            if a is not None and b is not None and not (a.kind == b.kind and in_same_order(a, b)):
                raise RefusedError(f"{first.name} and {other.name} have other ids, or another order; sort them alike.")
        super().__init__(
            " + ".join(part.name for part in parts),
            first.path,
            first.rows,
            sum(part.dim for part in parts),
            np.result_type(*(part.dtype for part in parts)),
            first.ids,
        )
        self._parts = parts

    def _stream(self, size: int, start: int, stop: int) -> Iterator[Array]:
        for blocks in zip(*(part.blocks(size, start, stop) for part in self._parts), strict=True):
            yield np.concatenate(blocks, axis=1, dtype=self.dtype)

    def _gather(self, rows: Rows, out: Array) -> None:
        np.concatenate([part.gather(rows) for part in self._parts], axis=1, out=out)
