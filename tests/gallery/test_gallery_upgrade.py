"""The file that is handed on, and gates as exit codes."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery_worlds import World

from suture.aligners import Procrustes, SutureError, load, save_alignment
from suture.stitching.dumps import open_dump, pair
from suture.stitching.gallery.estimate import Estimate, estimate
from suture.stitching.gallery.inputs import gather_inputs
from suture.stitching.gallery.upgrade import load_upgrade, upgraded

Suture = Callable[..., Any]


@pytest.fixture
def measured(tmp_path: Path) -> Estimate:
    World(tmp_path)

    def dump(name: str) -> Any:
        return open_dump(tmp_path / f"{name}.npy")

    inputs = gather_inputs(
        dump("gallery.old"),
        pair(dump("pairs.old"), dump("pairs.new")),
        new_queries=dump("queries.new"),
        pool=dump("gallery.new"),
    )
    return estimate(inputs, aligners=[Procrustes()], progress=lambda total, what: nullcontext(lambda rows: None))


def test_the_file_holds_the_map_its_bridge_and_the_table(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    path = tmp_path / "upgrade.safetensors"
    found = suture(*world.words(), "--save", path, "--json")
    assert found["saved"] == str(path)
    upgrade = load_upgrade(path)
    assert upgrade.strategy == found["strategy"]
    assert upgrade.facts["query_hash"] == found["query_hash"]
    for row in found["strategies"]:
        assert upgrade.row(row["name"])["metrics"] == row["metrics"]
    old, new = upgrade.facts["mixing"]["dual"]["coefficients"]
    assert old + new == pytest.approx(1)
    alignment = upgrade.alignment
    mapped = alignment.translate("source", "target")(world.old["gallery"])
    cosine = np.sum(mapped * world.new["gallery"], axis=1) / np.linalg.norm(mapped, axis=1)
    assert cosine.mean() > 0.7
    back = alignment.translate("target", "source")(world.new["queries"])
    assert back.shape == (world.queries, 24)
    assert "exists" in suture(*world.words(), "--save", path, code=3)


def test_it_is_a_map_file_like_any_other(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    path = tmp_path / "upgrade.safetensors"
    suture(*world.words(), "--save", path)
    suture("apply", path, tmp_path / "gallery.old.npy", "-o", tmp_path / "mapped.npy")
    assert np.load(tmp_path / "mapped.npy").shape == (600, 32)
    suture("inspect", path)


def test_an_expanded_form_goes_along_where_it_is_needed(tmp_path: Path, measured: Estimate) -> None:
    measured.result["verdict"] = "backfill"
    save_alignment(upgraded(measured), tmp_path / "e.safetensors")
    native = np.load(tmp_path / "gallery.new.npy")[:50]
    expanded = load(tmp_path / "e.safetensors").translate("target", "expanded")(native)
    distance = np.linalg.norm(expanded[:, None] - expanded[None], axis=2)
    np.testing.assert_allclose(distance, np.linalg.norm(native[:, None] - native[None], axis=2), atol=1e-5)
    back = load(tmp_path / "e.safetensors").translate("expanded", "target")(expanded)
    np.testing.assert_allclose(back, native, atol=1e-5)


def test_a_map_without_an_estimate_is_told_apart(tmp_path: Path, suture: Suture) -> None:
    World(tmp_path)
    path = tmp_path / "map.safetensors"
    f = tmp_path
    suture("fit", f / "pairs.old.npy", f / "pairs.new.npy", "-o", path, "--method", "procrustes")
    with pytest.raises(SutureError, match="no estimate"):
        load_upgrade(path)


@pytest.mark.parametrize(
    ("gates", "code"),
    [
        (["retention>=.5", "gain>1"], 0),
        (["retention>=.999", "gain>1"], 5),
        (["retention>=.5", "positive_flips<=0"], 4),
    ],
)
def test_gates_end_in_exit_codes(tmp_path: Path, suture: Suture, gates: list[str], code: int) -> None:
    words = World(tmp_path).words()
    for gate in gates:
        words += ["--gate", gate]
    found = suture(*words, "--strategy", "cascade@50", "--json", code=code)
    assert [g["strategy"] for g in found["gates"]] == ["cascade@50"] * 2


def test_a_gate_on_nothing_is_a_usage_error(tmp_path: Path, suture: Suture) -> None:
    words = World(tmp_path).words()
    assert "there is no 'beauty'" in suture(*words, "--gate", "beauty>1", code=2)
