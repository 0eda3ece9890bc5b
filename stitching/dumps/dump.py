"""A dump: one two-dimensional array of vectors in a file, read as a stream."""

import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...aligners.errors import SutureError
from .arrays import BLOCK, Array, Rows
from .ids import IdColumn

__all__ = ["Dump"]


class Dump(ABC):
    """An array `(rows, dim)` of vectors on disk. Memory does not grow with `rows`: nothing is mapped or kept.

    `name` is what the user wrote (PATH or PATH::key), `dtype` the dtype of the blocks: float16, float32 or float64 as
    stored, float32 for integers. A format writes `_stream` and, where it can seek, `_gather`.
    """

    def __init__(
        self, name: str, path: Path, rows: int, dim: int, dtype: np.dtype, ids: IdColumn | None = None
    ) -> None:
        if rows < 1 or dim < 1:
            raise SutureError(
                f"{name}: expected at least one row and one column, got shape ({rows}, {dim}). Was the dump cut short?"
            )
        self.name = name
        self.path = path
        self.rows = rows
        self.dim = dim
        self.dtype = dtype
        self.ids = ids
        self._spilled: Dump | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} ({self.rows}, {self.dim}) {self.dtype}>"

    def blocks(self, size: int = BLOCK, start: int = 0, stop: int | None = None) -> Iterator[Array]:
        """Consecutive C-contiguous blocks `(m, dim)`, m <= size, of the rows from `start` to `stop`.

        Each is a view on one buffer and valid until the next step. Raises SutureError where the file is malformed.
        """
        stop = self.rows if stop is None else min(stop, self.rows)
        if size < 1 or start < 0:
            raise ValueError(f"expected size >= 1 and start >= 0, got size={size}, start={start}")
        if start >= stop:
            return
        seen = start
        for block in self._stream(size, start, stop):
            seen += len(block)
            yield block
        if seen != stop:
            raise SutureError(f"{self.name}: expected {self.rows} rows, the file ends after {seen}. It is truncated.")

    def gather(self, rows: Rows) -> Array:
        """The named rows, in any order and with repeats, as a new array `(len(rows), dim)`.

        Formats without random access are copied once to a temporary .npy file (in TMPDIR), removed with the dump.
        """
        rows = np.asarray(rows, np.int64)
        if rows.ndim != 1 or (len(rows) and (rows.min() < 0 or rows.max() >= self.rows)):
            span = f"{rows.min()}..{rows.max()}" if rows.size else "none"
            raise IndexError(f"{self.name}: expected row numbers within 0..{self.rows - 1}, got {span}")
        out = np.empty((len(rows), self.dim), self.dtype)
        if len(rows) > 1 and np.any(rows[1:] < rows[:-1]):
            order = np.argsort(rows, kind="stable")
            ordered = np.empty_like(out)
            self._gather(rows[order], ordered)
            out[order] = ordered
        elif len(rows):
            self._gather(rows, out)
        return out

    @abstractmethod
    def _stream(self, size: int, start: int, stop: int) -> Iterator[Array]:
        """Yield the rows `start <= row < stop`; a short stream is reported as truncation by `blocks`."""

    def _gather(self, rows: Rows, out: Array) -> None:
        """Fill `out` with the sorted `rows`."""
        if self._spilled is None:
            self._spilled = self._spill()
        self._spilled._gather(rows, out)

    def _spill(self) -> "Dump":
        from .raw import RawDump

        with tempfile.NamedTemporaryFile(prefix="suture-", suffix=".raw", delete=False) as file:
            path = Path(file.name)
            weakref.finalize(self, path.unlink, missing_ok=True)
            for block in self.blocks():
                file.write(block.data)
        return RawDump(self.name, path, offset=0, rows=self.rows, dim=self.dim, stored=self.dtype)
