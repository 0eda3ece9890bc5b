"""JSON lines, plain or gzipped: one object a row, its vector in one field, its id in another."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ....aligners.errors import SutureError
from ..arrays import Array, rebatch
from ..dump import Dump
from ..ids import IdColumn, IdKind, id_array
from .request import Request, choose, choose_ids
from .sinks import Sink
from .text import CHUNK, chunked, text_lines

__all__ = ["JsonlDump", "JsonlSink", "json_values", "open_json_ids", "open_jsonl", "open_jsonl_ids"]

VECTOR_FIELDS = ("vector", "embedding", "embeddings", "values")


def json_values(path: Path) -> Iterator[tuple[int, Any]]:
    """Line number and value of every line; SutureError where a line is not JSON."""
    for number, line in text_lines(path):
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise SutureError(
                f"{path}, line {number}: expected one JSON value, got {line[:60]!r} ({error})."
            ) from error


def field_of(path: Path, number: int, row: Any, field: str) -> Any:
    """The value of a field in one row; SutureError if it is not there."""
    if not isinstance(row, dict) or field not in row:
        got = f"fields {sorted(row)}" if isinstance(row, dict) else type(row).__name__
        raise SutureError(f"{path}, line {number}: expected an object with field {field!r}, got {got}.")
    return row[field]


def open_jsonl(request: Request) -> Dump:
    """Open JSON lines whose field `::field` (default: vector, embedding, embeddings or values) holds `p` numbers."""
    number, row = next(json_values(request.path), (0, None))
    if not isinstance(row, dict):
        raise SutureError(f"{request.path}: expected one JSON object a line, the first is {str(row)[:60]!r}.")
    found = {key: ("n", len(value)) if isinstance(value, list) else ("n",) for key, value in row.items()}
    named = {key: shape for key, shape in found.items() if key in VECTOR_FIELDS}
    field = choose(request, found if request.key is not None or not named else named, "field")
    rows = sum(1 for _ in text_lines(request.path))
    dump = JsonlDump(request.name, request.path, field, rows, len(row[field]))
    id_field = choose_ids(request, found, "field")
    if id_field is not None:
        dump.ids = jsonl_ids(request.path, id_field, rows, field_of(request.path, number, row, id_field))
    return dump


class JsonlDump(Dump):
    """Float32 vectors `(n, p)` out of one field of JSON lines."""

    def __init__(self, name: str, path: Path, field: str, rows: int, dim: int) -> None:
        super().__init__(name, path, rows, dim, np.dtype(np.float32))
        self._field = field

    def _stream(self, size: int, start: int, stop: int) -> Iterator[Array]:
        return rebatch(self._chunks(), size, self.dim, self.dtype, start, stop - start)

    def _chunks(self) -> Iterator[Array]:
        for chunk in chunked(json_values(self.path), CHUNK):
            out = np.empty((len(chunk), self.dim), self.dtype)
            for i, (number, row) in enumerate(chunk):
                vector = field_of(self.path, number, row, self._field)
                if not isinstance(vector, list) or len(vector) != self.dim or not all(map(is_number, vector)):
                    got = f"a list of {len(vector)}" if isinstance(vector, list) else type(vector).__name__
                    raise SutureError(
                        f"{self.path}, line {number}: expected {self.dim} numbers in {self._field!r}, as in the first "
                        f"line, got {got}. All vectors of a dump must have one length and hold numbers only."
                    )
                out[i] = vector
            yield out


def is_number(value: object) -> bool:
    """Whether a JSON value is a number; true and false are not."""
    return type(value) is float or type(value) is int


def jsonl_ids(path: Path, field: str | None, rows: int, first: Any) -> IdColumn:
    """Ids `(rows,)` from a field of every line, or from the bare values where `field` is None."""
    name = str(path) if field is None else f"{path}::{field}"

    def chunks() -> Iterator[Array]:
        for chunk in chunked(json_values(path), CHUNK):
            values = [row if field is None else field_of(path, number, row, field) for number, row in chunk]
            yield id_array(values, f"{name}, line {chunk[0][0]} on")

    return IdColumn(name, rows, "str" if isinstance(first, str) else "int", chunks)


def open_jsonl_ids(path: Path, field: str = "id") -> IdColumn:
    """Ids `(n,)` from JSON lines of bare values, or of objects with a field `field`."""
    number, first = next(json_values(path), (0, None))
    rows = sum(1 for _ in text_lines(path))
    if isinstance(first, dict):
        return jsonl_ids(path, field, rows, field_of(path, number, first, field))
    return jsonl_ids(path, None, rows, first)


def open_json_ids(path: Path) -> IdColumn:
    """Ids `(n,)` from a .json file that holds one list of them."""
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise SutureError(f"{path}: expected JSON, got something else ({error}).") from error
    if not isinstance(values, list) or not values:
        raise SutureError(f"{path}: expected a non-empty JSON list of ids, got {str(values)[:60]!r}.")
    ids = id_array(values, str(path))
    return IdColumn(str(path), len(ids), "str" if ids.dtype == object else "int", lambda: [ids])


class JsonlSink(Sink):
    """Writes one object a line: `{"id": ..., "vector": [...]}`, numbers with the digits they need."""

    holds_ids = True

    def __init__(self, file: BinaryIO, dim: int, dtype: np.dtype, id_kind: IdKind | None) -> None:
        self._file = file

    def write(self, block: Array, ids: Array | None) -> None:
        """Append a block `(m, dim)` and its ids `(m,)`."""
        names = [None] * len(block) if ids is None else ids.tolist()
        for name, row in zip(names, block, strict=True):
            head = "{" if ids is None else f'{{"id": {json.dumps(name, ensure_ascii=False)}, '
            # Shortest text that gives the same number back when it is read as float32 (float64 keeps all its digits)
            numbers = map(str, row.astype(np.float32) if row.dtype == np.float16 else row)
            text = ", ".join(numbers) if np.isfinite(row).all() else json.dumps(row.tolist())[1:-1]
            self._file.write(f'{head}"vector": [{text}]}}\n'.encode())

    def finish(self, rows: int) -> None:
        """Nothing is left to do: the format does not count its rows."""
