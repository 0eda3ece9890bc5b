"""Which gallery rows are the right answers to which query: the ground truth of retrieval."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...aligners.errors import RefusedError, SutureError
from .arrays import Rows
from .dump import Dump
from .formats.jsonl import json_values
from .ids import IdColumn

__all__ = ["read_relevant"]

SHOWN = 5


def read_relevant(path: str | Path, queries: Dump, gallery: Dump) -> list[Rows]:
    """The relevant gallery rows of every query: `queries.rows` arrays of int64, empty where nothing is relevant.

    .npy holds gallery rows, `(n,)` or `(n, k)`; .json (a list) and .jsonl (a line) hold for each query a gallery row,
    or a list of rows or ids. In a list strings are ids, and so are integers where the gallery has integer ids. The
    row -1 and the empty list say that nothing is relevant; an id of several gallery rows means all of them.
    Raises RefusedError for rows out of range, unknown ids and a wrong number of queries, SutureError for other files.
    """
    path = Path(path)
    answers = read_answers(path)
    if len(answers) != queries.rows:
        raise RefusedError(
            f"{path} answers {len(answers)} queries, {queries.name} has {queries.rows} rows. "
            "Give one answer a query, in their order."
        )
    numeric = path.suffix.lower() == ".npy"
    names = {value for answer in answers if is_ids(answer, numeric, gallery) for value in answer}
    known = rows_of(path, names, gallery) if names else {}
    found = []
    for i, answer in enumerate(answers):
        if is_ids(answer, numeric, gallery):
            found.append(np.array(sorted({row for value in answer for row in known[value]}), np.int64))
        else:
            found.append(row_numbers(path, i, answer, gallery))
    return found


def read_answers(path: Path) -> list[Any]:
    """One value a query: a row number, or a list."""
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in (".npy", ".json", ".jsonl"):
        raise SutureError(f"{path}: expected a .npy, .json or .jsonl file with the relevant gallery rows a query.")
    if suffix == ".jsonl":
        return [value for _, value in json_values(path)]
    try:
        answers = np.load(path, allow_pickle=False) if suffix == ".npy" else json.loads(path.read_bytes())
    except ValueError as error:
        raise SutureError(f"{path}: expected {suffix[1:]} of integers, it cannot be read ({error}).") from error
    if isinstance(answers, np.ndarray) and answers.ndim in (1, 2) and answers.dtype.kind in "iu":
        return list(answers.tolist())
    if not isinstance(answers, list):
        got = f"{answers.shape} of {answers.dtype}" if isinstance(answers, np.ndarray) else type(answers).__name__
        raise SutureError(f"{path}: expected one answer a query, integers (n,) or (n, k) or a list, got {got}.")
    return answers


def is_ids(answer: Any, numeric: bool, gallery: Dump) -> bool:
    """Whether an answer is a list of ids, not of rows."""
    if numeric or not isinstance(answer, list) or not answer:
        return False
    by_number = gallery.ids is not None and gallery.ids.kind == "int"
    return all(type(value) is str for value in answer) or (by_number and all(type(value) is int for value in answer))


def row_numbers(path: Path, i: int, answer: Any, gallery: Dump) -> Rows:
    """An answer of row numbers, checked; -1 is left out."""
    values = answer if isinstance(answer, list) else [answer]
    if not all(type(value) is int for value in values):
        raise SutureError(
            f"{path}, query {i}: expected a gallery row, or a list of rows or of ids, got {str(answer)[:60]}."
        )
    outside = [value for value in values if not -1 <= value < gallery.rows]
    if outside:
        raise RefusedError(
            f"{path}, query {i}: expected rows of {gallery.name}, 0 to {gallery.rows - 1} or -1, got "
            f"{outside[:SHOWN]}. Is this the ground truth of another gallery?"
        )
    return np.array([value for value in values if value >= 0], np.int64)


def rows_of(path: Path, names: set[Any], gallery: Dump) -> dict[Any, list[int]]:
    """The gallery rows of the ids that occur; memory grows with these, not with the gallery."""
    known: dict[Any, list[int]] = {}
    first = 0
    for block in ids_like(path, names, gallery).blocks():
        for row, value in enumerate(block.tolist(), first):
            if value in names:
                known.setdefault(value, []).append(row)
        first += len(block)
    unknown = [value for value in names if value not in known]
    if unknown:
        raise RefusedError(
            f"{path}: expected ids of {gallery.name}, {len(unknown)} of {len(names)} are unknown: "
            f"{', '.join(map(repr, unknown[:SHOWN]))}. Is this the ground truth of another gallery?"
        )
    return known


def ids_like(path: Path, names: set[Any], gallery: Dump) -> IdColumn:
    """The ids of the gallery, of the kind of `names`."""
    ids = gallery.ids
    text = all(type(name) is str for name in names)
    if ids is None:
        raise RefusedError(f"{path} names ids, {gallery.name} has none. Give them with --gallery-ids, or name rows.")
    if text and ids.kind == "int" and ids.textual:
        return ids.as_text()
    if (ids.kind == "str") != text:
        raise RefusedError(
            f"{path}: expected {ids.kind} ids, as {ids.name} has them, got {next(iter(names))!r}. "
            "Write them the same way."
        )
    return ids
