"""NumPy's .npy, versions 1 to 3, C and Fortran order; read by offset and never unpickled."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ....aligners.errors import SutureError
from ..arrays import Array
from ..dump import Dump
from ..ids import IdColumn, IdKind
from ..raw import ColumnMajorDump, RawDump, read_exactly
from .request import Request
from .sinks import Sink

__all__ = ["NpyHeader", "NpySink", "npy_dump", "npy_ids", "open_npy", "open_npy_ids", "read_header"]

ID_CHUNK = 1 << 14


@dataclass(frozen=True)
class NpyHeader:
    """What stands before the numbers; `offset` is where they begin."""

    dtype: np.dtype
    fortran: bool
    shape: tuple[int, ...]
    offset: int

    def matrix(self, name: str) -> tuple[int, int]:
        """The shape `(n, p)`; SutureError for any other number of dimensions."""
        if len(self.shape) != 2:
            raise SutureError(
                f"{name}: expected a 2-D array (rows, dimensions), got shape {self.shape}. "
                "Reshape it to one vector a row and save it again."
            )
        return self.shape[0], self.shape[1]


def read_header(file: BufferedIOBase, name: str) -> NpyHeader:
    """Parse the header at the file's position; SutureError where it is not one."""
    start = file.read(12)
    if start[:6] != b"\x93NUMPY":
        raise SutureError(f"{name}: expected a .npy file, its first bytes are {start[:6]!r}. Write it with numpy.save.")
    if start[6] not in (1, 2, 3):
        raise SutureError(f"{name}: expected .npy version 1, 2 or 3, got {start[6]}.{start[7]}. Save it again.")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(start[8 : 8 + width], "little")
    try:
        text = start[8 + width :] + file.read(length - (4 - width))
        if len(text) != length:
            raise ValueError(f"{len(text)} of {length} header bytes")
        fields: dict[str, Any] = ast.literal_eval(text.decode("latin1" if start[6] < 3 else "utf-8"))
        shape = tuple(int(extent) for extent in fields["shape"])
        dtype = np.lib.format.descr_to_dtype(fields["descr"])
        return NpyHeader(dtype, bool(fields["fortran_order"]), shape, 8 + width + length)
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise SutureError(f"{name}: its .npy header cannot be read ({error}). It is damaged: save it again.") from error


def open_npy(request: Request) -> Dump:
    """Open a .npy file `(n, p)`."""
    request.without_key()
    request.without_ids()
    with request.path.open("rb") as file:
        header = read_header(file, request.name)
    return npy_dump(request.name, request.path, header, 0)


def npy_dump(name: str, path: Path, header: NpyHeader, base: int) -> Dump:
    """The array whose .npy header begins at byte `base` of `path`."""
    rows, dim = header.matrix(name)
    kind = ColumnMajorDump if header.fortran and dim > 1 else RawDump
    return kind(name, path, offset=base + header.offset, rows=rows, dim=dim, stored=header.dtype)


def open_npy_ids(path: Path, what: str = "ids") -> IdColumn:
    """Ids `(n,)`, or `what` else is kept like them, in a .npy file: integers or strings."""
    return npy_ids(lambda: path.open("rb"), str(path), what)


def npy_ids(opened: Callable[[], BufferedIOBase], name: str, what: str = "ids") -> IdColumn:
    """Ids `(n,)` in the .npy stream that `opened` gives."""
    with opened() as file:
        header = read_header(file, name)
    if len(header.shape) != 1 or header.dtype.kind not in "iuU":
        raise SutureError(
            f"{name}: expected {what} as a 1-D array of integers or strings, got shape {header.shape}, dtype "
            f"{header.dtype}. Object arrays are pickles and are never loaded: save numpy.array({what}, dtype=str)."
        )
    rows = header.shape[0]

    def chunks() -> Iterator[Array]:
        with opened() as file:
            read_header(file, name)
            for first in range(0, rows, ID_CHUNK):
                chunk = np.empty(min(ID_CHUNK, rows - first), header.dtype)
                if header.dtype.itemsize:
                    read_exactly(file, chunk, name)
                yield chunk.astype(native_id(header.dtype), copy=False)

    return IdColumn(name, rows, "str" if header.dtype.kind == "U" else "int", chunks)


def native_id(dtype: np.dtype) -> np.dtype:
    """The dtype ids of a stored `dtype` are handed on in."""
    if dtype.kind == "U":
        return dtype.newbyteorder("=")
    return np.dtype(np.uint64 if dtype.kind == "u" and dtype.itemsize == 8 else np.int64)


class NpySink(Sink):
    """Writes .npy version 1: a header of fixed length, filled in at the end."""

    holds_ids = False

    def __init__(self, file: BinaryIO, dim: int, dtype: np.dtype, id_kind: IdKind | None) -> None:
        self._file = file
        self._dim = dim
        self._dtype = dtype
        file.write(self._header(0))

    def write(self, block: Array, ids: Array | None) -> None:
        """Append a block `(m, dim)`."""
        self._file.write(block.data)

    def finish(self, rows: int) -> None:
        """Put the number of rows into the header."""
        self._file.seek(0)
        self._file.write(self._header(rows))

    def _header(self, rows: int) -> bytes:
        text = f"{{'descr': '{self._dtype.str}', 'fortran_order': False, 'shape': ({rows}, {self._dim}), }}"
        return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"
