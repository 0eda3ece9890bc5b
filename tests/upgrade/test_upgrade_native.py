"""Rows of the new model in the new gallery: whose they are, where they lie, and how many they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upgrade_stores import faiss_flat, lancedb, qdrant, usearch
from upgrade_worlds import ROWS, World, planned, run_backfill_and_die

from suture.stitching.stores import Batch
from suture.stitching.stores.batch import joined
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.backfill import backfill
from suture.stitching.upgrade.cache import Cache
from suture.stitching.upgrade.plan import Plan
from suture.stitching.upgrade.status import status
from suture.stitching.upgrade.switch import rollback, switch
from suture.stitching.upgrade.verify import verified, verify


def red(plan: Plan) -> list[str]:
    return [f"{check.name}: {check.found}" for check in verify(plan) if not check.ok]


@pytest.mark.parametrize(
    ("source", "target", "strategy"),
    [
        ("npy:old.npy?ids=ids.npy", "npy:new", "map"),
        ("npy:old.npy?ids=ids.npy", "npy:new", "dual"),
        ("faiss:old.faiss", "faiss:new.faiss", "expanded"),
        ("usearch:old.usearch", "usearch:new.usearch", "map"),
    ],
)
def test_rows_that_are_staged_become_native(
    source: str, target: str, strategy: str, world: World, here: Path, child: Callable[..., int]
) -> None:
    if source.startswith("npy"):
        np.save(here / "old.npy", world.old)
        np.save(here / "ids.npy", world.ids)
    else:
        (faiss_flat if source.startswith("faiss") else usearch)(world, here)
    plan = planned(world, source, target, here / "plan.json", strategy=strategy)
    apply(plan)
    with Cache.of(plan) as cache:  # bought, and not put yet: as a Cascade leaves it, or a run that broke off
        cache.put(world.ids[::5], world.new[::5])
    assert red(plan) == []
    assert backfill(plan, lambda ids, _: world.new[: len(ids)], budget=0)["written"] == ROWS / 5
    assert red(plan) == []
    np.save(here / "new-model.npy", world.new)
    np.save(here / "new-ids.npy", world.ids)
    for at in (2, 3, 4):  # the entry is gone; the part is written; and it is recorded
        assert child(run_backfill_and_die, plan.path, 4, at) == -9
        apply(plan)
        assert red(plan) == []
    with plan.open_target() as new:
        there = joined([new.fetch(n, world.ids[f["start"] : f["stop"]]) for n, f in enumerate(plan.fragments)])
    native = np.array(there.stamps) == plan.model
    assert native.sum() >= ROWS / 5
    unit = world.new / np.linalg.norm(world.new, axis=1, keepdims=True)
    np.testing.assert_allclose(there.vectors[native, -32:], unit[native], atol=1e-6)


def test_a_row_of_a_user_is_told_from_one_that_was_bought(world: World, here: Path) -> None:
    """Both bear the stamp of the new model; the vector tells."""
    case = qdrant(world, here)
    plan = planned(world, case.source, case.target, here / "plan.json", fragment_rows=case.rows // 4)
    apply(plan)
    keys = np.arange(case.rows) * 2 + 5
    model = {key: world.new[i] for i, key in enumerate(keys.tolist())}

    def embed(ids: list[Any], payloads: list[dict[str, Any]]) -> Any:
        return np.stack([model[key] for key in ids])

    backfill(plan, embed, budget=10)
    assert red(plan) == []
    switch(plan)
    with Cache.of(plan) as cache, plan.open_target() as new:
        bought = np.flatnonzero(cache.holds(keys))[:2]
        mapped = np.flatnonzero(~cache.holds(keys))[:2]
        rows = joined([new.fetch(0, keys[[bought[0], mapped[0]]])])
        mine = rows.vectors[:, ::-1].copy()
        new.write(0, [Batch(rows.ids, mine, [{"text": "mine"}] * 2, [plan.model] * 2)])
    done = backfill(plan, embed, budget=case.rows)
    assert done["native"] == case.rows
    assert case.insert is not None
    for i in (bought[1], mapped[0]):  # their old texts change
        case.insert(keys[i].item(), world.old[i + 100], world.payload[i])
    apply(plan)
    with plan.open_target() as new:
        there = new.fetch(0, keys[[bought[0], mapped[0], bought[1], mapped[1]]])
    np.testing.assert_allclose(there.vectors[:2], mine, atol=2e-6)
    assert there.payload[0] == there.payload[1] == {"text": "mine"}
    assert there.stamps == [plan.model, plan.model, plan.stamp, plan.model]
    assert rollback(plan)["written_since"] == 2


def test_what_changed_is_bought_and_put_again(world: World, here: Path) -> None:
    case = qdrant(world, here)
    plan = planned(world, case.source, case.target, here / "plan.json", order="given")
    apply(plan)

    def embed(ids: list[Any], payloads: list[dict[str, Any]]) -> Any:
        return world.new[[payload["n"] for payload in payloads]]

    backfill(plan, embed, budget=10)
    assert red(plan) == []
    assert case.insert is not None
    assert case.remove is not None
    case.insert(11, world.old[200], world.payload[200])  # the fourth row is another text now
    case.remove(13)
    apply(plan)
    assert verified(plan) is None  # rows were written since
    case.insert(13, world.old[201], world.payload[201])  # it comes again, as another text
    apply(plan)
    assert red(plan) == []
    done = backfill(plan, embed, budget=1)
    assert (done["embedded"], done["written"], done["native"]) == (1, 1, 9)
    assert red(plan) == []
    backfill(plan, embed, budget=1)
    with plan.open_target() as new:
        there = new.fetch(0, np.array([11, 13]))
    np.testing.assert_allclose(there.vectors, world.new[200:202], atol=2e-6)
    assert there.stamps == [plan.model] * 2


def test_rows_are_counted_as_they_are_there(world: World, here: Path) -> None:
    case = qdrant(world, here)
    plan = planned(world, case.source, case.target, here / "plan.json")
    apply(plan)
    assert case.insert is not None
    for key in range(10**6, 10**6 + 20):
        case.insert(key, world.old[300], world.payload[300])
    apply(plan)
    found = status(plan)
    assert (found["rows_done"], found["rows"]) == (case.rows + 20, case.rows + 20)
    done = backfill(plan, lambda ids, _: np.resize(world.new, (len(ids), 32)), budget=case.rows + 20)
    assert (done["native"], done["rows"]) == (case.rows + 20, case.rows + 20)
    assert done["curve"][-1]["share"] == 1


def test_files_made_of_a_live_gallery_are_caught_up(world: World, here: Path) -> None:
    """A part is written as a whole: the rows beside those that came must not go."""
    case = lancedb(world, here)
    plan = planned(world, case.source, "parquet:new#vector", here / "plan.json")
    apply(plan)
    backfill(plan, lambda ids, _: np.resize(world.new, (len(ids), 32)), budget=10)
    assert case.insert is not None
    assert case.remove is not None
    case.insert(7, world.old[100], world.payload[3])
    case.remove(9)
    assert apply(plan)["fragments"] == 1
    assert red(plan) == []
    assert apply(plan)["rows"] == 0
