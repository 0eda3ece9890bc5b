"""Ground truth of retrieval, by rows and by ids."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suture.aligners.errors import RefusedError, SutureError
from suture.stitching.dumps import Dump, open_dump, read_relevant


@pytest.fixture
def queries(tmp_path: Path) -> Dump:
    np.save(tmp_path / "q.npy", np.ones((3, 2)))
    return open_dump(tmp_path / "q.npy")


@pytest.fixture
def gallery(tmp_path: Path) -> Dump:
    np.save(tmp_path / "g.npy", np.ones((5, 2)))
    (tmp_path / "g.jsonl").write_text('"a"\n"b"\n"c"\n"d"\n"a"\n')
    return open_dump(tmp_path / "g.npy", ids=tmp_path / "g.jsonl")


def save(path: Path, suffix: str, answers: Any) -> Path:
    path = path / f"relevant{suffix}"
    match suffix:
        case ".npy":
            np.save(path, np.array(answers))
        case ".json":
            path.write_text(json.dumps(answers))
        case ".jsonl":
            path.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    return path


@pytest.mark.parametrize("suffix", [".npy", ".json", ".jsonl"])
@pytest.mark.parametrize(
    ("answers", "expected"),
    [([4, -1, 0], [[4], [], [0]]), ([[4, 2], [3, -1], [-1, -1]], [[4, 2], [3], []])],
)
def test_rows(tmp_path: Path, queries: Dump, gallery: Dump, suffix: str, answers: Any, expected: Any) -> None:
    found = read_relevant(save(tmp_path, suffix, answers), queries, gallery)
    assert [rows.tolist() for rows in found] == expected
    assert all(rows.dtype == np.int64 for rows in found)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_ids_and_rows_and_nothing(tmp_path: Path, queries: Dump, gallery: Dump, suffix: str) -> None:
    found = read_relevant(save(tmp_path, suffix, [["d", "a"], [], 2]), queries, gallery)
    assert [rows.tolist() for rows in found] == [[0, 3, 4], [], [2]]


def test_integers_in_a_list_are_ids_where_ids_are_integers(tmp_path: Path, queries: Dump, gallery: Dump) -> None:
    np.save(tmp_path / "ids.npy", np.array([10, 11, 12, 13, 14]))
    numbered = open_dump(gallery.path, ids=tmp_path / "ids.npy")
    answers = save(tmp_path, ".json", [[13, 10], 4, []])
    assert [rows.tolist() for rows in read_relevant(answers, queries, numbered)] == [[0, 3], [4], []]
    with pytest.raises(RefusedError, match=r"'a'.*same way"):
        read_relevant(save(tmp_path, ".json", [["a"], 4, []]), queries, numbered)
    (tmp_path / "ids.txt").write_text("10\n11\n12\n13\n14\n")
    textual = open_dump(gallery.path, ids=tmp_path / "ids.txt")
    answers = save(tmp_path, ".json", [["13"], ["10"], []])
    assert [rows.tolist() for rows in read_relevant(answers, queries, textual)] == [[3], [0], []]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([0, 1], "answers 2 queries.*has 3 rows"),
        ([0, 1, 5], r"query 2.*0 to 4 or -1.*\[5\]"),
        ([0, 1, -2], r"\[-2\]"),
        ([["a"], ["z"], []], "1 of 2 are unknown: 'z'"),
        ([["a"], ["a", 1], []], "query 1"),
        ([0, 1, True], "query 2"),
        ([0, 1, "a"], "query 2"),
        ([0, 1, 1.5], "query 2"),
    ],
)
def test_refusals(tmp_path: Path, queries: Dump, gallery: Dump, answers: Any, message: str) -> None:
    with pytest.raises(SutureError, match=message):
        read_relevant(save(tmp_path, ".json", answers), queries, gallery)


def test_files_that_are_no_ground_truth(tmp_path: Path, queries: Dump, gallery: Dump) -> None:
    np.save(tmp_path / "float.npy", np.ones(3))
    np.save(tmp_path / "object.npy", np.array([[1], [1, 2], []], object), allow_pickle=True)
    (tmp_path / "bad.json").write_text("hello")
    (tmp_path / "dict.json").write_text("{}")
    for name in ("float.npy", "object.npy", "bad.json", "dict.json", "none.npy", "x.txt"):
        with pytest.raises(SutureError, match="expected"):
            read_relevant(tmp_path / name, queries, gallery)
    with pytest.raises(RefusedError, match="has none"):
        read_relevant(save(tmp_path, ".json", [["a"], 0, 0]), queries, queries)
