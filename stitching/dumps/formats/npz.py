"""NumPy's .npz: .npy files in a zip; stored members are read by offset, compressed ones as a stream."""

import shutil
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import cast

from ....aligners.errors import SutureError
from ..arrays import Array, Rows
from ..dump import Dump
from ..raw import Binary, ColumnMajorDump, RawDump
from .npy import NpyHeader, npy_dump, npy_ids, read_header
from .request import Request, choose, choose_ids

__all__ = ["open_npz"]


def open_npz(request: Request) -> Dump:
    """Open the only 2-D array of a .npz, or the one `::key` names; an array `id` or `ids` holds the ids."""
    path = request.path
    with unzipping(request.name), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        headers = {}
        for key, info in members.items():
            with cast(BufferedIOBase, archive.open(info)) as file:
                headers[key] = read_header(file, f"{path}::{key}")
        shapes = {key: header.shape for key, header in headers.items()}
        key = choose(request, shapes, "array")
        dump = member_dump(request.name, path, members[key], headers[key])
    id_key = choose_ids(request, shapes, "1-D array")
    if id_key is not None:
        dump.ids = npy_ids(lambda: member(path, members[id_key]), f"{path}::{id_key}")
    return dump


def member_dump(name: str, path: Path, info: zipfile.ZipInfo, header: NpyHeader) -> Dump:
    """The array in one member of the zip."""
    if info.compress_type == zipfile.ZIP_STORED:
        return npy_dump(name, path, header, data_offset(path, info))
    if not header.fortran:
        return DeflatedDump(name, path, info, header)
    # A column-major array needs all of its columns for the first row: unpack it once, beside the other spills.
    rows, dim = header.matrix(name)
    with tempfile.NamedTemporaryFile(prefix="suture-", suffix=".npy", delete=False) as copy, member(path, info) as file:
        shutil.copyfileobj(file, copy, 1 << 20)
    unpacked = Path(copy.name)
    dump = ColumnMajorDump(name, unpacked, offset=header.offset, rows=rows, dim=dim, stored=header.dtype)
    weakref.finalize(dump, unpacked.unlink, missing_ok=True)
    return dump


def data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin: behind its local header, whose extra field the index does not know."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
    return info.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")


class DeflatedDump(RawDump):
    """A compressed, row-major member: read in order; rows in any order come from a temporary copy."""

    def __init__(self, name: str, path: Path, info: zipfile.ZipInfo, header: NpyHeader) -> None:
        self._info = info
        rows, dim = header.matrix(name)
        super().__init__(name, path, offset=header.offset, rows=rows, dim=dim, stored=header.dtype)

    def _open(self) -> AbstractContextManager[Binary]:
        return member(self.path, self._info)

    def _check_size(self, expected: int) -> None:
        if self._info.file_size != expected:
            raise SutureError(f"{self.name}: expected {expected} bytes, the zip has {self._info.file_size}: damaged.")

    def _stream(self, size: int, start: int, stop: int) -> Iterator[Array]:
        with unzipping(self.name):
            yield from super()._stream(size, start, stop)

    def _gather(self, rows: Rows, out: Array) -> None:
        Dump._gather(self, rows, out)


def member(path: Path, info: zipfile.ZipInfo) -> BufferedIOBase:
    """One member, unpacked as it is read; the archive is closed with it."""
    with zipfile.ZipFile(path) as archive:
        return cast(BufferedIOBase, archive.open(info))


@contextmanager
def unzipping(name: str) -> Iterator[None]:
    """SutureError instead of the errors of a damaged zip."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise SutureError(
            f"{name}: the .npz cannot be unpacked ({error}). It is damaged or cut: save it again."
        ) from error
