"""Small tables of results as files: .csv, .jsonl or .parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..aligners.errors import UsageError
from .dumps import atomic_write
from .dumps.extras import need
from .dumps.ids import as_int64

__all__ = ["TABLE_FORMATS", "require_table", "write_table"]

TABLE_FORMATS = (".csv", ".jsonl", ".parquet")


def require_table(path: Path) -> None:
    """Raises `UsageError` for a file of another kind."""
    if path.suffix not in TABLE_FORMATS:
        raise UsageError(f"--out: expected one of {', '.join(TABLE_FORMATS)}, got {path}.")


def write_table(path: Path, columns: Mapping[str, Sequence[Any]], *, overwrite: bool = False) -> None:
    """Write columns of equal length; the suffix is the format. The file appears whole or not at all."""
    require_table(path)
    with atomic_write(path, overwrite) as file:
        if path.suffix == ".parquet":
            pa = need("pyarrow", "arrow")
            made = {name: column(values) for name, values in columns.items()}
            need("pyarrow.parquet", "arrow").write_table(pa.table(made), file)
            return
        rows = zip(*columns.values(), strict=True)
        if path.suffix == ".csv":
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            csv.writer(text, lineterminator="\n").writerows([tuple(columns), *rows])
            text.flush()
            text.detach()
            return
        for row in rows:
            file.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False).encode() + b"\n")


def column(values: Sequence[Any]) -> Any:
    """Whole numbers as signed integers, which are checked; anything else as it is."""
    whole = len(values) > 0 and all(type(value) is int for value in values)
    return as_int64(np.array(values)) if whole else list(values)
