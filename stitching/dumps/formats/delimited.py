"""Numbers as text with delimiters: .csv and .tsv, with a header or without, with a column of ids or without."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ....aligners.errors import SutureError
from ..arrays import Array, rebatch
from ..dump import Dump
from ..ids import IdColumn
from .request import DEFAULT_IDS, Request
from .text import CHUNK, chunked, text_column, text_lines

__all__ = ["open_delimited", "open_delimited_column"]


def records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every line. A field may be quoted but not run over several lines."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    for number, line in text_lines(path):
        # csv.reader is three times slower than str.split, and quotes are rare among numbers
        yield number, next(csv.reader([line], delimiter=delimiter)) if '"' in line else line.split(delimiter)


def open_delimited(request: Request) -> Dump:
    """Open .csv or .tsv: one row a line, all columns numbers but the one of the ids.

    The first line is a header if none of its fields is a number, or if it counts 0, 1, 2, ... as pandas does. The ids
    are the column asked for, else the one headed id, ids or nothing, else (no header) the only one that is no number.
    """
    request.without_key()
    path = request.path
    _, first = next(records(path), (0, []))
    header = is_header(first)
    id_at = column_of(path, first, request.id_column) if request.id_column is not None else default_ids(first, header)
    rows = sum(1 for _ in text_lines(path)) - header
    dump = DelimitedDump(request.name, path, rows, first, header, id_at)
    if id_at is not None and request.own_ids:
        dump.ids = column(path, len(first), id_at, header)
    return dump


def is_header(fields: list[str]) -> bool:
    """Whether a first line names its columns."""
    counted = [str(i) for i in range(len(fields))]
    return not any(map(is_number, fields)) or (len(fields) > 2 and (fields == counted or fields[1:] == counted[:-1]))


def is_number(text: str) -> bool:
    """Whether a field is a number; nan and inf are."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def default_ids(fields: list[str], header: bool) -> int | None:
    """Where the ids stand if the user does not say."""
    if header:
        return next((at for at, field in enumerate(fields) if field in DEFAULT_IDS or (at == 0 and not field)), None)
    return next((at for at, field in enumerate(fields) if not is_number(field)), None)


def column_of(path: Path, fields: list[str], name: str) -> int:
    """Where the column `name` stands: by its header, or by its number (from 0) where there is no header."""
    if is_header(fields) and name in fields:
        return fields.index(name)
    if not is_header(fields) and name.isdecimal() and int(name) < len(fields):
        return int(name)
    found = ", ".join(fields[:20]) if is_header(fields) else f"no header: name it by its number, 0 to {len(fields) - 1}"
    raise SutureError(f"{path}: expected a column {name!r}, got {found}.")


def fields_of(path: Path, width: int, header: bool) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of the rows; SutureError where a line is longer or shorter than the first."""
    rows = records(path)
    if header:
        next(rows)
    for number, fields in rows:
        if len(fields) != width:
            raise SutureError(
                f"{path}, line {number}: expected {width} fields, as in the first line, got {len(fields)}. "
                "The file is ragged, or a quoted field runs over a line."
            )
        yield number, fields


def column(path: Path, width: int, at: int, header: bool) -> IdColumn:
    """One column as ids."""
    return text_column(f"{path}, column {at}", lambda: (fields[at] for _, fields in fields_of(path, width, header)))


def open_delimited_column(path: Path, name: str) -> IdColumn:
    """The ids `(n,)` in the column with header `name`."""
    _, first = next(records(path), (0, []))
    if name not in first:
        raise SutureError(f"{path}: expected a header with a column {name!r}, got: {', '.join(first[:20])}.")
    return column(path, len(first), first.index(name), True)


class DelimitedDump(Dump):
    """Float32 vectors `(n, p)`, one a line."""

    def __init__(self, name: str, path: Path, rows: int, first: list[str], header: bool, id_at: int | None) -> None:
        super().__init__(name, path, rows, len(first) - (id_at is not None), np.dtype(np.float32))
        self._width = len(first)
        self._header = header
        self._id_at = id_at

    def _stream(self, size: int, start: int, stop: int) -> Iterator[Array]:
        return rebatch(self._chunks(), size, self.dim, self.dtype, start, stop - start)

    def _chunks(self) -> Iterator[Array]:
        for chunk in chunked(fields_of(self.path, self._width, self._header), CHUNK):
            out = np.empty((len(chunk), self.dim), self.dtype)
            for i, (number, fields) in enumerate(chunk):
                if self._id_at is not None:
                    del fields[self._id_at]
                try:
                    out[i] = fields
                except ValueError as error:
                    raise SutureError(
                        f"{self.path}, line {number}: expected {self.dim} numbers, got something else ({error}). "
                        "Name the column of ids with --id-column, and remove other text."
                    ) from error
            yield out
