"""The table of failure modes: each row a promise, each promise a test."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from upgrade_worlds import OLD, ROWS, World, encode, planned, run, run_and_die, tree, write_parquet

from suture.aligners import Alignment, Procrustes, RefusedError, SutureError, UsageError, save_alignment
from suture.aligners.maps import Affine
from suture.stitching.dumps import hash_ids
from suture.stitching.stores import open_store
from suture.stitching.stores.disk import write_json
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.backfill import backfill
from suture.stitching.upgrade.lock import locked
from suture.stitching.upgrade.plan import load_plan
from suture.stitching.upgrade.planning import make_plan
from suture.stitching.upgrade.switch import retire, rollback, switch
from suture.stitching.upgrade.verify import verify

SOURCE, TARGET = "parquet:old#vector", "parquet:new#vector"


def red(plan: Any) -> list[str]:
    return [check.name for check in verify(plan) if not check.ok]


def gallery(here: Path, world: World, rows: Any = None, ids: Any = None, dtype: type = np.float32) -> None:
    """The old gallery in one part, with other rows or ids than the world's."""
    rows = (world.old if rows is None else rows).astype(dtype)
    ids = world.ids if ids is None else ids
    (here / "old").mkdir(exist_ok=True)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), rows.shape[1])
    pq.write_table(pa.table({"id": pa.array(ids), "vector": vectors}), here / "old" / "a.parquet")


def refused(here: Path, world: World, match: str, **options: Any) -> None:
    """Planning is refused, and nothing is written."""
    before = tree(here)
    with pytest.raises(RefusedError, match=match):
        planned(world, SOURCE, TARGET, here / "plan.json", **options)
    assert tree(here) == before
    assert not (here / "new").exists()


def test_every_test_that_the_page_names_is_there() -> None:
    root = Path(__file__).parents[2]
    named = set(re.findall(r"`(test_\w+)", (root / "docs" / "upgrade.md").read_text()))
    there = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert len(named) > 40
    assert [name for name in sorted(named) if f"def {name}(" not in there] == []


def test_a_map_of_the_wrong_direction(world: World, here: Path) -> None:
    gallery(here, world, rows=world.new)
    refused(here, world, "wrong way round")


def test_a_map_of_the_wrong_direction_between_equal_dims(world: World, here: Path) -> None:
    other = encode(np.random.default_rng(0).normal(size=(ROWS, 12)), OLD, 13)
    save_alignment(Procrustes().fit(other, world.old, keys=hash_ids(world.ids)), here / "back.safetensors")
    gallery(here, world)
    before = tree(here)
    with pytest.raises(RefusedError, match="target"):
        make_plan(here / "back.safetensors", SOURCE, TARGET, here / "plan.json")
    assert tree(here) == before


def test_a_map_that_was_fitted_on_shifted_pairs(world: World, here: Path) -> None:
    save_alignment(Procrustes().fit(world.old, np.roll(world.new, 1, axis=0)), here / "shifted.safetensors")
    gallery(here, world)
    with pytest.raises(RefusedError, match="what chance finds"):
        make_plan(here / "shifted.safetensors", SOURCE, TARGET, here / "plan.json")


def test_a_map_turned_round_fails_the_semantic_canary_even_if_stamps_lie(world: World, here: Path) -> None:
    """Everything but the meaning is right: the rows are written, counted and hashed, and the switch is refused."""
    gallery(here, world)
    plan = planned(world, SOURCE, TARGET, here / "plan.json")
    apply(plan)
    assert red(plan) == []
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(32, 32)))[0].astype(np.float32)
    for number in range(len(plan.fragments)):
        part = here / "new" / f"part-{number:06d}.parquet"
        table = pq.read_table(part)
        rows = np.stack(table["vector"].to_numpy()) @ turn
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 32)
        pq.write_table(table.set_column(table.schema.get_field_index("vector"), "vector", vectors), part)
        entry = plan.ledger.get(number)
        with open_store(TARGET):
            from suture.stitching.stores.disk import checksum

            plan.ledger.put(number, {**(entry or {}), "bytes": part.stat().st_size, "sha256": checksum(part)})
    write_json(plan.state / "finished.json", {"ledger": plan.ledger.digest()})
    assert red(plan) == ["recomputed", "semantic"]
    with pytest.raises(RefusedError, match="found wrong"):
        switch(plan)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda rows: encode(np.random.default_rng(0).normal(size=(ROWS, 12)), OLD, 99), "do not look like"),
        (lambda rows: rows[:, ::-1], "do not look like"),
        (lambda rows: 2 * rows, "unit length"),
        (lambda rows: rows[:, :20], "expected source rows of 24 dims, these have 20"),
    ],
    ids=["another model of equal dim", "permuted dims", "other norms", "another width"],
)
def test_rows_that_are_not_of_the_old_space(change: Callable[..., Any], match: str, world: World, here: Path) -> None:
    gallery(here, world, rows=change(world.old))
    refused(here, world, match)


