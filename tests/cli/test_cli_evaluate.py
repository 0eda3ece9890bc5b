"""`suture evaluate` on files: its inputs, its table, its sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suture.aligners import load

Fails = Callable[..., str]
Run = Callable[..., Any]
METRICS = ("ndcg@10", "recall@1", "recall@10", "mrr", "overlap@10")


@pytest.fixture
def everything(world: Path, ab: Path) -> tuple[object, ...]:
    return (
        *("evaluate", ab, "--queries", world / "query.b.npy", "--gallery", world / "gallery.a.npy"),
        *("--source-queries", world / "query.a.npy", "--target-gallery", world / "gallery.b.npy"),
        *("--relevant", world / "right.npy"),
    )


def ndcg(queries: Any, gallery: Any, right: Any) -> float:
    """nDCG@10 of one right answer a query, by brute force."""
    queries, gallery = (r / np.linalg.norm(r, axis=1, keepdims=True) for r in (queries, gallery))
    scores = queries.astype(np.float64) @ gallery.astype(np.float64).T
    own = scores[np.arange(len(right)), right]
    rank = 1 + (scores > own[:, None]).sum(1)
    return float(np.where(rank <= 10, 1 / np.log2(1 + rank), 0).mean())


def test_the_whole_table(suture: Run, everything: tuple[object, ...], ab: Path, rows: Callable[[str], Any]) -> None:
    done = suture(*everything, "--json")
    assert done.err == ""
    result = done.json
    assert [s["name"] for s in result["strategies"]] == ["map", "stay", "re-embed", "identity", "mean", "shuffled"]
    for strategy in result["strategies"]:
        if strategy["name"] == "identity":
            assert strategy["metrics"] is None
            assert strategy["reason"]
            continue
        for name in METRICS:
            value = strategy["metrics"][name]
            assert {"estimate", "low", "high"} <= set(value)
            assert 0 <= value["low"] <= value["estimate"] <= value["high"] <= 1
    estimate = {s["name"]: s["metrics"]["ndcg@10"]["estimate"] for s in result["strategies"] if s["metrics"]}
    right = rows("right")
    assert estimate["stay"] == pytest.approx(ndcg(rows("query.a"), rows("gallery.a"), right), abs=1e-9)
    assert estimate["re-embed"] == pytest.approx(ndcg(rows("query.b"), rows("gallery.b"), right), abs=1e-9)
    mapped = load(ab).translate()(rows("gallery.a"))
    assert estimate["map"] == pytest.approx(ndcg(rows("query.b"), mapped, right), abs=1e-9)
    assert result["queries"] == result["queries_with_answers"] == 60
    assert result["gallery_rows"] == 500


def test_people_see_the_same_numbers(suture: Run, everything: tuple[object, ...]) -> None:
    result, text = suture(*everything, "--json").json, suture(*everything).out
    assert "60 queries on 500 gallery rows" in text
    for strategy in result["strategies"]:
        line = next(line for line in text.splitlines() if line.split()[:1] == [strategy["name"]])
        if strategy["metrics"]:
            shown = f"{strategy['metrics']['ndcg@10']['estimate']:.3f}".lstrip("0")
            assert line.split()[1] == shown
            assert line.split()[2].startswith("±")
    names = ("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr", "overlap@10", "cosine", "r2")
    assert text.splitlines()[1].split()[1:9] == list(names)
    line = next(line for line in text.splitlines() if line.split()[:1] == ["map"])
    metrics = result["strategies"][0]["metrics"]
    assert line.split()[1:17:2] == [f"{metrics[n]['estimate']:.3f}".replace("0.", ".", 1) for n in names]
    assert "identity: the spaces have 24 and 32 dims" in text
    assert result["conclusion"] in text


def test_identity_where_the_widths_are_equal(suture: Run, world: Path, ac: Path) -> None:
    result = suture(
        *("evaluate", ac, "--queries", world / "query.c.npy", "--gallery", world / "gallery.a.npy"),
        *("--relevant", world / "right.npy", "--json"),
    ).json
    named = {s["name"]: s for s in result["strategies"]}
    assert named["identity"]["metrics"]["ndcg@10"]["high"] < named["map"]["metrics"]["ndcg@10"]["low"]
    assert "--source-queries" in named["stay"]["reason"]
    assert "cannot be told" in result["conclusion"]


def test_only_the_targets_gallery(suture: Run, world: Path, ab: Path) -> None:
    text = suture(
        *("evaluate", ab, "--queries", world / "query.b.npy", "--gallery", world / "gallery.a.npy"),
        *("--target-gallery", world / "gallery.b.npy"),
    ).out
    assert "stay: needs the source-space queries (--source-queries)" in text
    assert "overlap@10" in text.splitlines()[-1]


def test_answers_by_id(suture: Run, fails: Fails, everything: tuple[object, ...], world: Path, here: Path) -> None:
    by_row = suture(*everything, "--json").json["strategies"]
    gids, right = np.load(world / "gids.npy"), np.load(world / "right.npy")
    Path("right.jsonl").write_text("".join(f"[{gids[row]}]\n" for row in right))
    words = (*everything[:-1], "right.jsonl", "--gallery-ids", world / "gids.npy")
    assert suture(*words, "--json").json["strategies"] == by_row
    Path("right.json").write_text(json.dumps([[f"doc {row}"] for row in right]))
    np.save("names.npy", np.array([f"doc {i}" for i in range(500)]))
    words = (*everything[:-1], "right.json", "--gallery-ids", "names.npy")
    assert suture(*words, "--json").json["strategies"] == by_row
    # The target's gallery in another order, with ids of its own.
    order = np.random.default_rng(0).permutation(500)
    np.save("shuffled.npy", np.load(world / "gallery.b.npy")[order])
    np.save("shuffled.ids.npy", np.load("names.npy")[order])
    words = [*words, "--gallery-ids", "shuffled.ids.npy"]
    words[words.index("--target-gallery") + 1] = "shuffled.npy"
    assert suture(*words, "--json").json["strategies"] == by_row


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ([[0]] * 59, 3, "answers 59 queries"),
        ([[500]] * 60, 3, "[500]"),
        ([["nobody"]] * 60, 3, "has none"),
        ([["nobody"]] * 60, 3, "nobody"),
        ([[]] * 60, 3, "at least one query with a right answer"),
        ([0.5] * 60, 1, "query 0"),
        ({"a": 1}, 1, "one answer a query"),
    ],
)
def test_answers_that_do_not_fit(
    fails: Fails, everything: tuple[object, ...], world: Path, answers: Any, code: int, said: str
) -> None:
    Path("right.json").write_text(json.dumps(answers))
    words = list(everything[:-1])
    if said == "nobody":
        np.save("names.npy", np.array([f"doc {i}" for i in range(500)]))
        words[-1:-1] = ["--gallery-ids", "names.npy"]
    assert said in fails(code, *words, "right.json")


def test_other_answers_that_cannot_be_read(fails: Fails, everything: tuple[object, ...], world: Path) -> None:
    Path("right.json").write_text("[[0]")
    Path("right.txt").write_text("0\n")
    for name in ("right.json", "right.txt", "missing.npy", world / "query.b.npy"):
        assert str(name) in fails(1, *everything[:-1], name)


def test_galleries_and_queries_of_other_sizes(
    fails: Fails, everything: tuple[object, ...], rows: Callable[[str], Any]
) -> None:
    np.save("queries.npy", rows("query.a")[:-1])
    np.save("gallery.npy", rows("gallery.b")[:-1])
    for option, name, said in (
        ("--source-queries", "queries.npy", "59"),
        ("--target-gallery", "gallery.npy", "499"),
    ):
        words = list(everything)
        words[words.index(option) + 1] = name
        assert said in fails(3, *words)
