"""Galleries in files: the whole journey, kills at every step, a full disk."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from upgrade_worlds import (
    NEW,
    ROWS,
    World,
    planned,
    run,
    run_and_die,
    run_and_die_after,
    run_with_little_disk,
    tree,
    write_parquet,
)

from suture.aligners import RefusedError, load
from suture.stitching.apply import serving_map
from suture.stitching.stores.batch import Batch, joined
from suture.stitching.stores.files import PartsStore
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.phase import phase
from suture.stitching.upgrade.plan import Plan, load_plan
from suture.stitching.upgrade.status import status
from suture.stitching.upgrade.switch import retire, rollback, switch
from suture.stitching.upgrade.verify import verified, verify

KILLED = -9


@pytest.fixture
def old(world: World, here: Path) -> Path:
    write_parquet(here / "old", world)
    return here / "old"


@pytest.fixture
def plan(world: World, old: Path, here: Path) -> Plan:
    return planned(world, "parquet:old#vector", "parquet:new#vector", here / "plan.json")


def green(plan: Plan) -> bool:
    checks = verify(plan)
    return all(check.ok for check in checks)


def test_the_whole_journey(world: World, old: Path, plan: Plan, here: Path) -> None:
    before = tree(old)
    assert len(plan.fragments) == 6  # 200 rows a part, 150 a fragment
    apply(plan)
    assert green(plan)
    table, source = pq.read_table(here / "new"), pq.read_table(old)
    assert table.num_rows == ROWS
    assert set(table["_stamp"].to_pylist()) == {plan.stamp}
    for name in ("id", "lang", "n", "score", "tags"):
        assert table[name].cast(source[name].type).equals(source[name]), name
    vectors = np.stack(table["vector"].to_numpy())
    mapping, _ = serving_map(load(world.map))
    np.testing.assert_allclose(vectors, mapping(world.old), atol=1e-6)
    assert vectors.shape == (ROWS, NEW)
    assert all(path.name.startswith(("part-", "_")) for path in (here / "new").iterdir())

    said = switch(plan)
    assert (here / "_CURRENT").read_text() == "new\n"
    assert "rollback" in said["undo"]
    rollback(plan)
    assert not (here / "_CURRENT").exists()
    assert tree(old) == before
    switch(plan)
    with pytest.raises(RefusedError, match="confirm it"):
        retire(plan, "old")
    retire(plan, "parquet:old#vector")
    assert not old.exists()
    assert status(plan)["phase"] == "retired"


def test_switch_needs_a_fresh_green_verify(plan: Plan, here: Path) -> None:
    apply(plan)
    with pytest.raises(RefusedError, match="verify"):
        switch(plan)
    assert green(plan)
    part = next((here / "new").glob("part-*"))
    part.unlink()
    apply(plan)  # does the lost part again: the same bytes, and the ledger says the same
    assert verified(plan)
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    assert [check.name for check in verify(plan) if not check.ok] == ["bytes"]
    with pytest.raises(RefusedError, match="not verified"):
        switch(plan)
    assert not verify(plan)[0].ok  # a damaged part is no part
    apply(plan)
    assert green(plan)


def test_a_rerun_and_other_plans_give_the_same_bytes(world: World, plan: Plan, here: Path) -> None:
    apply(plan)
    first = tree(here / "new", "part-*")
    assert apply(plan)["rows"] == 0
    other = planned(world, "parquet:old#vector", "parquet:other/place#vector", here / "another.json")
    for shard in (2, 0, 1):
        apply(other, shard=(shard, 3))
    assert tree(here / "other" / "place", "part-*") == first
    assert green(other)


def steps_of(plan: Plan) -> int:
    seen: list[str] = []
    apply(plan, tell=lambda step, facts: seen.append(step))
    return len(seen)


@pytest.mark.parametrize("scheme", ["parquet", "npy", "h5"])
def test_killed_at_every_step_it_goes_on(scheme: str, world: World, here: Path, child: Callable[..., int]) -> None:
    if scheme == "parquet":
        write_parquet(here / "old", world, parts=2)
        source = "parquet:old#vector"
    else:
        np.save(here / "old.npy", world.old)
        np.save(here / "ids.npy", world.ids)
        source = "npy:old.npy?ids=ids.npy"
    size = 200 if scheme == "parquet" else 300
    steps = steps_of(planned(world, source, f"{scheme}:whole", here / "whole.json", fragment_rows=size))
    whole = tree(here / "whole", "part-*") | tree(here / "whole", "_part-*")
    before = tree(here, "old*")
    plan = planned(world, source, f"{scheme}:new", here / "plan.json", fragment_rows=size)
    assert steps > 7
    # Every run is killed one step later than the last one came: by and by all steps are died at.
    codes = [child(run_and_die, plan.path, "apply", at) for at in (1, 3, 2, 4, 5)]
    assert codes.count(KILLED) > 2
    assert child(run_and_die, plan.path, "apply", 10**6) == 0
    assert tree(here / "new", "part-*") | tree(here / "new", "_part-*") == whole
    assert tree(here, "old*") == before
    assert green(load_plan(plan.path))


def test_killed_at_each_step_of_a_fresh_run(world: World, old: Path, here: Path, child: Callable[..., int]) -> None:
    whole = planned(world, "parquet:old#vector", "parquet:whole#vector", here / "whole.json", fragment_rows=200)
    steps = steps_of(whole)
    expected = tree(here / "whole", "part-*")
    for at in range(steps):
        target = f"parquet:new{at}#vector"
        plan = planned(world, "parquet:old#vector", target, here / f"plan{at}.json", fragment_rows=200)
        assert child(run_and_die, plan.path, "apply", at) == KILLED
        assert child(run_and_die, plan.path, "apply", 10**6) == 0
        assert tree(here / f"new{at}", "part-*") == expected
        assert not list((here / f"new{at}").glob("*.tmp"))


def test_killed_at_random_instants(world: World, old: Path, here: Path, child: Callable[..., int]) -> None:
    whole = planned(world, "parquet:old#vector", "parquet:whole#vector", here / "whole.json", fragment_rows=20)
    started = perf_counter()
    apply(whole)
    seconds = perf_counter() - started
    before = tree(old)
    plan = planned(world, "parquet:old#vector", "parquet:new#vector", here / "plan.json", fragment_rows=20)
    rng = random.Random(0)
    # Early instants first: each run goes on where the last one died, and one that ends leaves nothing to kill.
    instants = sorted(rng.uniform(0, 0.5 * seconds) for _ in range(6))
    codes = [child(run_and_die_after, plan.path, "apply", at) for at in instants]
    assert KILLED in codes
    run(plan.path)
    assert tree(here / "new", "part-*") == tree(here / "whole", "part-*")
    assert tree(old) == before
    assert green(load_plan(plan.path))


@pytest.mark.parametrize("what", ["switch", "rollback"])
def test_killed_while_it_switches(what: str, plan: Plan, here: Path, child: Callable[..., int]) -> None:
    apply(plan)
    assert green(plan)
    if what == "rollback":
        switch(plan)
    for at in (0, 0, 1):
        assert child(run_and_die, plan.path, what, at) == KILLED
        assert pointer(here) in (None, "new")  # never anything else
    assert phase(plan.state) == ("switched" if what == "switch" else "rolled back")  # died after the last step
    if what == "switch":
        run(plan.path, what)
    assert phase(plan.state) == ("switched" if what == "switch" else "rolled back")
    assert pointer(here) == ("new" if what == "switch" else None)


def pointer(here: Path) -> str | None:
    path = here / "_CURRENT"
    return path.read_text().strip() if path.exists() else None


def test_a_full_disk_stops_cleanly(world: World, old: Path, plan: Plan, here: Path, child: Callable[..., int]) -> None:
    before = tree(old)
    assert child(run_with_little_disk, plan.path, 8000) == 6
    said = (here / "said.txt").read_text()
    assert "bytes more are needed" in said
    assert int(said.split("About ")[1].split()[0]) > 10_000
    assert not list((here / "new").glob("part-*"))
    assert not list((here / "new").glob("*.tmp"))
    apply(plan)
    assert green(plan)
    assert tree(old) == before


def test_chained_upgrades_start_where_the_pointer_leads(world: World, plan: Plan, here: Path) -> None:
    apply(plan)
    assert green(plan)
    switch(plan)
    with pytest.raises(RefusedError, match="stamped"):
        planned(world, f"parquet:{here}#vector", "parquet:newer#vector", here / "next.json")


def test_events_tell_machines_what_happens(plan: Plan) -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    apply(plan, tell=lambda step, facts: events.append((step, facts)))
    assert [step for step, _ in events][:2] == ["created", "written"]
    assert sum(facts["rows"] for step, facts in events if step == "recorded") == ROWS
    json.dumps(events)


@pytest.mark.parametrize("target", ["parquet:new#vector", "npy:new"])
def test_a_walk_reads_each_row_once_and_any_order_is_found(
    world: World, old: Path, here: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    for path in old.iterdir():  # npy keeps no payload
        pq.write_table(pa.table(pq.read_table(path).select(["id", "vector"])), path)
    plan = planned(world, "parquet:old#vector", target, here / "plan.json")
    apply(plan)
    read = 0
    with plan.open_target() as store:
        assert isinstance(store, PartsStore)
        rows_of = store.rows_of

        def counted(*words: Any) -> Iterator[Batch]:
            nonlocal read
            for batch in rows_of(*words):
                read += len(batch)
                yield batch

        monkeypatch.setattr(store, "rows_of", counted)
        whole = joined(list(rows_of(store.parts[0], 0, 150, 0, 150, True)))
        for start in range(0, 150, 40):
            there = store.fetch(0, whole.ids[start : start + 40])
            assert np.array_equal(there.vectors, whole.vectors[start : start + 40])
        assert read == 150
        order = np.random.default_rng(0).permutation(150)[:60]
        assert np.array_equal(store.fetch(0, whole.ids[order]).vectors, whole.vectors[order])
        strangers = np.concatenate([whole.ids[100:110], whole.ids[:1] + 1])
        assert store.fetch(0, strangers).ids.tolist() == whole.ids[100:110].tolist()