def test_ids_shifted_against_their_rows(world: World, here: Path) -> None:
    gallery(here, world, ids=np.roll(world.ids, 1))
    refused(here, world, "other vectors here")


def test_another_model_from_some_part_on(world: World, here: Path) -> None:
    write_parquet(here / "old", world)
    last = here / "old" / "old-2.parquet"
    table = pq.read_table(last)
    strange = encode(np.random.default_rng(0).normal(size=(table.num_rows, 12)), OLD, 99)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(strange.reshape(-1)), OLD)
    pq.write_table(table.set_column(table.schema.get_field_index("vector"), "vector", vectors), last)
    refused(here, world, "do not look like")


def test_bad_rows_are_refused_or_set_aside(world: World, here: Path) -> None:
    rows = world.old.copy()
    rows[400, 3], rows[401], rows[402, 0] = np.nan, 0, np.inf
    gallery(here, world, rows=rows)
    plan = planned(world, SOURCE, TARGET, here / "plan.json")
    with pytest.raises(RefusedError, match=str(world.ids[400])):
        apply(plan)
    again = planned(world, SOURCE, TARGET, plan.path, bad="quarantine", overwrite=True)
    assert apply(again) == {"rows": ROWS - 300 - 3, "fragments": 2, "left": 0}  # what was written stays
    assert red(load_plan(plan.path)) == []
    other = planned(world, SOURCE, "parquet:good#vector", here / "other.json", bad="quarantine")
    apply(other)
    assert red(other) == []
    assert pq.read_table(here / "good").num_rows == ROWS - 3
    listed = [row for path in (other.state / "quarantine").iterdir() for row in json.loads(path.read_text())["value"]]
    assert {(row["id"], row["reason"]) for row in listed} == {
        (int(world.ids[400]), "nan"),
        (int(world.ids[401]), "zero"),
        (int(world.ids[402]), "infinite"),
    }


def test_repeated_ids(world: World, here: Path) -> None:
    ids = world.ids.copy()
    ids[500] = ids[3]
    gallery(here, world, ids=ids)
    refused(here, world, "2 times")


def test_ids_of_any_kind_come_through(texts: World, here: Path) -> None:
    for name, ids in {
        "texts": texts.ids,
        "huge": np.arange(ROWS, dtype=np.uint64) + np.uint64(2**63),
        "negative": np.arange(ROWS) - 300,
    }.items():
        shutil.rmtree(here / "old", ignore_errors=True)
        gallery(here, texts, ids=ids)
        map_file = here / f"{name}.safetensors"
        save_alignment(Procrustes().fit(texts.old[:300], texts.new[:300], keys=hash_ids(ids[:300])), map_file)
        plan = make_plan(map_file, SOURCE, f"parquet:{name}#vector", here / f"{name}.json", fragment_rows=150)
        apply(plan)
        assert red(plan) == []
        assert pq.read_table(here / name)["id"].to_pylist() == ids.tolist()


def test_parts_of_different_schemas(world: World, here: Path) -> None:
    write_parquet(here / "old", world)
    last = here / "old" / "old-2.parquet"
    table = pq.read_table(last)
    for changed in (table.drop_columns(["lang"]), table.rename_columns(["id", "vector", "lang", "N", "score", "tags"])):
        pq.write_table(changed, last)
        refused(here, world, "old-2.parquet")


