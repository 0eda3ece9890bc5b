"""Labels of rows, from a file, and the classes of a head that they name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...aligners.errors import RefusedError, SutureError
from ..dumps import Dump
from ..dumps.formats.npy import open_npy_ids
from ..dumps.idfiles import open_columns, open_ids
from .onnxhead import Chooser

__all__ = ["class_numbers", "read_labels"]

SHOWN = 5


def read_labels(path: str | Path, dump: Dump) -> list[Any]:
    """The label of each row of a dump: integers or strings.

    One a row, in a file as ids are given (.npy, .txt, .json, .jsonl), or by id in a table with the columns id and label
    (.csv, .tsv, .parquet, .jsonl). Raises `RefusedError` where a row has no label or an id has two.
    """
    path = Path(path)
    table = path.suffix in (".csv", ".tsv", ".parquet") or (path.suffix == ".jsonl" and first_byte(path) == b"{")
    if not table:
        column = open_npy_ids(path, "labels") if path.suffix == ".npy" else open_ids(path)
        labels = [value for block in column.blocks() for value in block.tolist()]
        if len(labels) != dump.rows:
            raise RefusedError(f"{path}: expected one label for each of {dump.rows} rows, got {len(labels)}.")
        return labels
    ids, given = open_columns(path, "id", "label")
    if dump.ids is None:
        raise RefusedError(f"{path} gives labels by id, {dump.name} has no ids; give them (--ids, --id-column).")
    known: dict[str, Any] = {}
    for names, values in zip(ids.blocks(), given.blocks(), strict=True):
        for name, value in zip(names.tolist(), values.tolist(), strict=True):
            if str(name) in known:
                raise RefusedError(f"{path}: the id {name!r} stands there twice; give every id one label.")
            known[str(name)] = value
    wanted = [str(name) for block in dump.ids.blocks() for name in block.tolist()]
    missing = [name for name in wanted if name not in known]
    if missing:
        raise RefusedError(f"{path}: {len(missing)} of {dump.rows} rows have no label, {missing[0]!r} among them.")
    return [known[name] for name in wanted]


def first_byte(path: Path) -> bytes:
    """The first byte that is no space. Raises `SutureError` where there is no such file."""
    if not path.is_file():
        raise SutureError(f"{path}: expected a file of labels, but there is no such file.")
    with path.open("rb") as file:
        return file.read(64).strip()[:1]


def class_numbers(labels: Sequence[Any], head: Chooser, what: str) -> NDArray[np.int64]:
    """The row of the head that each label names. Raises `RefusedError` for labels that the head does not know."""
    known = {str(name): i for i, name in enumerate(head.labels)}
    unknown = Counter(str(label) for label in labels if str(label) not in known)
    if unknown:
        given = "names" if head.classes is not None else "numbers"
        raise RefusedError(
            f"{what}: the labels of {sum(unknown.values())} of {len(labels)} rows are none of the head's {len(known)} "
            f"class {given}: {listed([name for name, _ in unknown.most_common()])}; it knows {listed(list(known))}. "
            "The head file may name its classes in its metadata ('classes', a JSON list)."
        )
    return np.array([known[str(label)] for label in labels], np.int64)


def listed(names: Sequence[str]) -> str:
    """The first of some names, in quotes, for one may be empty."""
    return ", ".join(map(repr, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
