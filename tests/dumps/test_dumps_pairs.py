"""Rows meet the rows they belong to, or nothing at all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suture.aligners.errors import RefusedError, SutureError, UsageError
from suture.stitching.dumps import BadRows, Dump, Pairing, hash_ids, hash_rows, open_dump, pair


def dump(path: Path, name: str, values: list[float] | np.ndarray, ids: Any = None) -> Dump:
    """A dump whose row holds its value twice."""
    x = np.repeat(np.asarray(values, "f4")[:, None], 2, axis=1)
    np.save(path / f"{name}.npy", x)
    if ids is None:
        return open_dump(path / f"{name}.npy")
    if isinstance(ids, Path):
        return open_dump(path / f"{name}.npy", ids=ids)
    np.save(path / f"{name}-ids.npy", np.array(ids))
    return open_dump(path / f"{name}.npy", ids=path / f"{name}-ids.npy")


def read(pairing: Pairing, size: int = 3) -> tuple[list[float], list[float], list[int]]:
    x, y, keys = [], [], []
    for block in pairing.blocks(size):
        assert len(block.x) == len(block.y) == len(block.keys) <= size
        x += block.x[:, 0].tolist()
        y += block.y[:, 0].tolist()
        keys += block.keys.tolist()
    return x, y, keys


def test_by_row(tmp_path: Path) -> None:
    pairing = pair(dump(tmp_path, "a", range(1, 8)), dump(tmp_path, "b", range(11, 18)))
    assert (pairing.by, pairing.rows) == ("row", 7)
    for _ in range(2):
        x, y, keys = read(pairing)
        assert (x, y) == (list(range(1, 8)), list(range(11, 18)))
        assert keys == hash_rows(0, 7).tolist()


@pytest.mark.parametrize("kind", ["int", "str", "huge"])
def test_by_id_in_the_same_order(tmp_path: Path, kind: str) -> None:
    ids = {"int": np.arange(7) - 3, "str": np.array(list("abcdefg")), "huge": np.arange(7, dtype="u8") + 2**63 - 3}[
        kind
    ]
    pairing = pair(dump(tmp_path, "a", range(1, 8), ids), dump(tmp_path, "b", range(11, 18), ids))
    x, y, keys = read(pairing)
    assert (x, y) == (list(range(1, 8)), list(range(11, 18)))
    assert keys == hash_ids(ids).tolist()
    assert pairing.report["order"] == "same"


@pytest.mark.parametrize("kind", ["int", "str", "huge"])
@pytest.mark.parametrize("n", [7, 20_000])
def test_by_id_permuted_and_partly_overlapping(tmp_path: Path, kind: str, n: int) -> None:
    rng = np.random.default_rng(1)
    values = np.arange(1, 2 * n + 1)
    ids = {"int": values - n, "str": values.astype(str), "huge": values.astype("u8") + np.uint64(2**63 - n)}[kind]
    left, right = rng.permutation(2 * n)[:n], rng.permutation(2 * n)[:n]
    source = dump(tmp_path, "a", values[left], ids[left])
    target = dump(tmp_path, "b", -values[right], ids[right])
    pairing = pair(source, target)
    others = set(right.tolist())
    common = [i for i in left if i in others]
    for size in (3, 8192) if n < 10 else (8192,):
        x, y, keys = read(pairing, size)
        assert x == values[common].tolist()
        assert y == (-values[common]).tolist()
        assert keys == hash_ids(ids[common]).tolist()
    report = pairing.report
    assert json.loads(json.dumps(report)) == report
    assert (report["rows"], report["overlap"], report["order"]) == (len(common), len(common), "joined")
    assert report["source_only"] == report["target_only"] == n - len(common)


@given(st.data())
def test_a_join_is_what_a_dictionary_says(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    ids = st.lists(st.sampled_from(["007", "7", "a", "b", "A", "", "é", "e\u0301"]), min_size=1, unique=True)
    left, right = data.draw(ids), data.draw(ids)
    path = tmp_path_factory.mktemp("join")
    source = dump(path, "a", np.arange(len(left)) + 1.0, left)
    target = dump(path, "b", np.arange(len(right)) + 1.0, right)
    expected = [(i + 1, right.index(value) + 1) for i, value in enumerate(left) if value in right]
    if not expected:
        with pytest.raises(RefusedError, match="No id"):
            pair(source, target)
        return
    x, y, _ = read(pair(source, target))
    assert list(zip(x, y, strict=True)) == expected


def test_ids_of_equal_bits_are_not_equal(tmp_path: Path) -> None:
    source = dump(tmp_path, "a", [1, 2], np.array([-1, 5]))
    target = dump(tmp_path, "b", [1, 2], np.array([2**64 - 1, 5], np.uint64))
    assert read(pair(source, target))[:2] == ([2], [2])


def test_text_without_types_follows_the_other_side(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("1\n2\n3\n")
    (tmp_path / "ids.jsonl").write_text('"3"\n"1"\n"2"\n')
    source = dump(tmp_path, "a", [1, 2, 3], tmp_path / "ids.txt")
    x, y, keys = read(pair(source, dump(tmp_path, "b", [3, 1, 2], tmp_path / "ids.jsonl")))
    assert x == y == [1, 2, 3]
    assert keys == hash_ids(np.array(["1", "2", "3"])).tolist()


def test_pairs_from_a_table(tmp_path: Path) -> None:
    source, target = dump(tmp_path, "a", [1, 2, 3], ["x", "y", "z"]), dump(tmp_path, "b", [10, 20, 30, 40])
    (tmp_path / "p.csv").write_text("source,target,note\nz,0,n\nx,3,n\nx,1,n\n")
    (tmp_path / "p.jsonl").write_text(
        "".join(json.dumps({"source": s, "target": t}) + "\n" for s, t in [("z", 0), ("x", 3), ("x", 1)])
    )
    for name in ("p.csv", "p.jsonl"):
        pairing = pair(source, target, pairs=tmp_path / name)
        x, y, keys = read(pairing)
        assert (pairing.by, pairing.rows) == ("pairs", 3)
        assert (x, y) == ([1, 1, 3], [20, 40, 10])
        assert keys == hash_ids(np.array(["x", "x", "z"])).tolist()
    for row in ("q,0", "x,4", "x,-1"):
        (tmp_path / "p.csv").write_text(f"source,target\nz,0\n{row}\n")
        with pytest.raises(RefusedError, match=r"1 of 2 are not"):
            pair(source, target, pairs=tmp_path / "p.csv")
    (tmp_path / "p.csv").write_text("source,other\nz,0\n")
    with pytest.raises(SutureError, match="'target'"):
        pair(source, target, pairs=tmp_path / "p.csv")
    with pytest.raises(UsageError, match="by-row"):
        pair(source, target, pairs=tmp_path / "p.csv", by_row=True)


def test_what_would_be_a_guess_is_refused(tmp_path: Path) -> None:
    plain, longer = dump(tmp_path, "a", [1, 2, 3]), dump(tmp_path, "b", [1, 2, 3, 4])
    named = dump(tmp_path, "c", [1, 2, 3], ["x", "y", "z"])
    numbered = dump(tmp_path, "d", [1, 2, 3], [1, 2, 3])
    with pytest.raises(RefusedError, match=r"has 3.*has 4.*--ids"):
        pair(plain, longer)
    with pytest.raises(RefusedError, match=r"c\.npy has ids.*a\.npy has none.*--by-row"):
        pair(plain, named)
    with pytest.raises(RefusedError, match=r"int \(first: 1\).*str \(first: 'x'\)"):
        pair(numbered, named)
    with pytest.raises(RefusedError, match=r"'x', 'y', 'z' against 'p', 'q'"):
        pair(named, dump(tmp_path, "e", [1, 2], ["p", "q"]))
    assert pair(plain, named, by_row=True).by == "row"
    with pytest.raises(RefusedError, match=r"has 3.*has 4"):
        pair(named, longer, by_row=True)


def test_repeated_ids_are_refused_by_name(tmp_path: Path) -> None:
    once = dump(tmp_path, "a", [1, 2, 3, 4], ["x", "y", "z", "w"])
    twice = dump(tmp_path, "b", [1, 2, 3, 4], ["x", "y", "x", "v"])
    for pairing in ((once, twice), (twice, once)):
        with pytest.raises(RefusedError, match=r"b\.npy: .*1 ids stand in 2 rows: 'x' \(2 times\)"):
            pair(*pairing)


def test_rows_of_a_group_share_a_key(tmp_path: Path) -> None:
    source, target = dump(tmp_path, "a", [1, 2, 3], ["x", "y", "z"]), dump(tmp_path, "b", [3, 1, 2], ["z", "x", "y"])
    (tmp_path / "g.txt").write_text("p\nq\np\n")
    (tmp_path / "g.csv").write_text("group,id\np,z\nq,y\np,x\nr,unused\n")
    (tmp_path / "g.jsonl").write_text('"p"\n"q"\n"p"\n')
    (tmp_path / "h.jsonl").write_text(
        '{"id": "z", "group": "p"}\n{"id": "y", "group": "q"}\n{"id": "x", "group": "p"}\n'
    )
    for name in ("g.txt", "g.csv", "g.jsonl", "h.jsonl"):
        x, y, keys = read(pair(source, target, groups=tmp_path / name), 2)
        assert x == y == [1, 2, 3]
        assert keys == hash_ids(np.array(["p", "q", "p"])).tolist()
    (tmp_path / "g.txt").write_text("p\nq\n")
    with pytest.raises(RefusedError, match=r"2 group labels.*3 rows"):
        pair(source, target, groups=tmp_path / "g.txt")
    (tmp_path / "g.csv").write_text("group,id\np,z\nq,y\n")
    with pytest.raises(RefusedError, match=r"1 of 3 have none: 'x'"):
        pair(source, target, groups=tmp_path / "g.csv")
    with pytest.raises(RefusedError, match="has no ids"):
        pair(dump(tmp_path, "c", [1]), dump(tmp_path, "d", [1]), groups=tmp_path / "g.csv")


BAD = [1, np.nan, 3, 0, 5, np.inf, 7]


def test_bad_rows_are_refused_with_all_their_reasons(tmp_path: Path) -> None:
    source = dump(tmp_path, "a", BAD, [f"k{i}" for i in range(7)])
    target = dump(tmp_path, "b", [1, 2, -np.inf, 4, 5, 6, 7], [f"k{i}" for i in range(7)])
    pairing = pair(source, target)
    seen: list[float] = []
    with pytest.raises(RefusedError) as error:
        seen.extend(block.x[0, 0] for block in pairing.blocks(2))
    assert seen == [], "no block may follow a bad row"
    message = str(error.value)
    assert "a.npy: expected finite non-zero vectors, found 1 nan, 1 zero, 1 infinite among 7 rows." in message
    assert "a.npy row 3, id 'k3': zero" in message
    assert "b.npy row 2, id 'k2': infinite" in message
    assert "--bad-rows skip, or --bad-rows quarantine FILE" in message
    assert pairing.bad == {"source": {"nan": 1, "zero": 1, "infinite": 1}, "target": {"infinite": 1}, "dropped": 4}


def test_only_the_first_ten_bad_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="found 25 zero") as error:
        read(pair(dump(tmp_path, "a", np.zeros(25)), dump(tmp_path, "b", np.ones(25))))
    assert str(error.value).count(": zero") == 10


@pytest.mark.parametrize("order", [1, -1])
def test_bad_rows_are_skipped_or_quarantined(tmp_path: Path, order: int) -> None:
    ids = [f"k{i}" for i in range(7)]
    source = dump(tmp_path, "a", BAD, ids)
    target = dump(tmp_path, "b", [1, 2, -np.inf, 4, 5, 6, 7][::order], ids[::order])
    for policy in (BadRows("skip"), BadRows("quarantine", tmp_path / "bad.jsonl")):
        pairing = pair(source, target, bad_rows=policy)
        for size in (2, 3):
            x, y, keys = read(pairing, size)
            assert x == y == [1, 5, 7]
            assert keys == hash_ids(np.array(["k0", "k4", "k6"])).tolist()
            assert pairing.bad["dropped"] == 4
    records = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert {(Path(r["dump"]).name, r["row"], r["id"], r["reason"]) for r in records} == {
        ("a.npy", 1, "k1", "nan"),
        ("a.npy", 3, "k3", "zero"),
        ("a.npy", 5, "k5", "infinite"),
        ("b.npy", 2 if order == 1 else 4, "k2", "infinite"),
    }


def test_policies_that_mean_nothing() -> None:
    for arguments in (("drop",), ("quarantine",), ("skip", Path("x.jsonl")), ("quarantine", Path("x.npy"))):
        with pytest.raises(UsageError, match="--bad-rows"):
            BadRows(*arguments)


@pytest.mark.parametrize("held", [3, 1 << 21])
def test_what_has_no_mate_or_several_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr("suture.stitching.dumps.ids.HELD", held)  # many passes, or one
    names = [*"abcdefg"]
    plain = pair(dump(tmp_path, "a", range(1, 8), names), dump(tmp_path, "b", range(1, 8), names)).report
    assert (plain["source_repeated"], plain["target_repeated"], plain["source_only"]) == (0, 0, 0)
    twice = [*"abcdecb"]
    report = pair(dump(tmp_path, "a", range(1, 8), twice), dump(tmp_path, "b", range(1, 8), twice)).report
    assert report["source_repeated"] == report["target_repeated"] == 2
    assert report["source_repeated_examples"][0] in "bc"
    (tmp_path / "p.csv").write_text("source,target\na,0\nb,3\na,3\nd,5\na,6\n")
    report = pair(dump(tmp_path, "a", range(1, 8), names), dump(tmp_path, "b", range(1, 9)), pairs=tmp_path / "p.csv")
    found = report.report
    assert {k: found[k] for k in found if "_only" in k or "_repeated" in k} == {
        **{"source_only": 4, "source_only_examples": ["c", "e", "f", "g"], "source_repeated": 1},
        **{"source_repeated_examples": ["a"], "target_only": 4, "target_only_examples": [1, 2, 4, 7]},
        **{"target_repeated": 1, "target_repeated_examples": [3]},
    }
