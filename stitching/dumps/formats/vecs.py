"""Vectors as the nearest-neighbour benchmarks keep them: .fvecs and its kin, .fbin and its kin."""

from typing import BinaryIO

import numpy as np

from ....aligners.errors import RefusedError, SutureError
from ..arrays import Array
from ..dump import Dump
from ..ids import IdKind
from ..raw import RawDump
from .request import Request
from .sinks import Sink

__all__ = ["BINS", "VECS", "FvecsSink", "open_bin", "open_vecs"]

VECS = {".fvecs": "<f4", ".bvecs": "u1", ".ivecs": "<i4"}
BINS = {".fbin": "<f4", ".u8bin": "u1", ".i8bin": "i1", ".ibin": "<i4"}


def open_vecs(request: Request) -> Dump:
    """Open .fvecs, .bvecs or .ivecs: every vector stands behind its dimension, an int32."""
    request.without_key()
    request.without_ids()
    stored = np.dtype(VECS[request.path.suffix.lower()])
    dim = first_ints(request, 1)[0]
    size = request.path.stat().st_size
    rows, rest = divmod(size, 4 + dim * stored.itemsize)
    if rest:
        raise SutureError(
            f"{request.name}: expected whole rows of {dim} {stored} behind an int32, got {size} bytes, {rest} too many "
            f"for {rows} rows. The file is truncated or ragged."
        )
    return RawDump(request.name, request.path, offset=0, rows=rows, dim=dim, stored=stored, head=4)


def open_bin(request: Request) -> Dump:
    """Open .fbin, .u8bin, .i8bin or .ibin: two int32, rows and dimension, then the numbers."""
    request.without_key()
    request.without_ids()
    stored = np.dtype(BINS[request.path.suffix.lower()])
    rows, dim = first_ints(request, 2)
    expected = 8 + rows * dim * stored.itemsize
    size = request.path.stat().st_size
    if size != expected:
        raise SutureError(
            f"{request.name}: its header says ({rows}, {dim}) of {stored}, {expected} bytes; the file has {size}. "
            "It is truncated, or of another format."
        )
    return RawDump(request.name, request.path, offset=8, rows=rows, dim=dim, stored=stored)


def first_ints(request: Request, count: int) -> list[int]:
    """The positive int32 that the file begins with."""
    with request.path.open("rb") as file:
        head = file.read(4 * count)
    values: list[int] = np.frombuffer(head, "<i4").tolist() if len(head) == 4 * count else []
    if not values or min(values) < 1:
        raise SutureError(
            f"{request.name}: expected {count} positive int32 at the beginning of the file, got {values or head!r}. "
            "It is empty or of another format."
        )
    return values


class FvecsSink(Sink):
    """Writes .fvecs, which is float32."""

    holds_ids = False

    def __init__(self, file: BinaryIO, dim: int, dtype: np.dtype, id_kind: IdKind | None) -> None:
        if dtype != np.float32:
            raise RefusedError(f".fvecs holds float32, got {dtype}. Write .npy, or ask for float32.")
        self._file = file
        self._dim = dim

    def write(self, block: Array, ids: Array | None) -> None:
        """Append a block `(m, dim)`."""
        rows = np.empty((len(block), self._dim + 1), "<f4")
        rows[:, :1].view("<i4")[...] = self._dim
        rows[:, 1:] = block
        self._file.write(rows.data)

    def finish(self, rows: int) -> None:
        """Nothing is left to do: the format does not count its rows."""
