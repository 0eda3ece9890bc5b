"""Gates: what they may say, and when they stay open."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery_worlds import World

from suture.aligners.errors import UsageError
from suture.stitching.gallery.gates import FEWEST, Gate, doubted, judge_gate, judge_gates, too_few

Suture = Callable[..., Any]


@pytest.mark.parametrize(
    ("text", "low", "high", "result"),
    [
        ("gain>1", 1.01, 1.2, "pass"),
        ("gain>1", 1.0, 1.2, "undecided"),
        ("gain>=1", 1.0, 1.2, "pass"),
        ("gain>1", 0.8, 0.99, "fail"),
        ("gain<=.5", 0.2, 0.5, "pass"),
        ("gain<.5", 0.2, 0.5, "undecided"),
    ],
)
def test_gates_are_judged_on_the_bounds(text: str, low: float, high: float, result: str) -> None:
    row = {
        "name": "map",
        "metrics": {},
        "quantities": {"gain": {"estimate": (low + high) / 2, "low": low, "high": high}},
        "reason": None,
    }
    judged = judge_gate(Gate.parse(text), row)
    assert judged["result"] == result
    assert (judged["reason"] is None) == (result != "undecided")


@pytest.mark.parametrize(
    "text", ["gain", "gain=1", ">1", "gain>one", "gain>>1", "gain>95%", "gain>nan", "gain>1e", "gain>."]
)
def test_a_gate_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="something like retention"):
        Gate.parse(text)


@pytest.mark.parametrize("bound", ["1", "1.", "+1", "1E0", "1.0e+0", " 1 "])
def test_a_bound_is_any_plain_number(bound: str) -> None:
    assert Gate.parse(f"gain >={bound}").bound == 1


def test_an_unknown_quantity_or_strategy_is_refused_before_anything_is_read(tmp_path: Path, suture: Suture) -> None:
    words = ["gallery", "estimate", "--old-gallery", tmp_path / "no.npy", "--old-pairs", tmp_path / "no.npy"]
    words += ["--new-pairs", tmp_path / "no.npy"]
    assert "there is no 'foo'; there are ndcg@10" in suture(*words, "--gate", "foo>1", code=2)
    assert "there is no 'nosuch'; there are stay" in suture(*words, "--strategy", "nosuch", code=2)
    with pytest.raises(UsageError, match=r"0\.95 and not 95%"):
        Gate.parse("retention>=95%")


def test_gates_are_open_where_nothing_can_be_told() -> None:
    row = {"name": "map", "metrics": {}, "quantities": {"gain": {"estimate": 2, "low": 2, "high": 2}}, "reason": None}
    gates = [Gate.parse("gain>1"), Gate.parse("gain<1")]
    assert [g["result"] for g in judge_gates(gates, [row], "map", doubt=None)] == ["pass", "fail"]
    for doubt in (
        doubted("map", "map", scope="held-out pairs", few=too_few(500, grouped=False)),
        doubted("map", "map", scope="gallery", few=too_few(FEWEST - 1, grouped=True)),
        doubted("undecided", None, scope="gallery", few=too_few(500, grouped=False)),
    ):
        assert doubt is not None
        for gate in judge_gates(gates, [row], "map", doubt=doubt):
            assert (gate["result"], gate["reason"]) == ("undecided", doubt)
    assert doubted("undecided", "map", scope="gallery", few=too_few(FEWEST, grouped=False)) is None
    assert judge_gates(gates, [row], None, doubt="why")[0]["value"] is None


def test_a_gate_on_what_was_not_measured_is_open_and_says_why(tmp_path: Path, suture: Suture) -> None:
    words = World(tmp_path).words(pool=False)
    asked = ["--gate", "ndcg@10>=0.1", "--strategy", "cascade@10"]
    gate = suture(*words, *asked, "--json", code=5)["gates"][0]
    assert "needs new vectors of all gallery rows" in gate["reason"]
    said = suture(*words, *asked, code=5)
    assert "undecided, - (needs new vectors of all gallery rows" in said
    assert "needs --pool" in suture(*words, "--gate", "overlap@10>.1", code=2)


def test_pairs_alone_and_few_groups_leave_gates_open(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    alone = suture(*world.words(labels=False, pool=False), "--gate", "retention>0", "--strategy", "dual", code=5)
    assert "undecided" in alone
    assert "not on your gallery" in alone
    (tmp_path / "groups.txt").write_text("\n".join(str(i // 10) for i in range(120)))
    few = suture(*world.words(), "--groups", tmp_path / "groups.txt", "--gate", "gain>.1", code=5)
    assert "over groups of queries (12)" in few
    assert "Bounds from fewer than 20 groups" in few
    assert "groups of queries with answers cannot be trusted, there are 12" in few


def test_staying_changes_no_query(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path, old_noise=0.2, new_noise=0.9)
    gates = ["--gate", "negative_flips<=0", "--gate", "positive_flips<=0"]
    found = suture(*world.words(), *gates, "--json")
    assert found["verdict"] == "stay"
    assert [g["result"] for g in found["gates"]] == ["pass", "pass"]
    assert np.all([g["value"]["high"] == 0 for g in found["gates"]])
