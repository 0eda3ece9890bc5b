"""What a user knows of queries or gallery rows beside their vectors: segments, groups, traffic, chances, texts."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...aligners.errors import RefusedError, SutureError
from ..dumps import Dump, hash_ids
from ..dumps.extras import need

__all__ = ["columns_of", "numbers_of", "read_groups", "read_segments", "texts_of"]

Columns = dict[str, list[Any]]


def delimited(path: Path) -> Columns:
    """The columns of a .csv or .tsv with a header."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    header, rows = lines[0], [line for line in lines[1:] if line]
    if len(set(header)) != len(header) or any(len(row) != len(header) for row in rows):
        raise SutureError(f"{path}: expected a header of different names and as many fields in every line.")
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def json_lines(path: Path) -> Columns:
    """The keys of the objects in a .jsonl, or its values as one column."""
    values = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if values and all(isinstance(v, dict) for v in values):
        names = list(dict.fromkeys(key for v in values for key in v))
        return {name: [v.get(name) for v in values] for name in names}
    return {path.stem: values}


def parquet(path: Path) -> Columns:
    """The columns of a .parquet."""
    table = need("pyarrow.parquet", "arrow").read_table(path)
    return {name: table.column(name).to_pylist() for name in table.column_names}


READERS: dict[str, Callable[[Path], Columns]] = {
    ".csv": delimited,
    ".tsv": delimited,
    ".jsonl": json_lines,
    ".parquet": parquet,
    ".json": lambda path: {path.stem: json.loads(path.read_bytes())},
    ".npy": lambda path: {path.stem: np.load(path, allow_pickle=False).tolist()},
    ".txt": lambda path: {path.stem: path.read_text(encoding="utf-8").splitlines()},
}


def columns_of(path: Path) -> Columns:
    """The columns of a table. Raises `SutureError` on a file that is none."""
    if not path.is_file() or path.suffix.lower() not in READERS:
        raise SutureError(f"{path}: expected a table in one of {', '.join(READERS)}.")
    try:
        return READERS[path.suffix.lower()](path)
    except (ValueError, IndexError, csv.Error) as error:
        raise SutureError(f"{path}: cannot be read as a table ({error}).") from error


def read_columns(path: Path, dump: Dump) -> Columns:
    """The columns of a table, one value a row of ``dump``; by its column "id" where both have ids, else by position.

    Raises `SutureError` on a file that is no such table, `RefusedError` where rows are missing or too many.
    """
    columns = columns_of(path)
    ids = columns.pop("id", None)
    if ids is not None and dump.ids is not None:
        place = {str(value): i for i, value in enumerate(ids)}
        known = [place.get(str(value), -1) for block in dump.ids.blocks() for value in block.tolist()]
        if len(place) != len(ids) or min(known) < 0:
            wrong = "an id more than once" if len(place) != len(ids) else f"no row for {known.count(-1)} ids"
            raise RefusedError(f"{path}: expected every id of {dump.name} once, it has {wrong}.")
        return {name: [values[i] for i in known] for name, values in columns.items()}
    for name, values in columns.items():
        if not isinstance(values, list) or len(values) != dump.rows:
            got = len(values) if isinstance(values, list) else type(values).__name__
            raise RefusedError(f"{path}: expected {dump.rows} values in '{name}', one a row of {dump.name}, got {got}.")
    return columns


def read_segments(path: Path, dump: Dump) -> dict[str, list[str]]:
    """Every column as labels."""
    return {name: [str(value) for value in values] for name, values in read_columns(path, dump).items()}


def read_groups(path: Path, dump: Dump) -> Tensor:
    """A key ``(rows,)`` for each row, of the column "group" or the only one: equal within a group."""
    labels = np.array(texts_of(path, dump, "group"), object)
    return torch.from_numpy(hash_ids(labels).view(np.int64))


def one_column(path: Path, dump: Dump, wanted: str) -> list[Any]:
    """The column ``wanted`` of a table, or its only one."""
    columns = read_columns(path, dump)
    if wanted in columns or len(columns) == 1:
        return columns[wanted] if wanted in columns else next(iter(columns.values()))
    raise SutureError(f"{path}: expected a column '{wanted}', got: {', '.join(columns) or 'none'}.")


def texts_of(path: Path, dump: Dump, wanted: str = "text") -> list[str]:
    """The texts in the column ``wanted``, or in the only one."""
    return [str(value) for value in one_column(path, dump, wanted)]


def numbers_of(path: Path, dump: Dump, wanted: str) -> Tensor:
    """The numbers ``(rows,)`` in the column ``wanted``, or in the only one: finite and not negative."""
    try:
        values = torch.tensor([float(value) for value in one_column(path, dump, wanted)], dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise SutureError(f"{path}: expected numbers in '{wanted}' ({error}).") from error
    if not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
        raise RefusedError(f"{path}: expected finite numbers in '{wanted}', none of them negative.")
    return values
