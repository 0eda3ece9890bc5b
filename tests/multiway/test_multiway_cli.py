"""`suture fit` with many dumps, `suture pick`, `suture extend`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from suture.aligners import load
from suture.cli.main import app


def run(*args: object) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def answer(*args: object) -> Any:
    done = run(*args, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four rotated copies of 300 items; of each some are missing, and ids say which are there."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(300, 8)) * np.linspace(2, 0.5, 8)
    for k, name in enumerate("abcd"):
        turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
        order = rng.permutation(300)[:220]
        np.save(folder / f"{name}.npy", (truth @ turn + k)[order].astype(np.float32))
        (folder / f"{name}.txt").write_text("".join(f"item-{i}\n" for i in order))
        np.save(folder / f"{name}.order.npy", order)
    return folder


def ids(world: Path, names: str) -> list[object]:
    return [part for name in names for part in ("--ids", world / f"{name}.txt")]


@pytest.fixture(scope="module")
def many(world: Path) -> Path:
    out = world / "many.safetensors"
    dumps = [world / "a.npy", f"second={world / 'b.npy'}", world / "c.npy"]
    found = answer("fit", *dumps, *ids(world, "abc"), "--method", "gpa", "-o", out)
    assert found["spaces"] == {n: {"rows": 220, "dim": 8} for n in ("a", "second", "c")}
    assert len(found["any_to_any"]) == 6
    assert all(v["recall@1"] == 1 for v in found["any_to_any"].values())
    return out


def test_fit_joins_by_id_and_pick_takes_two(world: Path, many: Path) -> None:
    pair, mapped = world / "pair.safetensors", world / "mapped.npy"
    answer("pick", many, "a", "second", "-o", pair)
    answer("apply", pair, world / "a.npy", "--ids", world / "a.txt", "-o", mapped)
    here, there = np.load(world / "a.order.npy"), np.load(world / "b.order.npy")
    _, i, j = np.intersect1d(here, there, return_indices=True)
    np.testing.assert_allclose(np.load(mapped)[i], np.load(world / "b.npy")[j], atol=1e-3)
    assert "second space" in run("inspect", many).output
    shared = world / "shared.npy"
    answer("apply", many, world / "c.npy", "--side", "c", "-o", shared)
    assert np.load(shared).shape == (220, 8)


def test_extend_adds_a_space_and_leaves_the_rest(world: Path, many: Path) -> None:
    out = world / "wider.safetensors"
    found = answer(
        "extend", many, world / "d.npy", world / "a.npy", f"second={world / 'b.npy'}", *ids(world, "dab"), "-o", out
    )
    assert sorted(found["spaces"]) == ["a", "c", "d", "second"]
    assert all(v["recall@1"] == 1 for v in found["any_to_any"].values())
    before, after = load(many), load(out)
    for name in before.sides:
        assert torch.equal(before.map_of(name).tensors()["weight"], after.map_of(name).tensors()["weight"])
    again = run("extend", out, world / "d.npy", world / "a.npy", *ids(world, "da"), "-o", world / "x.safetensors")
    assert again.exit_code == 2
    assert "already" in again.output


def test_every_method_runs_and_rows_without_ids_correspond(world: Path, tmp_path: Path) -> None:
    rows = np.load(world / "a.npy")
    for name in "xyz":
        np.save(tmp_path / f"{name}.npy", rows[:, ::-1] if name == "y" else rows)
    dumps = [tmp_path / f"{name}.npy" for name in "xyz"]
    for method in ("gpa", "gcca", "srm", "bind"):
        done = run("fit", *dumps, "--method", method, "-o", tmp_path / f"{method}.safetensors")
        assert done.exit_code == 0, done.output
        assert "1.000" in done.output


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("a.npy", "b.npy", "c.npy", "--method", "ridge"), 2, "gpa, gcca, srm and bind"),
        (("a.npy", "b.npy", "c.npy"), 2, "--method auto joins two spaces"),
        (("a.npy", "a.npy", "c.npy", "--method", "gpa"), 2, "NAME=PATH"),
        (("a.npy", "b.npy", "--method", "gpa", "--unpaired"), 2, "go without"),
        (("a.npy", "b.npy", "c.npy", "--method", "srm", "--set", "rank=9"), 3, "at most 8"),
    ],
)
def test_refusals(world: Path, tmp_path: Path, args: tuple[str, ...], code: int, words: str) -> None:
    given = [world / arg if arg.endswith(".npy") else arg for arg in args]
    done = run("fit", *given, "-o", tmp_path / "m.safetensors")
    assert done.exit_code == code, done.output
    assert words in " ".join(done.output.split())
    assert not list(tmp_path.iterdir())


def test_islands_missing_ids_and_bad_rows(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    (tmp_path / "other.txt").write_text("".join(f"other-{i}\n" for i in range(220)))
    dumps = [world / "a.npy", world / "b.npy", world / "c.npy"]
    done = run("fit", *dumps, *ids(world, "ab"), "--ids", tmp_path / "other.txt", "--method", "gpa", "-o", out)
    assert done.exit_code == 3
    assert "share none with" in " ".join(done.output.split())
    rows = np.load(world / "c.npy")
    rows[3] = np.nan
    np.save(tmp_path / "c.npy", rows)
    bad = ("fit", *dumps[:2], tmp_path / "c.npy", *ids(world, "abc"), "--method", "gpa", "-o", out)
    assert run(*bad).exit_code == 3
    assert not out.exists()
    found = answer(*bad, "--bad-rows", "skip")
    assert found["spaces"]["c"]["rows"] == 219
    assert found["bad_rows"]["c"] == {"nan": 1}
    assert run("pick", out, "a", "a", "-o", tmp_path / "p.safetensors").exit_code == 2
    assert run("pick", out, "a", "nothing", "-o", tmp_path / "p.safetensors").exit_code == 2
