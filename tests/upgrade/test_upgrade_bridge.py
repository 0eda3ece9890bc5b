"""The bridge: new queries on an old gallery that nobody writes to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from upgrade_estimates import measured
from upgrade_stores import qdrant
from upgrade_worlds import NEW, OLD, ROWS, World, encode, run_and_die, tree, write_parquet

from suture.aligners import Procrustes, RefusedError, Ridge, load, save_alignment
from suture.stitching.dumps import hash_ids
from suture.stitching.serving import Bridge
from suture.stitching.stores import open_store
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.backfill import backfill
from suture.stitching.upgrade.plan import Plan
from suture.stitching.upgrade.planning import make_plan
from suture.stitching.upgrade.status import status
from suture.stitching.upgrade.switch import retire, rollback, switch
from suture.stitching.upgrade.verify import verify


@pytest.fixture(scope="module")
def back(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map that was fitted from new rows to old ones, which has no exact way back."""
    path = tmp_path_factory.mktemp("back") / "back.safetensors"
    save_alignment(Ridge().fit(world.new[:400], world.old[:400], keys=hash_ids(world.ids[:400])), path)
    return path


def write_index(world: World, path: Path, kind: str = "IDMap2,Flat", metric: int = faiss.METRIC_INNER_PRODUCT) -> None:
    index = faiss.index_factory(OLD, kind, metric)
    index.train(world.old)
    index.add_with_ids(world.old, world.ids)
    faiss.write_index(index, str(path))


def bridge(map_file: Path, source: str, target: str, here: Path) -> Plan:
    return make_plan(map_file, source, target, here / "plan.json", strategy="bridge", model="new")


def red(plan: Plan) -> list[str]:
    return [f"{check.name}: {check.found}" for check in verify(plan) if not check.ok]


@pytest.mark.parametrize("kind", ["IDMap2,Flat", "IDMap,HNSW8", "IVF4,Flat", "IDMap,SQ8", "IDMap,L2norm,Flat"])
def test_a_faiss_index_maps_its_queries_itself(kind: str, world: World, back: Path, here: Path) -> None:
    write_index(world, here / "old.faiss", kind)
    before = tree(here, "old*")
    plan = bridge(back, "faiss:old.faiss", "faiss:new.faiss", here)
    assert (plan.rows, plan.dim) == (0, NEW)
    assert apply(plan)["left"] == 0
    assert red(plan) == []
    assert tree(here, "old*") == before
    new, old = faiss.read_index(str(here / "new.faiss")), faiss.read_index(str(here / "old.faiss"))
    assert (new.d, new.ntotal) == (NEW, ROWS)
    mapped = load(back).translate("source", "target")(world.new[:50])
    mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
    np.testing.assert_array_equal(new.search(world.new[:50], 10)[1], old.search(np.float32(mapped), 10)[1])
    switch_and_back(plan, here / "_CURRENT", "new.faiss\n")
    with pytest.raises(RefusedError, match="LinearTransform from 32 to 24 dims cannot be undone"):
        open_store("faiss:new.faiss").facts()  # its rows are of the old model: no gallery of the new one


def switch_and_back(plan: Plan, pointer: Path, says: str) -> None:
    switch(plan)
    assert pointer.read_text() == says
    assert rollback(plan)["written_since"] == 0
    assert not pointer.exists()
    assert status(plan)["phase"] == "rolled back"


def test_any_other_store_is_asked_through_a_file(world: World, back: Path, here: Path) -> None:
    case = qdrant(world, here)
    plan = bridge(back, case.source, "bridge:bridges/new.safetensors", here)
    apply(plan)
    assert red(plan) == []
    served = Bridge.load(here / "bridges" / "new.safetensors", side="source")
    with plan.open_source() as old:
        asked = served(world.new[:60])
        found = [ids[0] for ids in old.search(asked, 1)]
        assert np.mean(np.array(found) == np.arange(60) * 2 + 5) > 0.9
    assert case.insert is not None
    case.insert(10**6, world.old[7], world.payload[7])  # the gallery lives on: nothing is to be caught up
    assert red(plan) == []
    assert "Bridge.load" in switch(plan)["open"]
    with pytest.raises(RefusedError, match="leads to this gallery"):
        retire(plan, case.source)
    rollback(plan)
    with pytest.raises(RefusedError, match="nothing to backfill"):
        backfill(plan, lambda ids, payloads: world.new[: len(ids)], budget=5)
    retire(plan, plan.target)
    assert not (here / "bridges" / "new.safetensors").exists()


