"""Ids, labels and pairs in files of their own."""

from collections.abc import Callable
from pathlib import Path

from ...aligners.errors import SutureError
from .formats.arrow import open_parquet_column
from .formats.delimited import open_delimited_column
from .formats.jsonl import json_values, open_json_ids, open_jsonl_ids
from .formats.npy import open_npy_ids
from .formats.text import open_text_ids
from .ids import IdColumn

__all__ = ["open_columns", "open_groups", "open_ids"]

ONE_COLUMN: dict[str, Callable[[Path], IdColumn]] = {
    ".npy": open_npy_ids,
    ".txt": open_text_ids,
    ".json": open_json_ids,
}
JSON_LINES = (".jsonl", ".jsonl.gz")
TABLES: dict[str, Callable[[Path, str], IdColumn]] = {
    ".csv": open_delimited_column,
    ".tsv": open_delimited_column,
    ".parquet": open_parquet_column,
    **dict.fromkeys(JSON_LINES, open_jsonl_ids),
}


def open_ids(path: Path, column: str = "id") -> IdColumn:
    """The ids `(n,)` in a file: .npy, .txt (one a line), .json (a list), .jsonl (values, or objects with `column`),
    or .csv, .tsv and .parquet with a column `column`. SutureError for anything else.
    """
    suffix = suffix_of(path)
    if suffix in ONE_COLUMN:
        return ONE_COLUMN[suffix](path)
    return open_columns(path, column)[0]


def open_columns(path: Path, *names: str) -> list[IdColumn]:
    """The named columns of a table (.csv, .tsv, .parquet, .jsonl), each streamed by itself."""
    suffix = suffix_of(path)
    if suffix not in TABLES:
        raise SutureError(
            f"{path}: expected a table with the columns {', '.join(names)} in one of {', '.join(TABLES)}"
            + (f", or a list in one of {', '.join(ONE_COLUMN)}." if len(names) == 1 else ".")
        )
    return [TABLES[suffix](path, name) for name in names]


def open_groups(path: Path) -> tuple[IdColumn | None, IdColumn]:
    """Group labels: one a row, as (None, labels); or by id, from a table with the columns id and group."""
    suffix = suffix_of(path)
    if suffix in ONE_COLUMN or (suffix in JSON_LINES and not isinstance(next(json_values(path), (0, None))[1], dict)):
        return None, open_ids(path)
    ids, labels = open_columns(path, "id", "group")
    return ids, labels


def suffix_of(path: Path) -> str:
    """The suffix that decides the format; SutureError if there is no such file."""
    if not path.is_file():
        raise SutureError(f"{path}: expected a file of ids or labels, there is none at this path.")
    return "".join(path.suffixes[-2:]).lower() if path.suffix == ".gz" else path.suffix.lower()