def test_a_part_of_another_schema_that_comes_during_the_run(world: World, here: Path) -> None:
    write_parquet(here / "old", world)
    last = here / "old" / "old-2.parquet"
    table = pq.read_table(last)
    last.unlink()
    plan = planned(world, SOURCE, TARGET, here / "plan.json")
    apply(plan)
    pq.write_table(table.drop_columns(["lang"]), here / "old" / "old-3.parquet")
    with pytest.raises(RefusedError, match=r"old-3\.parquet"):
        apply(plan)


def test_a_chain_of_maps_must_be_measured(world: World, here: Path) -> None:
    """Composed by two fits on other items, a map has no pairs that tell what it keeps."""
    middle = encode(np.random.default_rng(0).normal(size=(ROWS, 12)), 28, 14)
    first = Procrustes().fit(world.old[:300], middle[:300], keys=hash_ids(world.ids[:300]))
    second = Procrustes().fit(middle[300:], world.new[300:], keys=hash_ids(world.ids[300:]))
    save_alignment(first >> second, here / "chain.safetensors")
    gallery(here, world)
    chained = replace(world, map=here / "chain.safetensors")
    with pytest.raises(RefusedError, match=r"a chain of 2.*--queries OLD NEW"):
        planned(chained, SOURCE, TARGET, here / "plan.json")
    np.save(here / "q.old.npy", world.old[:100])
    np.save(here / "q.new.npy", world.new[:100])
    plan = planned(chained, SOURCE, TARGET, here / "plan.json", queries=(here / "q.old.npy", here / "q.new.npy"))
    apply(plan)
    assert red(plan) == []


def test_a_part_that_changes_or_goes_during_the_run(world: World, here: Path) -> None:
    write_parquet(here / "old", world)
    plan = planned(world, SOURCE, TARGET, here / "plan.json")
    apply(plan, max_rows=100)
    last = here / "old" / "old-2.parquet"
    whole = last.read_bytes()
    pq.write_table(pq.read_table(last).slice(1), last)
    with pytest.raises(RefusedError, match="changed after the plan"):
        apply(plan)
    last.unlink()
    with pytest.raises(RefusedError, match="is gone"):
        apply(plan)
    last.write_bytes(whole)  # brought back, but not the file that was planned
    with pytest.raises(RefusedError, match="changed after the plan"):
        apply(plan)


def test_a_part_that_comes_during_the_run_is_taken_up(world: World, here: Path) -> None:
    write_parquet(here / "old", world)
    extra = pq.read_table(here / "old" / "old-2.parquet")
    (here / "old" / "old-2.parquet").unlink()
    plan = planned(world, SOURCE, TARGET, here / "plan.json")
    apply(plan)
    assert red(plan) == []
    pq.write_table(extra, here / "old" / "a-new-part.parquet")
    assert red(plan) == ["caught up"]
    with pytest.raises(RefusedError, match="found wrong"):
        switch(plan)
    apply(plan)
    assert red(plan) == []
    assert sorted(pq.read_table(here / "new")["id"].to_pylist()) == sorted(world.ids.tolist())


def test_two_runs_at_once(world: World, here: Path, child: Callable[..., int]) -> None:
    write_parquet(here / "old", world)
    plan = planned(world, SOURCE, TARGET, here / "plan.json")
    with locked(plan.state / "locks", "whole"):
        with pytest.raises(RefusedError, match="another run of this plan"):
            apply(plan)
        with pytest.raises(RefusedError, match="another run"):
            apply(plan, shard=(0, 2))
    with locked(plan.state / "locks", "shard-0-of-2"):
        apply(plan, shard=(1, 2))  # shards of one number go side by side
        for shard in ((0, 2), (0, 3), (0, 1)):
            with pytest.raises(RefusedError, match="another run"):
                apply(plan, shard=shard)
    assert child(run_and_die, plan.path, "apply", 1) == -9
    assert list((plan.state / "locks").glob("*.lock"))  # left by the dead, and no hindrance
    apply(plan)
    assert red(plan) == []


def test_a_torn_ledger(world: World, here: Path) -> None:
    write_parquet(here / "old", world)
    plan = planned(world, SOURCE, TARGET, here / "plan.json")
    apply(plan)
    before = tree(here / "new", "part-*")
    entries = sorted((plan.state / "ledger").glob("*.json"))
    entries[0].write_bytes(entries[0].read_bytes()[:40])
    entries[1].write_text(
        entries[1].read_text().replace('"rows": 50', '"rows": 51').replace('"rows": 150', '"rows": 1')
    )
    entries[2].write_text("")
    done = apply(plan)
    assert done["fragments"] == 3
    assert tree(here / "new", "part-*") == before
    assert red(plan) == []