def test_the_estimate_of_the_bridge_is_found_again(here: Path) -> None:
    world, found = measured(here, labels=True)
    write_parquet(here / "old", world)
    plan = bridge(world.map, "parquet:old#vector", "bridge:bridges/new.safetensors", here)
    promise = next(row for row in found.result["strategies"] if row["name"] == "bridge")["metrics"]["ndcg@10"]
    assert plan.estimate is not None
    assert plan.estimate["estimate"] == pytest.approx(promise["estimate"])
    apply(plan)
    assert red(plan) == []
    assert {"queries", "canaries", "estimate", "semantic"} <= {check.name for check in verify(plan)}


def test_a_file_that_was_exchanged_is_seen(world: World, back: Path, here: Path) -> None:
    write_index(world, here / "old.faiss")
    plan = bridge(back, "faiss:old.faiss", "faiss:new.faiss", here)
    apply(plan)
    (here / "new.faiss").write_bytes((here / "old.faiss").read_bytes())
    assert [line.partition(":")[0] for line in red(plan)] in (["complete"], ["bytes"])
    apply(plan)
    assert red(plan) == []
    write_index(world, here / "other.faiss", "IDMap2,HNSW8")
    (here / "other.faiss").replace(here / "old.faiss")  # the old index goes on: the copy inside is of yesterday
    assert "caught up" in [line.partition(":")[0] for line in red(plan)]
    apply(plan)
    assert red(plan) == []


def test_killed_it_is_written_anew(world: World, back: Path, here: Path, child: Callable[..., int]) -> None:
    write_index(world, here / "old.faiss")
    plan = bridge(back, "faiss:old.faiss", "faiss:new.faiss", here)
    assert [child(run_and_die, plan.path, "apply", at) for at in (0, 1, 0)] == [-9, -9, -9]
    apply(plan)
    assert red(plan) == []


def test_maps_that_make_no_bridge(world: World, back: Path, here: Path) -> None:
    write_index(world, here / "old.faiss")
    save_alignment(Ridge().fit(world.old, world.new, keys=hash_ids(world.ids)), here / "forward.safetensors")
    other = encode(np.random.default_rng(0).normal(size=(ROWS, 12)), OLD, 13)
    save_alignment(Procrustes().fit(other, world.new), here / "strange.safetensors")
    save_alignment(Ridge().fit(np.roll(world.new, 1, 0), world.old), here / "shifted.safetensors")
    where = "bridge:bridges/b.safetensors"

    def refused(match: str, map_file: Path, target: str = where, source: str = "faiss:old.faiss") -> None:
        before = tree(here)
        with pytest.raises(RefusedError, match=match):
            bridge(map_file, source, target, here)
        assert tree(here) == before

    refused("new queries of 32 dims into the old space of 24.*cannot be turned round", here / "forward.safetensors")
    refused("do not look like", here / "strange.safetensors")
    refused("what chance finds", here / "shifted.safetensors")
    refused("writes no rows", back, "parquet:new#vector")
    refused("never overwritten", back, "faiss:old.faiss")
    write_parquet(here / "old", world)
    refused("this is parquet", back, "faiss:new.faiss", "parquet:old#vector")
    (here / "bridges").mkdir()
    (here / "bridges" / "_CURRENT").write_text("gallery\n")
    refused("a folder of its own", back)


def test_a_map_that_bends_and_a_metric_that_differs(world: World, here: Path) -> None:
    long = np.random.default_rng(5).uniform(0.5, 2, size=(ROWS, 1)).astype(np.float32)
    save_alignment(Ridge().fit(world.new, world.old * long, keys=hash_ids(world.ids)), here / "long.safetensors")
    index = faiss.IndexIDMap2(faiss.IndexFlatL2(OLD))
    index.add_with_ids(world.old * long, world.ids)
    faiss.write_index(index, str(here / "old.faiss"))
    with pytest.raises(RefusedError, match=r"L2 distance over rows of any length.*queries of length 1"):
        bridge(here / "long.safetensors", "faiss:old.faiss", "bridge:bridges/b.safetensors", here)
    plan = bridge(here / "long.safetensors", "faiss:old.faiss", "faiss:new.faiss", here)  # which keeps the length
    apply(plan)
    assert red(plan) == []
    mapped: Any = load(here / "long.safetensors").translate("source", "target")(world.new[:50])
    new, old = faiss.read_index(str(here / "new.faiss")), faiss.read_index(str(here / "old.faiss"))
    np.testing.assert_array_equal(new.search(world.new[:50], 10)[1], old.search(np.float32(mapped), 10)[1])
