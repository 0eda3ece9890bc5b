"""docs/json.md names every key that `--json` prints, and no other."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
DOC = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")


def documented(command: str) -> list[set[str]]:
    """The keys of each table under a command's heading."""
    section = re.split(r"^## ", DOC, flags=re.MULTILINE)
    text = next(part for part in section if part.startswith(f"suture {command}\n"))
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    return [set(re.findall(r"`([^`]+)`", " ".join(row.split("|")[1] for row in t.splitlines()[2:]))) for t in tables]


def test_fit(auto: dict[str, Any]) -> None:
    assert set(auto) == documented("fit")[0]


def test_apply_and_evaluate(suture: Run, world: Path, ab: Path, here: Path) -> None:
    done = suture("apply", ab, world / "gallery.a.npy", "-o", "mapped.npy", "--json").json
    assert set(done) == documented("apply")[0]
    words = ("--queries", world / "query.b.npy", "--gallery", world / "gallery.a.npy")
    done = suture("evaluate", ab, *words, "--target-gallery", world / "gallery.b.npy", "--json").json
    assert set(done) == documented("evaluate")[0]


def test_inspect(suture: Run, world: Path, ab: Path) -> None:
    a_map, a_dump = documented("inspect")
    found = suture("inspect", ab, "--json").json
    fitted = documented("fit")[0]
    assert a_map <= set(found)
    assert {"method", "params", "held_out", "candidates", "audit"} <= set(found) & fitted
    assert set(suture("inspect", world / "fit.a.npy", "--json").json) == a_dump


def test_compose_and_methods(suture: Run, ab: Path, ac: Path, world: Path, here: Path) -> None:
    pair = ("fit", world / "fit.b.npy", world / "fit.a.npy", "--method", "ridge", "-o", "ba.safetensors")
    suture(*pair)
    assert (
        set(suture("compose", ab, "ba.safetensors", "-o", "m.safetensors", "--json").json) == documented("compose")[0]
    )
    methods = suture("methods", "--json").json
    assert set(methods) == documented("methods")[0]
    assert {"name", "summary", "paper", "affine", "params"} <= set(methods["methods"][0])


@pytest.mark.parametrize("words", [("fit", "a", "b", "-o", "m.npy"), ("inspect", "absent.npy")], ids=str)
def test_errors_are_objects(fails: Callable[..., str], suture: Run, here: Path, words: tuple[str, ...]) -> None:
    code = 2 if words[0] == "fit" else 1
    assert set(suture(*words, "--json", code=code).json) == {"error", "exit_code"}
