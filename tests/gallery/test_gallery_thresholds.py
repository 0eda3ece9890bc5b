"""A suggested threshold, put to the scores that are served, lets as many results pass as the old one did."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery_worlds import World
from numpy.typing import NDArray

from suture.aligners import load
from suture.stitching.gallery.upgrade import load_upgrade
from suture.stitching.serving import Bridge, Cascade, DualSearch

Suture = Callable[..., Any]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, suture: Suture) -> tuple[World, Path, dict[str, Any]]:
    world = World(tmp_path_factory.mktemp("served"))
    path = world.folder / "upgrade.safetensors"
    return world, path, suture(*world.words(), "--no-variants", "--save", path, "--json")


def served(world: World, path: Path, name: str, base: str) -> NDArray[np.float32]:
    """The scores of the first ten results by what serves the strategy."""
    old = world.old["gallery"]
    asked = world.new["queries"], world.old["queries"]
    duals: dict[str, Callable[[], Any]] = {
        "bridge": lambda: Bridge.load(path, old),
        "dual": lambda: DualSearch.load(path, old),
        "dual-concat": lambda: DualSearch.load(path, DualSearch.load(path, old).rows(old), concat=True),
    }
    if name == "map":
        mapped = load(path).translate()(old)
        mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
        return np.sort(asked[0] @ mapped.T, axis=1)[:, -10:]
    if name == "re-embed":
        return np.sort(asked[0] @ world.new["gallery"].T, axis=1)[:, -10:]
    if name.startswith("cascade"):
        recall = duals[base]()
        depth = int(name.split("@")[1])
        return Cascade(recall, lambda rows: world.new["gallery"][rows], new_dim=32, depth=depth).search(*asked)[0]
    return duals[name]().search(*asked)[0]


@pytest.mark.parametrize(
    "name", ["bridge", "map", "dual", "dual-concat", "cascade@10", "cascade@50", "cascade@200", "re-embed"]
)
def test_served_scores_pass_the_same_share(saved: tuple[World, Path, dict[str, Any]], name: str) -> None:
    world, path, result = saved
    scores = served(world, path, name, result["recall_by"])
    kept = load_upgrade(path).facts["thresholds"]
    assert kept == result["thresholds"] != []
    for row in kept:
        share = float((scores >= row["new"][name]["estimate"]).mean())
        assert share == pytest.approx(row["passes"], abs=0.005)
