"""A folder of parts, in the order of their names: .parquet, .npy, or .arrow, as Hugging Face datasets save them."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ....aligners.errors import SutureError
from ..arrays import Array, Rows, rebatch
from ..dump import Dump
from ..ids import IdColumn
from .arrow import open_arrow, open_parquet
from .npy import open_npy
from .request import Request

__all__ = ["FolderDump", "open_folder"]

PARTS: dict[str, Callable[[Request], Dump]] = {
    ".parquet": open_parquet,
    ".arrow": open_arrow,
    ".feather": open_arrow,
    ".npy": open_npy,
}


def open_folder(request: Request) -> Dump:
    """Open all parts of a folder as one dump; names that begin with a dot or an underscore are not parts."""
    entries = sorted(path for path in request.path.iterdir() if path.name[0] not in "._")
    paths = [path for path in entries if path.suffix.lower() in PARTS and path.is_file()]
    suffixes = sorted({path.suffix.lower() for path in paths})
    if len(suffixes) != 1:
        folders = ", ".join(path.name for path in entries if path.is_dir())
        raise SutureError(
            f"{request.path}: expected a folder of parts of one kind, {', '.join(PARTS)}; got "
            f"{', '.join(suffixes) or 'none'}."
            + (f" Folders in it, to be named instead: {folders}." if folders else "")
        )
    opened = PARTS[suffixes[0]]
    return FolderDump(request, [opened(replace(request, name=str(path), path=path)) for path in paths])


class FolderDump(Dump):
    """The rows of several dumps of one width and dtype, one after the other."""

    def __init__(self, request: Request, parts: list[Dump]) -> None:
        first = parts[0]
        for part in parts:
            if (part.dim, part.dtype) != (first.dim, first.dtype):
                raise SutureError(
                    f"{part.path}: expected {first.dim} columns of {first.dtype}, as in {first.path}, got {part.dim} "
                    f"of {part.dtype}. All parts must have one schema."
                )
        super().__init__(request.name, request.path, sum(part.rows for part in parts), first.dim, first.dtype)
        self._parts = parts
        self._starts = np.cumsum([0, *(part.rows for part in parts)])
        self.ids = joined_ids(request, parts)

    def _stream(self, size: int, start: int, stop: int) -> Iterator[Array]:
        return rebatch(self._chunks(size, start, stop), size, self.dim, self.dtype, 0, stop - start)

    def _chunks(self, size: int, start: int, stop: int) -> Iterator[Array]:
        for part, first in zip(self._parts, self._starts.tolist(), strict=False):
            yield from part.blocks(size, max(start - first, 0), max(stop - first, 0))

    def _gather(self, rows: Rows, out: Array) -> None:
        edges = np.searchsorted(rows, self._starts)
        for part, first, a, b in zip(self._parts, self._starts, edges, edges[1:], strict=False):
            if a < b:
                part._gather(rows[a:b] - first, out[a:b])


def joined_ids(request: Request, parts: list[Dump]) -> IdColumn | None:
    """The ids of all parts one after the other; SutureError where some have none or another kind."""
    columns = [part.ids for part in parts if part.ids is not None]
    if not columns:
        return None
    for part in parts:
        if part.ids is None or part.ids.kind != columns[0].kind:
            got = "none" if part.ids is None else part.ids.kind
            raise SutureError(f"{part.path}: expected {columns[0].kind} ids, as in {columns[0].name}, got {got}.")
    rows = sum(column.rows for column in columns)
    return IdColumn(
        f"ids of {request.path}", rows, columns[0].kind, lambda: (b for column in columns for b in column.blocks())
    )
