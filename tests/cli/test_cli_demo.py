"""`suture demo` on the real data in the package."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def told(suture: Run) -> dict[str, Any]:
    done = suture("demo", "--json")
    assert done.err == ""
    return done.json


def test_strategies(told: dict[str, Any]) -> None:
    named = {s["name"]: s for s in told["strategies"]}
    assert set(named) == {"map", "stay", "re-embed", "identity", "mean", "shuffled"}
    score = {name: s["metrics"]["ndcg@10"] for name, s in named.items() if s["metrics"]}
    assert score["shuffled"]["high"] < 0.05 < score["map"]["low"]
    assert score["mean"]["high"] < 0.05 < score["stay"]["low"]
    assert score["map"]["estimate"] < score["re-embed"]["estimate"]
    assert named["identity"]["reason"] == "the spaces have 384 and 768 dims"
    assert (told["queries"], told["gallery_rows"], told["mapped_rows"]) == (300, 1500, 1500)


def test_the_fit_is_told(told: dict[str, Any]) -> None:
    fit = told["fit"]
    assert (fit["rows"], fit["source_dim"], fit["target_dim"]) == (1200, 384, 768)
    assert fit["audit"]["verdict"] == "clean"
    assert fit["candidates"][0]["method"] == fit["method"]
    assert {s["name"] for s in fit["held_out"]["strategies"]} == {"map", "identity", "mean", "shuffled"}


def test_examples_and_conclusion(told: dict[str, Any]) -> None:
    assert len(told["examples"]) == 3
    for example in told["examples"]:
        assert all(example[key] for key in ("query", "right", "stay", "map"))
    outcomes = {(e["stay"] == e["right"], e["map"] == e["right"]) for e in told["examples"]}
    assert len(outcomes) == 3, "the examples show three outcomes"
    named = {s["name"]: s["metrics"] for s in told["strategies"]}
    assert f"{named['map']['ndcg@10']['estimate']:.3f}" in told["conclusion"]
    assert told["conclusion"].count(". ") == 0, "one sentence"


def test_people_read_a_story(suture: Run, told: dict[str, Any]) -> None:
    text = suture("demo").out
    for word in ("1. Fit a map", "2. Map the old gallery", "3. Search it", "4. Three queries", "±", "re-embed"):
        assert word in text
    assert text.rstrip().endswith(told["conclusion"])
    for example in told["examples"]:
        assert example["query"] in text


def test_the_dumps_can_be_had(suture: Run, here: Path) -> None:
    done = suture("demo", "--save", "new folder", "--json").json
    assert sorted(path.name for path in Path("new folder").iterdir()) == done["files"]
    assert suture("inspect", "new folder/fit.minilm-l6.npy", "--json").json["unit"] is True
