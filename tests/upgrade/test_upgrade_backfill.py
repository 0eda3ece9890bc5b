"""Backfill: each row is paid for once, kept for ever, stamped, and never un-done; mixed states are served rightly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from upgrade_stores import qdrant
from upgrade_worlds import ROWS, World, planned, run_backfill_and_die, tree, write_parquet

from suture.aligners import RefusedError, UsageError
from suture.stitching.serving import Cascade, MixedSearch
from suture.stitching.stores import Batch
from suture.stitching.stores.batch import joined
from suture.stitching.stores.disk import read_json
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.backfill import backfill
from suture.stitching.upgrade.cache import Cache
from suture.stitching.upgrade.plan import Plan
from suture.stitching.upgrade.switch import rollback, switch
from suture.stitching.upgrade.verify import verify


@pytest.fixture
def plan(world: World, here: Path) -> Plan:
    write_parquet(here / "old", world)
    made = planned(world, "parquet:old#vector", "parquet:new#vector", here / "plan.json")
    apply(made)
    return made


class Model:
    """The new model: it knows the row of every id, and counts what it is asked."""

    def __init__(self, world: World) -> None:
        self.rows = dict(zip(world.ids.tolist(), world.new, strict=True))
        self.asked: list[int] = []

    def __call__(self, ids: list[Any], payloads: list[dict[str, Any]]) -> Any:
        assert len(ids) == len(payloads)
        assert all("lang" in payload for payload in payloads)
        self.asked += ids
        return np.stack([self.rows[key] for key in ids])


def stamps(here: Path) -> dict[Any, str]:
    table = pq.read_table(here / "new")
    return dict(zip(table["id"].to_pylist(), table["_stamp"].to_pylist(), strict=True))


def red(plan: Plan) -> list[str]:
    return [f"{check.name}: {check.found}" for check in verify(plan) if not check.ok]


def test_rows_are_paid_for_once_and_stay(world: World, plan: Plan, here: Path) -> None:
    model = Model(world)
    first = backfill(plan, model, budget=100)
    assert (first["embedded"], first["native"], first["written"]) == (100, 100, 100)
    assert list(stamps(here).values()).count("new-model") == 100
    assert red(plan) == []
    second = backfill(plan, model, budget=150)
    assert second["native"] == 250
    assert len(set(model.asked)) == len(model.asked) == 250
    apply(plan)  # a run of apply does not make mapped rows of them
    next((here / "new").glob("part-*")).unlink()
    apply(plan)
    assert list(stamps(here).values()).count("new-model") == 250
    assert red(plan) == []
    done = backfill(plan, model, budget=10**6)
    assert (done["native"], len(model.asked)) == (ROWS, ROWS)
    table = pq.read_table(here / "new").to_pydict()
    for key, row in zip(table["id"], table["vector"], strict=True):
        np.testing.assert_allclose(row, model.rows[key], atol=1e-6)
    overlap = [point["overlap@10"]["estimate"] for point in done["curve"]]
    assert overlap[-1] > overlap[0]  # the curve is measured as it goes
    assert read_json(plan.state / "curve.json") == done["curve"]


@pytest.mark.parametrize("order", ["given", "random", "norm"])
def test_rows_come_in_the_order_of_the_plan(order: str, world: World, here: Path) -> None:
    write_parquet(here / "old", world)
    asked = []
    for name in ("one", "two"):
        made = planned(world, "parquet:old#vector", f"parquet:{name}#vector", here / f"{name}.json", order=order)
        apply(made)
        model = Model(world)
        backfill(made, model, budget=90)
        asked.append(model.asked)
    assert asked[0] == asked[1]
    first = world.ids[:90].tolist()
    assert (asked[0] == first) == (order == "given")
    if order == "norm":  # a map shrinks what it cannot tell
        norms = np.linalg.norm(made.alignment.translate("source", "target")(world.old), axis=1)
        chosen = np.isin(world.ids, asked[0])
        assert norms[chosen].max() <= norms[~chosen].min()
    with pytest.raises(UsageError, match="--budget"):
        backfill(made, model, budget=-1)


def test_what_users_wrote_after_the_switch_stays(world: World, here: Path) -> None:
    """Neither a mapped row nor one that was embedded of the old text takes the place of what a user wrote."""
    case = qdrant(world, here)
    plan = planned(world, case.source, case.target, here / "plan.json", fragment_rows=case.rows // 4)
    apply(plan)
    assert red(plan) == []
    switch(plan)
    with plan.open_target() as new:
        fragment = next(iter(new.fragments(10)))
        rows = joined(list(new.read(fragment, 10)))
        mine = rows.vectors[0, ::-1].copy()
        new.write(0, [Batch(rows.ids[:1], mine[None], rows.payload[:1], ["somebody else"])])
        new.discard(rows.ids[1:2])
    done = backfill(plan, lambda ids, payloads: np.resize(world.new, (len(ids), 32)), budget=ROWS)
    assert done["embedded"] == case.rows
    assert case.insert is not None
    case.insert(rows.ids[0].item(), world.old[5], world.payload[5])  # by an application that writes to both
    apply(plan)
    with plan.open_target() as new:
        there = new.fetch(0, rows.ids[:3])
        assert there.ids.tolist() == rows.ids[[0, 2]].tolist()
        np.testing.assert_allclose(there.vectors[0], mine, atol=2e-6)
        assert (there.stamps or [])[-1] == plan.model
    assert rollback(plan)["written_since"] == 1


def test_what_users_wrote_after_a_switch_stands_before_the_next_one(world: World, here: Path) -> None:
    case = qdrant(world, here)
    plan = planned(world, case.source, case.target, here / "plan.json")
    apply(plan)
    assert red(plan) == []
    switch(plan)
    with plan.open_target() as new:
        rows = joined(list(new.read(next(iter(new.fragments(10))), 10))).slice(0, 1)
        new.write(0, [Batch(rows.ids + 999, rows.vectors, rows.payload, ["somebody else"])])
    assert rollback(plan)["written_since"] == 1
    (said,) = (check.found for check in verify(plan) if check.name == "ids")
    assert "what users wrote after a switch is there only" in said
    with pytest.raises(RefusedError, match="verify and switch again first"):
        backfill(plan, lambda ids, payloads: world.new[: len(ids)], budget=1)


def test_the_worst_mapped_rows_come_first(world: World, plan: Plan) -> None:
    model = Model(world)
    backfill(plan, model, budget=150)
    mapped = plan.row_map(world.old, "")
    error = dict(zip(world.ids.tolist(), (1 - (mapped * world.new).sum(1)).tolist(), strict=True))
    chosen = [error[key] for key in model.asked]
    others = [value for key, value in error.items() if key not in set(model.asked)]
    assert np.mean(chosen) > np.mean(others)


def test_what_was_paid_for_survives_a_kill(world: World, plan: Plan, here: Path, child: Callable[..., int]) -> None:
    np.save(here / "new-model.npy", world.new)
    np.save(here / "new-ids.npy", world.ids)
    assert child(run_backfill_and_die, plan.path, 400, 1) == -9  # after the second batch of 256
    with Cache.of(plan) as cache:
        paid = len(cache)
    assert 0 < paid < 400
    model = Model(world)
    done = backfill(plan, model, budget=0)  # nothing is bought again
    assert (model.asked, done["native"], done["written"]) == ([], paid, paid)
    assert red(plan) == []
    for at in range(2, 6):  # and while fragments are written again
        child(run_backfill_and_die, plan.path, 50, at)
    backfill(plan, model, budget=0)
    assert red(plan) == []


def test_a_wrong_embedder_is_refused(world: World, plan: Plan, here: Path) -> None:
    before = tree(here / "new")
    with pytest.raises(RefusedError, match="dims"):
        backfill(plan, lambda ids, payloads: world.old[: len(ids)], budget=50)
    with pytest.raises(RefusedError, match="look like rows"):
        backfill(plan, lambda ids, payloads: world.new[: len(ids), ::-1].copy(), budget=100)
    with pytest.raises(RefusedError, match="NaN"):
        backfill(plan, lambda ids, payloads: world.new[: len(ids)] * np.array(np.nan, np.float32), budget=50)
    assert tree(here / "new") == before
    with Cache.of(plan) as cache:
        assert len(cache) == 0


def test_what_a_cascade_embeds_becomes_the_backfill(world: World, plan: Plan, here: Path) -> None:
    model = Model(world)
    back = np.linalg.pinv(plan.alignment.translate("source", "target").weight.numpy())  # type: ignore[attr-defined]

    class Old:
        """The old index, asked with new queries."""

        def search(self, new: Any, old: Any = None, k: int = 10) -> Any:
            scores = new @ back @ world.old.T
            order = np.argsort(-scores, axis=1)[:, :k]
            return np.take_along_axis(scores, order, 1), order

    class ById:
        """Rows of the index are positions; the cache is kept by id."""

        def __init__(self, cache: Cache) -> None:
            self.cache = cache

        def get(self, rows: Any) -> Any:
            return self.cache.get(world.ids[rows])

        def put(self, rows: Any, vectors: Any) -> None:
            self.cache.put(world.ids[rows], vectors)

    with Cache.of(plan) as cache:
        cascade = Cascade(Old(), lambda rows: world.new[rows], new_dim=32, depth=20, cache=ById(cache))
        _, found = cascade.search(world.new[:30], k=10)
        kept = len(cache)
        assert kept == cascade.embedded > 30
        cascade.search(world.new[:30], k=10)
        assert len(cache) == kept
    done = backfill(plan, model, budget=0)
    assert done["native"] == kept
    assert model.asked == []
    assert (found[:, 0] == np.arange(30)).mean() > 0.9


def test_mixed_states_are_served_rightly(world: World, plan: Plan, here: Path) -> None:
    """Within a partly native gallery, ranks are merged kind by kind: native rows take no more than their share."""
    backfill(plan, Model(world), budget=150)
    table = pq.read_table(here / "new")
    rows = np.stack(table["vector"].to_numpy())
    native = np.flatnonzero(np.array(table["_stamp"].to_pylist()) == "new-model")
    queries = world.new[:200]

    class Mapped:
        def search(self, new: Any, old: Any = None, k: int = 10) -> Any:
            scores = new @ rows.T
            order = np.argsort(-scores, axis=1)[:, :k]
            return np.take_along_axis(scores, order, 1), order

    mixed = MixedSearch(rows[native], native, Mapped(), total=len(rows), new_dim=32)
    _, merged = mixed.search(queries)
    _, plain = Mapped().search(queries)
    truth = np.argsort(-(queries @ world.new.T), axis=1)[:, :10]
    ids = np.array(table["id"].to_pylist())
    right = [set(world.ids[row].tolist()) for row in truth]

    def overlap(found: Any) -> float:
        return float(np.mean([len(set(ids[row].tolist()) & good) / 10 for row, good in zip(found, right, strict=True)]))

    share = len(native) / len(rows)
    assert abs(np.isin(merged, native).mean() - share) < 0.1
    assert overlap(merged) > overlap(plain) - 0.02
