"""The switch, the way back, and the plan's own folder: nothing is served that was not verified, nothing is lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upgrade_stores import faiss_flat, qdrant
from upgrade_worlds import ROWS, World, planned, tree, write_parquet

from suture.aligners import RefusedError
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.backfill import backfill
from suture.stitching.upgrade.plan import Plan, load_plan
from suture.stitching.upgrade.status import status
from suture.stitching.upgrade.switch import retire, rollback, switch
from suture.stitching.upgrade.verify import verify

SOURCE, TARGET = "parquet:old#vector", "parquet:new#vector"


def red(plan: Plan) -> list[str]:
    return [f"{check.name}: {check.found}" for check in verify(plan) if not check.ok]


def done(world: World, here: Path, **options: Any) -> Plan:
    write_parquet(here / "old", world)
    plan = planned(world, SOURCE, TARGET, here / "plan.json", **options)
    apply(plan)
    assert red(plan) == []
    return plan


def rewrite(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (Path("new/part-000001.parquet").unlink, "1 of 6 fragments are not done"),
        (lambda: rewrite(Path("new/part-000001.parquet")), "1 fragments are not as they were written"),
        (lambda: rewrite(Path("old/old-1.parquet")), "parts that were changed .* old-1.parquet"),
        (lambda: pq.write_table(pq.read_table("new/part-000001.parquet"), "new/zz.parquet"), "zz.parquet came after"),
    ],
)
def test_switch_refuses_what_verify_has_not_seen(
    change: Callable[[], None], match: str, world: World, here: Path
) -> None:
    plan = done(world, here)
    change()
    with pytest.raises(RefusedError, match=match):
        switch(plan)
    assert not (here / "_CURRENT").exists()
    assert status(plan)["phase"] == "planned"
    if "fragments" in match:
        apply(plan)
        assert red(plan) == []
        switch(plan)


def test_switch_refuses_an_index_that_was_cut(world: World, here: Path) -> None:
    case = faiss_flat(world, here)
    plan = planned(world, case.source, case.target, here / "plan.json")
    apply(plan)
    assert red(plan) == []
    index = here / "new.faiss"
    whole = index.read_bytes()
    index.write_bytes(whole[:-100])
    with pytest.raises(RefusedError, match="not as they were written"):
        switch(plan)
    apply(plan)
    assert index.read_bytes() == whole
    assert red(plan) == []
    switch(plan)


@pytest.mark.parametrize("store", ["parquet", "faiss", "qdrant"])
def test_an_equal_plan_of_another_name_is_another_plan(store: str, world: World, here: Path) -> None:
    if store == "parquet":
        write_parquet(here / "old", world)
        source, target = SOURCE, TARGET
    else:
        case = {"faiss": faiss_flat, "qdrant": qdrant}[store](world, here)
        source, target = case.source, case.target
    first = planned(world, source, target, here / "first.json")
    second = planned(world, source, target, here / "second.json")
    assert first.hash == second.hash
    apply(first)
    assert red(first) == []
    before = tree(here / "new") if store == "parquet" else {}
    with pytest.raises(RefusedError, match="first.json" if store != "qdrant" else "there is another"):
        apply(load_plan(second.path))
    with pytest.raises(RefusedError, match="wrote nothing"):
        retire(load_plan(second.path), target)
    assert red(load_plan(first.path)) == []
    if store == "parquet":
        assert tree(here / "new") == before


def test_a_plan_is_not_overwritten_where_something_would_be_lost(world: World, here: Path) -> None:
    plan = done(world, here)
    switch(plan)
    before = tree(here)
    with pytest.raises(RefusedError, match="the only way back"):
        planned(world, SOURCE, TARGET, plan.path, overwrite=True)
    assert tree(here) == before
    rollback(plan)
    apply(planned(world, SOURCE, TARGET, plan.path, overwrite=True))  # the same plan goes on with what it wrote
    plan = load_plan(plan.path)
    backfill(plan, lambda ids, _: np.resize(world.new, (len(ids), 32)), budget=7)
    before = tree(here)
    with pytest.raises(RefusedError, match="7 rows of the new model are kept here"):
        planned(world, SOURCE, TARGET, plan.path, overwrite=True)
    assert tree(here) == before
    other = planned(world, SOURCE, "parquet:other#vector", here / "other.json")
    (other.state / "after-switch.jsonl").write_text("{}\n")
    with pytest.raises(RefusedError, match="users wrote after a switch"):
        planned(world, SOURCE, "parquet:other#vector", other.path, overwrite=True)


def keep_off(plan: Plan, world: World) -> None:
    """Nothing writes over files that users wrote to after the switch."""
    assert red(plan) != []
    with pytest.raises(RefusedError, match="would be written over"):
        apply(plan)
    with pytest.raises(RefusedError, match="would be written over"):
        backfill(plan, lambda ids, _: np.resize(world.new, (len(ids), 32)), budget=7)


def test_rows_written_to_a_folder_after_the_switch_are_listed(world: World, here: Path) -> None:
    plan = done(world, here)
    switch(plan)
    part = here / "new" / "part-000002.parquet"
    table = pq.read_table(part)
    rows = np.stack(table["vector"].to_numpy()).copy()
    rows[3] = rows[4]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    pq.write_table(table.set_column(table.schema.names.index("vector"), "vector", vectors), part)
    pq.write_table(pa.table({"id": [5, 6], "vector": vectors[:2], "lang": ["fi", "fi"]}), here / "new" / "aa.parquet")
    (here / "new" / "zz.parquet").write_bytes(b"torn")
    before = tree(here / "new")
    keep_off(plan, world)
    assert tree(here / "new") == before
    assert rollback(plan)["written_since"] == 4
    listed = [json.loads(line) for line in (plan.state / "after-switch.jsonl").read_text().splitlines()]
    assert [row.get("id", row.get("part")) for row in listed] == [5, 6, table["id"][3].as_py(), "zz.parquet"]
    assert listed[0]["payload"]["lang"] == "fi"
    assert tree(here / "new") == before
    assert not (here / "_CURRENT").exists()


def test_rows_written_to_an_index_after_the_switch_are_listed(world: World, here: Path) -> None:
    import faiss

    case = faiss_flat(world, here)
    plan = planned(world, case.source, case.target, here / "plan.json")
    apply(plan)
    assert red(plan) == []
    switch(plan)
    index = faiss.read_index("new.faiss")
    index.remove_ids(world.ids[7:8])
    index.add_with_ids(world.new[:2], np.array([77, world.ids[7]]))
    faiss.write_index(index, "new.faiss")
    before = tree(here, "*new.faiss")
    keep_off(plan, world)
    assert tree(here, "*new.faiss") == before
    assert rollback(plan)["written_since"] == 2
    listed = (plan.state / "after-switch.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in listed] == [77, world.ids[7]]


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("phase.json", [switch, rollback, status]),
        ("added.json", [apply, verify, status]),
        ("owner.json", [switch, rollback, apply, verify]),
    ],
)
def test_a_torn_file_of_the_plan_is_not_a_missing_one(
    name: str, commands: list[Callable[[Plan], Any]], world: World, here: Path
) -> None:
    plan = done(world, here)
    new = {"id": pa.array(world.ids[:9] + 1), "vector": pq.read_table(here / "old/old-0.parquet")["vector"][:9]}
    rest = pq.read_table(here / "old/old-0.parquet").drop(["id", "vector"])[:9]
    late = pa.table({**new, **dict(zip(rest.schema.names, rest.columns, strict=True))})
    pq.write_table(late.cast(pq.read_schema(here / "old/old-0.parquet")), here / "old" / "zz-late.parquet")
    apply(plan)
    assert red(plan) == []
    switch(plan)
    file = plan.state / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    for command in commands:
        with pytest.raises(RefusedError, match=f"{name}: this file is damaged"):
            command(load_plan(plan.path))
    with pytest.raises(RefusedError, match=r"phase.json: this file is damaged|the only way back"):
        planned(world, SOURCE, TARGET, plan.path, overwrite=True)
    assert (here / "_CURRENT").read_text() == "new\n"
    file.write_bytes(whole)
    rollback(load_plan(plan.path))
    assert len(load_plan(plan.path).all_fragments()) == 7
    assert status(load_plan(plan.path))["rows"] == ROWS + 9
