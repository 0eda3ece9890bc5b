"""Names for the arrays that pass through here, and how rows are cut into blocks and runs."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "Array", "Rows", "rebatch", "runs"]

Array = NDArray[Any]
Rows = NDArray[np.int64]

BLOCK = 8192  # rows; at 768 float16 a block is 12 MB


def rebatch(chunks: Iterable[Array], size: int, dim: int, dtype: np.dtype, skip: int, count: int) -> Iterator[Array]:
    """Cut chunks `(any, dim)` into blocks of `size` rows on one reused buffer, `count` rows after the first `skip`.

    May yield fewer than `count` rows when the chunks end early: the caller knows what that means.
    """
    buffer = np.empty((min(size, max(count, 1)), dim), dtype)
    filled = 0
    for chunk in chunks:
        if skip >= len(chunk):
            skip -= len(chunk)
            continue
        rest = chunk[skip : skip + count]
        skip = 0
        count -= len(rest)
        while len(rest):
            part = rest[: len(buffer) - filled]
            buffer[filled : filled + len(part)] = part
            filled += len(part)
            rest = rest[len(part) :]
            if filled == len(buffer):
                yield buffer
                filled = 0
        if count == 0:
            break
    if filled:
        yield buffer[:filled]


def runs(rows: Rows, gap: int, longest: int) -> Iterator[tuple[int, int, int, int]]:
    """Slices `a:b` of the sorted `rows` to be read in one go, as `(a, b, rows[a], rows[b - 1] + 1)`.

    Neighbours stay together while at most `gap` rows lie between them and the span stays within `longest` rows:
    reading a few rows in vain is cheaper than another system call.
    """
    breaks = np.flatnonzero(np.diff(rows) > gap + 1) + 1
    edges = [0, *breaks.tolist(), len(rows)]
    firsts = rows[edges[:-1]].tolist()
    stops = (rows[np.array(edges[1:]) - 1] + 1).tolist()
    for a, end, first, stop in zip(edges, edges[1:], firsts, stops, strict=False):
        while stop - first > longest:
            b = a + int(np.searchsorted(rows[a:end], first + longest))
            yield a, b, first, int(rows[b - 1]) + 1
            a, first = b, int(rows[b])
        yield a, end, first, stop
