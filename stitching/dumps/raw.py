"""Rows at a fixed distance in a file: what .npy, .safetensors, .fvecs, .fbin and .pt have in common."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from io import BufferedIOBase, FileIO, RawIOBase
from pathlib import Path

import numpy as np

from ...aligners.errors import SutureError
from .arrays import Array, Rows, runs
from .codec import Codec
from .dump import Dump

__all__ = ["Binary", "ColumnMajorDump", "RawDump", "check_size", "read_exactly"]

GAP_BYTES = 1 << 15  # reading 32 kB in vain costs about one random read
SPAN_BYTES = 1 << 23


Binary = RawIOBase | BufferedIOBase


def read_exactly(file: Binary, out: Array, name: str) -> None:
    """Fill the C-contiguous, non-empty `out` from `file`; SutureError if the file ends before."""
    view = out.reshape(-1).view(np.uint8).data
    while view:
        got = file.readinto(view)
        if not got:
            raise SutureError(
                f"{name}: the file ends {len(view)} bytes before the last number its header promises. "
                "It is truncated: copy or write it again."
            )
        view = view[got:]


def check_size(name: str, path: Path, expected: int) -> None:
    """SutureError where the file is shorter than `expected` bytes."""
    size = path.stat().st_size
    if size < expected:
        raise SutureError(
            f"{name}: expected {expected} bytes, as its header says, got {size}. It is truncated: copy it again."
        )


class RawDump(Dump):
    """Row i of `(rows, dim)` stands at byte `offset + i * (head + dim * itemsize)`.

    `head` bytes stand before each row; fvecs-like formats repeat the dimension there, as a little-endian int32, and it
    is checked in every row that is read.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        offset: int,
        rows: int,
        dim: int,
        stored: np.dtype | Codec,
        head: int = 0,
    ) -> None:
        self._codec = stored if isinstance(stored, Codec) else Codec.of(stored, name)
        super().__init__(name, path, rows, dim, self._codec.dtype)
        self._offset = offset
        self._head = head
        self._stride = head + dim * self._codec.stored.itemsize
        self._direct = self._codec.direct and not head
        self._check_size(offset + rows * self._stride)

    def _open(self) -> AbstractContextManager[Binary]:
        return FileIO(self.path)

    def _check_size(self, expected: int) -> None:
        check_size(self.name, self.path, expected)

    def _stream(self, size: int, start: int, stop: int) -> Iterator[Array]:
        buffer = np.empty((min(size, stop - start), self.dim), self.dtype)
        scratch = None if self._direct else np.empty((len(buffer), self._stride), np.uint8)
        with self._open() as file:
            for first in range(start, stop, size):
                block = buffer[: min(size, stop - first)]
                self._read(file, first, block, scratch)
                yield block

    def _gather(self, rows: Rows, out: Array) -> None:
        longest = max(1, SPAN_BYTES // self._stride)
        scratch = np.empty((longest, self._stride), np.uint8)
        span = np.empty((longest, self.dim), self.dtype)
        repeats = bool(np.any(rows[1:] == rows[:-1]))
        with self._open() as file:
            for a, b, first, stop in runs(rows, GAP_BYTES // self._stride, longest):
                if stop - first == b - a and not repeats:
                    self._read(file, first, out[a:b], scratch)
                    continue
                block = span[: stop - first]
                self._read(file, first, block, scratch)
                np.take(block, rows[a:b] - first, axis=0, out=out[a:b], mode="clip")

    def _read(self, file: Binary, first: int, block: Array, scratch: Array | None) -> None:
        file.seek(self._offset + first * self._stride)
        if self._direct or scratch is None:
            read_exactly(file, block, self.name)
            return
        raw = scratch[: len(block)]
        read_exactly(file, raw, self.name)
        if self._head:
            heads = raw[:, : self._head].copy().view("<i4")[:, 0]
            if np.any(heads != self.dim):
                at = int(np.argmax(heads != self.dim))
                raise SutureError(
                    f"{self.name}: row {first + at} announces {heads[at]} numbers, row 0 announced {self.dim}. "
                    "All vectors of a dump must have one length: the file is ragged or damaged."
                )
            raw = np.ascontiguousarray(raw[:, self._head :])
        self._codec.decode(raw.view(self._codec.stored), block)


class ColumnMajorDump(Dump):
    """A Fortran-ordered array: a block of rows is one short read in each of the `dim` columns."""

    def __init__(self, name: str, path: Path, *, offset: int, rows: int, dim: int, stored: np.dtype | Codec) -> None:
        self._codec = stored if isinstance(stored, Codec) else Codec.of(stored, name)
        super().__init__(name, path, rows, dim, self._codec.dtype)
        self._offset = offset
        check_size(name, path, offset + rows * dim * self._codec.stored.itemsize)

    def _stream(self, size: int, start: int, stop: int) -> Iterator[Array]:
        size = min(size, stop - start)
        buffer = np.empty((size, self.dim), self.dtype)
        columns = np.empty((self.dim, size), self._codec.stored)
        item = columns.itemsize
        with FileIO(self.path) as file:
            for first in range(start, stop, size):
                m = min(size, stop - first)
                for j in range(self.dim):
                    file.seek(self._offset + (j * self.rows + first) * item)
                    read_exactly(file, columns[j, :m], self.name)
                self._codec.decode(columns[:, :m].T, buffer[:m])
                yield buffer[:m]
