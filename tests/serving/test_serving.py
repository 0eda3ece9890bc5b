"""Serving objects give what the estimate scored, over an array, faiss and a function, without torch."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from typer.testing import CliRunner

from suture.aligners import RefusedError, load
from suture.cli.main import app
from suture.stitching.gallery.upgrade import load_upgrade
from suture.stitching.serving import Bridge, Cascade, DualSearch, MixedSearch
from suture.stitching.serving import file as serving_file

Rows = NDArray[np.float32]
COUNT, OLD, NEW = 400, 16, 24


def unit(rows: Any) -> Rows:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@dataclass
class World:
    folder: Path
    old: dict[str, Rows]
    new: dict[str, Rows]

    @property
    def file(self) -> Path:
        return self.folder / "upgrade.safetensors"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("serving")
    rng = np.random.default_rng(0)
    latent = {"gallery": rng.normal(size=(COUNT, 10)), "pairs": rng.normal(size=(300, 10))}
    latent["queries"] = latent["gallery"][:60] + 0.4 * rng.normal(size=(60, 10))
    made = World(folder, {}, {})
    for sides, dim, noise in ((made.old, OLD, 0.5), (made.new, NEW, 0.2)):
        matrix = rng.normal(size=(10, dim))
        for part, rows in latent.items():
            sides[part] = unit((rows + noise * rng.normal(size=rows.shape)) @ matrix)
    words = ["gallery", "estimate", "--method", "procrustes", "--save", made.file, "--pool", folder / "gallery.new.npy"]
    for side, parts in (("old", made.old), ("new", made.new)):
        for part, rows in parts.items():
            np.save(folder / f"{part}.{side}.npy", rows)
            if (part, side) != ("gallery", "new"):
                words += [f"--{side}-{part}", folder / f"{part}.{side}.npy"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.stderr
    return made


def best(scores: NDArray[np.float64], k: int = 10) -> NDArray[np.int64]:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def faiss_index(rows: Rows) -> Any:
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(np.ascontiguousarray(rows))
    return index


def function_index(rows: Rows) -> Callable[[Rows, int], Any]:
    def search(queries: Rows, k: int) -> Any:
        scores = queries @ rows.T
        found = best(scores, k)
        return np.take_along_axis(scores, found, 1), found

    return search


INDICES: dict[str, Callable[[Rows], Any]] = {
    "array": lambda rows: rows,
    "faiss": faiss_index,
    "function": function_index,
}


@pytest.fixture(params=INDICES)
def indexed(request: pytest.FixtureRequest) -> Callable[[Rows], Any]:
    return INDICES[request.param]


def test_a_bridge_is_the_map_of_the_file(world: World, indexed: Callable[[Rows], Any]) -> None:
    bridge = Bridge.load(world.file, indexed(world.old["gallery"]))
    mapped = unit(load(world.file).translate("target", "source")(world.new["queries"]))
    np.testing.assert_allclose(bridge(world.new["queries"]), mapped, atol=1e-5)
    scores, rows = bridge.search(world.new["queries"])
    expected = mapped.astype(float) @ world.old["gallery"].T.astype(float)
    assert np.mean(rows == best(expected)) > 0.995
    np.testing.assert_allclose(scores, np.take_along_axis(expected, rows, 1), atol=1e-5)
    one_score, one_row = bridge.search(world.new["queries"][3], k=4)
    assert one_row.tolist() == rows[3:4, :4].tolist()
    assert one_score.shape == (1, 4)


@pytest.mark.parametrize("concat", [False, True])
def test_a_dual_search_scores_as_the_estimate_does(world: World, indexed: Callable[[Rows], Any], concat: bool) -> None:
    upgrade = load_upgrade(world.file)
    forward = upgrade.alignment.translate("source", "target")
    c_old, c_new = upgrade.facts["mixing"]["dual-concat" if concat else "dual"]["coefficients"]
    mapped = forward(world.old["gallery"])
    mapped = unit(mapped) if concat else mapped
    expected = c_old * world.old["queries"].astype(float) @ world.old["gallery"].T.astype(float)
    expected += c_new * world.new["queries"].astype(float) @ mapped.T.astype(float)
    maker = DualSearch.load(world.file, np.zeros((1, OLD + NEW if concat else OLD), np.float32), concat=concat)
    rows = maker.rows(world.old["gallery"]) if concat else world.old["gallery"]
    dual = DualSearch.load(world.file, indexed(rows), concat=concat)
    found = dual.search(world.new["queries"], world.old["queries"])[1]
    assert np.mean(found == best(expected)) > 0.99
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_a_cascade_embeds_each_row_once_and_ranks_by_it(world: World) -> None:
    asked: list[int] = []

    def embed(rows: NDArray[np.int64]) -> Rows:
        asked.extend(rows.tolist())
        return world.new["gallery"][rows]

    recall = Bridge.load(world.file, world.old["gallery"])
    cascade = Cascade(recall, embed, new_dim=NEW, depth=50)
    scores, rows = cascade.search(world.new["queries"])
    candidates = recall.search(world.new["queries"], k=50)[1]
    true = world.new["queries"] @ world.new["gallery"].T
    for i in range(60):
        expected = sorted(candidates[i], key=lambda r: -true[i, r])[:10]
        assert rows[i].tolist() == expected
    np.testing.assert_allclose(scores, np.take_along_axis(true, rows, 1), atol=1e-5)
    assert len(asked) == len(set(asked)) == cascade.embedded == len(np.unique(candidates))
    cascade.search(world.new["queries"])
    assert len(asked) == cascade.embedded


def test_a_cascade_keeps_nothing_of_a_broken_embedder(world: World) -> None:
    recall = Bridge.load(world.file, world.old["gallery"])
    broken: list[tuple[Callable[[Any], Any], str]] = [
        (lambda rows: world.new["gallery"][rows][:-1], "vectors for"),
        (lambda rows: world.old["gallery"][rows], "24 dims"),
        (lambda rows: world.new["gallery"][rows] * np.nan, "finite"),
    ]
    for embed, said in broken:
        cascade = Cascade(recall, embed, new_dim=NEW)
        with pytest.raises(RefusedError, match=said):
            cascade.search(world.new["queries"])
        assert cascade.embedded == 0
        assert cascade.cache.get(np.arange(COUNT)) == {}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixed_rows_are_merged_by_their_quantiles(world: World, share: float) -> None:
    native = np.sort(np.random.default_rng(4).permutation(COUNT)[: round(share * COUNT)])
    base = Bridge.load(world.file, world.old["gallery"])
    mixed = MixedSearch(world.new["gallery"][native], native, base, total=COUNT, new_dim=NEW)
    _, rows = mixed.search(world.new["queries"])
    others = np.setdiff1d(np.arange(COUNT), native)
    new = world.new["queries"] @ world.new["gallery"].T
    old = base(world.new["queries"]) @ world.old["gallery"].T
    for i in range(60):
        place = np.empty(COUNT)
        for kind, late, score in ((native, 0.0, new[i]), (others, 1e-9, old[i])):
            place[kind[np.argsort(-score[kind], kind="stable")]] = (np.arange(len(kind)) + 0.5) / max(
                len(kind), 1
            ) + late
        assert rows[i].tolist() == np.argsort(place)[:10].tolist()
    assert not set(rows.ravel().tolist()) & {-1}


def test_a_mixed_search_can_recall_for_a_cascade(world: World) -> None:
    native = np.arange(0, COUNT, 3)
    base = Bridge.load(world.file, world.old["gallery"])
    mixed = MixedSearch(world.new["gallery"][native], native, base, total=COUNT, new_dim=NEW)
    cascade = Cascade(mixed, lambda rows: world.new["gallery"][rows], new_dim=NEW, depth=COUNT)
    assert np.array_equal(cascade.search(world.new["queries"])[1], best(world.new["queries"] @ world.new["gallery"].T))


def test_bad_queries_are_refused(world: World) -> None:
    bridge = Bridge.load(world.file, world.old["gallery"])
    good = world.new["queries"][0]
    for bad, said in (
        (world.old["queries"][0], "24 dims"),
        (np.where(np.arange(NEW) == 3, np.nan, good), "finite"),
        (np.where(np.arange(NEW) == 3, np.inf, good), "finite"),
        (good * 0, "zeros"),
        (np.zeros((2, 2, NEW)), "24 dims"),
    ):
        with pytest.raises(RefusedError, match=said):
            bridge.search(bad)
    dual = DualSearch.load(world.file, world.old["gallery"])
    with pytest.raises(RefusedError, match="use a Bridge"):
        dual.search(good)
    with pytest.raises(RefusedError, match="same queries"):
        dual.search(world.new["queries"][:3], world.old["queries"][:2])
    with pytest.raises(RefusedError, match="16 dims"):
        Bridge.load(world.file, world.new["gallery"])
    with pytest.raises(RefusedError, match="without an index"):
        Bridge.load(world.file).search(good)


def test_an_index_of_the_other_gallery_is_refused(world: World) -> None:
    with pytest.raises(RefusedError, match="other encoder"):
        Bridge.load(world.file, faiss_index(world.new["gallery"]))


def test_a_damaged_or_foreign_file_is_refused(world: World, tmp_path: Path) -> None:
    data = bytearray(world.file.read_bytes())
    data[-5] ^= 1
    (tmp_path / "bad.safetensors").write_bytes(data)
    with pytest.raises(RefusedError, match="damaged"):
        Bridge.load(tmp_path / "bad.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(RefusedError, match="expected a map file"):
        Bridge.load(tmp_path / "other.safetensors")
    with pytest.raises(RefusedError, match="expected a map file"):
        Bridge.load(tmp_path / "missing.safetensors")


def test_the_format_is_that_of_the_aligners() -> None:
    from suture.aligners import file

    for name in ("KEY", "FORMAT", "VERSION"):
        assert getattr(serving_file, name) == getattr(file, name)


def test_serving_loads_no_torch(world: World) -> None:
    code = (
        "import sys, numpy as np; from suture.stitching.serving import Bridge, DualSearch\n"
        f"rows = np.load({str(world.folder / 'gallery.old.npy')!r})\n"
        f"q = np.load({str(world.folder / 'queries.new.npy')!r})\n"
        f"o = np.load({str(world.folder / 'queries.old.npy')!r})\n"
        f"Bridge.load({str(world.file)!r}, rows).search(q)\n"
        f"DualSearch.load({str(world.file)!r}, rows).search(q, o)\n"
        "assert 'torch' not in sys.modules and 'scipy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