def test_numbers_that_do_not_fit(world: World, here: Path) -> None:
    weight = torch.randn(OLD, 32, generator=torch.Generator().manual_seed(0)) * 1e6
    save_alignment(Alignment.one_sided(Affine(weight, torch.zeros(32))), here / "loud.safetensors")
    gallery(here, world)
    plan = make_plan(here / "loud.safetensors", SOURCE, TARGET, here / "plan.json", dtype="float16")
    with pytest.raises(RefusedError, match="do not fit float16"):
        apply(plan)
    assert not list((here / "new").glob("part-*"))
    assert "no semantic check" in plan.notes[0]


def test_too_little_disk_is_known_before(world: World, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery(here, world)
    monkeypatch.setattr("suture.stitching.stores.files.free_bytes", lambda path: 1000)
    refused(here, world, "1000 are free")


def test_plans_that_are_none_or_were_changed(world: World, here: Path) -> None:
    gallery(here, world)
    plan = planned(world, SOURCE, TARGET, here / "plan.json")
    text = plan.path.read_text()
    plan.path.write_text(text.replace('"strategy": "map"', '"strategy": "dual"'))
    with pytest.raises(RefusedError, match="changed after it was made"):
        load_plan(plan.path)
    for broken in ("", "{}", "[]", text[:200], text.replace('"version": 1', '"version": 9')):
        plan.path.write_text(broken)
        with pytest.raises(SutureError):
            load_plan(plan.path)
    plan.path.write_text(text)
    (plan.state / "map.safetensors").write_bytes(b"x")
    with pytest.raises(RefusedError, match="not the map"):
        apply(load_plan(plan.path))


def test_addresses_that_mean_nothing(world: World, here: Path) -> None:
    gallery(here, world)
    for source, kind in (
        ("papyrus:old", UsageError),
        ("parquet:", UsageError),
        ("parquet:old?identifier=id", UsageError),
        ("parquet:absent", SutureError),
        ("old", SutureError),
    ):
        if source == "old":
            assert open_store(source).facts().rows == ROWS  # the parts tell
            continue
        with pytest.raises(kind):
            planned(world, source, TARGET, here / "plan.json")
    with pytest.raises(RefusedError, match="never overwritten"):
        planned(world, SOURCE, SOURCE, here / "plan.json")
    write_parquet(here / "rich", world)
    with pytest.raises(RefusedError, match="payload"):
        planned(world, "parquet:rich", "npy:new", here / "plan.json")


@pytest.mark.parametrize("strategy", ["dual", "expanded"])
def test_other_strategies(strategy: str, world: World, here: Path) -> None:
    gallery(here, world)
    plan = planned(world, SOURCE, TARGET, here / "plan.json", strategy=strategy)
    apply(plan)
    assert red(plan) == []
    rows = np.stack(pq.read_table(here / "new")["vector"].to_numpy())
    assert rows.shape[1] == (OLD + 32 if strategy == "dual" else 32)
    if strategy == "dual":
        np.testing.assert_allclose(rows[:, :OLD], world.old, atol=1e-6)
    else:  # an isometry: angles between old rows are kept
        np.testing.assert_allclose(rows @ rows.T, world.old @ world.old.T, atol=1e-5)


def test_chained_upgrades(world: World, here: Path, tmp_path: Path) -> None:
    gallery(here, world)
    first = planned(world, SOURCE, TARGET, here / "plan.json")
    apply(first)
    assert red(first) == []
    switch(first)
    with pytest.raises(RefusedError, match="stamped"):
        planned(world, f"parquet:{here}#vector", "parquet:again#vector", here / "again.json")
    third = encode(np.random.default_rng(0).normal(size=(ROWS, 12)), 28, 14)
    mapped = first.row_map(world.old, "")
    save_alignment(Procrustes().fit(mapped, third, keys=hash_ids(world.ids)), here / "next.safetensors")
    second = make_plan(
        here / "next.safetensors", f"parquet:{here}#vector", "parquet:third#vector", here / "next.json", model="third"
    )
    apply(second)
    assert red(second) == []
    switch(second)
    assert open_store(f"parquet:{here}").facts().dim == 28
    retire(first, "parquet:old#vector")
    with pytest.raises(RefusedError, match="points to"):
        open_store("parquet:third").drop()


def test_a_gallery_of_both_kinds_of_rows_is_upgraded_again_and_led_back_step_by_step(world: World, here: Path) -> None:
    """A -> B, some rows re-embedded, B -> C by a map of native rows of B; back to B, and back to A, as they were."""
    gallery(here, world)
    first = planned(world, SOURCE, TARGET, here / "plan.json")
    apply(first)
    own = dict(zip(world.ids.tolist(), world.new, strict=True))
    backfill(first, lambda ids, _: np.stack([own[key] for key in ids]), budget=200)
    assert red(first) == []
    switch(first)
    third = encode(np.random.default_rng(0).normal(size=(ROWS, 12)), 28, 14)
    save_alignment(Procrustes().fit(world.new, third), here / "next.safetensors")
    served = f"parquet:{here}#vector"
    second = make_plan(here / "next.safetensors", served, "parquet:third#vector", here / "next.json", model="third")
    assert any("these rows are mapped ones" in note for note in second.notes)
    before = tree(here / "old") | tree(here / "new")
    apply(second)
    assert red(second) == []
    switch(second)
    rows = pq.read_table(here / "third")
    assert rows["id"].to_pylist() == world.ids.tolist()
    stamps = pq.read_table(here / "new")["_stamp"].to_pylist()
    native = np.array([stamp == first.model for stamp in stamps])
    assert native.sum() == 200
    twice = np.where(native[:, None], world.new, first.row_map(world.old, ""))  # native rows are mapped once only
    np.testing.assert_allclose(np.stack(rows["vector"].to_numpy()), second.row_map(twice, ""), atol=2e-6)
    for plan, dim in ((second, 32), (first, OLD)):
        rollback(plan)
        assert open_store(load_plan(plan.path).source).facts().dim == dim
    assert tree(here / "old") | tree(here / "new") == before
    assert not (here / "_CURRENT").exists()


def test_two_dask_workers_give_the_same_bytes(world: World, here: Path) -> None:
    write_parquet(here / "old", world)
    whole = planned(world, SOURCE, "parquet:whole#vector", here / "whole.json")
    apply(whole)
    plan = planned(world, SOURCE, TARGET, here / "plan.json")
    run(plan.path, "apply-on-dask")
    assert tree(here / "new", "part-*") == tree(here / "whole", "part-*")
    assert red(plan) == []


def test_the_page_on_scale_has_the_measured_figures() -> None:
    """docs/scale.md derives hours and cost from results/upgrade.md: both of one measurement, and the sums right."""
    root = Path(__file__).parents[2]
    page, measured = ((root / name).read_text() for name in ("docs/scale.md", "benchmarks/results/upgrade.md"))
    rates = [re.search(rf"\| {what} \| [\d.]+ \| ([\d,]+) \| (\d+)", measured) for what in ("bare loop", "suture.*?")]
    bare, ours = (found.groups() for found in rates if found)
    planning = re.search(r"took ([\d.]+) s", measured)
    assert planning
    for figure in (f"at {ours[0]} rows/s", f"these: {bare[0]})", f"of {ours[1]} MB", f"alone: {planning[1]} s"):
        assert figure in page.replace("\n", " "), figure
    rate = float(ours[0].replace(",", "")) * 384 / 1024 / 100
    hours = 1e9 / 3600 / (100 * round(rate))
    for figure in (f"1e9 / {100 * round(rate):,} / 3,600 = about {hours:.0f}", f"about {hours / 2:.0f} hours"):
        assert figure in page
    assert f"about {hours / 100 * 60:.0f} minutes" in page
    assert f"{hours:.0f} core hours at 0.05 a core hour: about {hours * 0.05:.1f}" in page
    assert f"about {1e9 / 2e6 * float(planning[1]) / 60:.0f} minutes" in page
    assert f"about {2 * 384 * 768 * float(ours[0].replace(',', '')) / 1e9:.0f} GFLOP/s" in page
