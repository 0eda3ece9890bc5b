"""What is drawn, and that an estimate from it says what the full truth says."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gallery_worlds import World, unit

from suture.stitching.gallery.sample import pairs_wanted, shares, stratified
from suture.stitching.gallery.split import SHARES, split_of

Suture = Callable[..., Any]


def test_splits_have_their_shares_and_never_change() -> None:
    keys = torch.arange(20_000) * 7_919
    split = split_of(keys)
    for i, share in enumerate(SHARES.values()):
        assert float((split == i).double().mean()) == pytest.approx(share, abs=0.015)
    assert split_of(torch.arange(1, 13)).tolist() == [0, 0, 0, 0, 1, 0, 0, 1, 0, 2, 0, 0]  # as ever


def test_strata_have_their_shares_and_groups_stay_whole() -> None:
    labels = torch.tensor([0] * 600 + [1] * 300 + [2] * 100)
    units = torch.arange(1000) // 5
    drawn = stratified(labels, 3, units, 200, seed=1)
    assert [int(drawn[labels == s].sum()) for s in range(3)] == [120, 60, 20]
    per_unit = torch.zeros(200).index_add_(0, units, drawn.float())
    assert set(per_unit.tolist()) == {0.0, 5.0}
    assert int(shares(torch.tensor([1, 1, 1]), 2).sum()) == 2
    single = stratified(labels, 3, torch.arange(1000), 1000, seed=1)
    assert bool(single.all())


def test_a_sample_lists_what_to_embed(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"item {i}" for i in range(600)))
    words = [
        "gallery",
        "sample",
        tmp_path / "gallery.old.npy",
        "-o",
        tmp_path / "s.jsonl",
        "--pairs",
        100,
        "--pool",
        60,
    ]
    words += ["--texts", texts, "--old-queries", tmp_path / "queries.old.npy", "--price", 2.5]
    said = suture(*words, "--json")
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert said["all"] == len(rows)
    assert said["price"] == pytest.approx(len(rows) * 2.5 / 1000)
    assert said["fit"] + said["tune"] + said["test"] == sum(r["pair"] for r in rows) == 100
    assert all(r["text"] == f"item {r['row']}" for r in rows)
    assert {round(r["chance"], 6) for r in rows} <= {0.0, 0.1, 1.0}
    scores = world.old["queries"] @ world.old["gallery"].T
    today = set(np.argsort(-scores, axis=1)[:, :40].ravel().tolist())
    assert today <= {r["row"] for r in rows if r["chance"] == 1}
    assert said["why"] == {
        "pairs": "as asked for",
        "pool": "as asked for, and the first 50 rows that each old query finds today",
    }
    again = tmp_path / "t.jsonl"
    suture(*[again if w == tmp_path / "s.jsonl" else w for w in words])
    assert again.read_bytes() == (tmp_path / "s.jsonl").read_bytes()
    assert "exists" in suture(*words, code=3)


def test_a_small_gallery_is_told_that_all_of_it_is_too_little() -> None:
    assert pairs_wanted(1_800, 384)[0] == 1_800
    assert pairs_wanted(1_800, 384)[1].startswith("all there are, 3840 would be wanted: 10 for each")
    assert pairs_wanted(5_000, 384)[1].startswith("10 for each")


def test_an_estimate_from_the_sample_agrees_with_the_whole_truth(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path, count=1500, queries=150)
    suture("gallery", "sample", tmp_path / "gallery.old.npy", "-o", tmp_path / "s.jsonl", "--pairs", 0, "--pool", 300)
    rows = [json.loads(line)["row"] for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    np.savez(tmp_path / "pool.npz", x=world.new["gallery"][rows], id=np.array(rows))
    words = world.words(labels=False, pool=False)
    queries = ["--new-queries", tmp_path / "queries.new.npy", "--old-queries", tmp_path / "queries.old.npy"]
    part = suture(*words, *queries, "--pool", tmp_path / "pool.npz", "--sample", tmp_path / "s.jsonl", "--json")
    whole = suture(*words, *queries, "--pool", tmp_path / "gallery.new.npy", "--json")
    assert part["pool_rows"] == 300
    assert part["metric"] == "overlap@25"
    order = [s["name"] for s in part["strategies"] if s["kind"] == "strategy" and s["metrics"]]
    assert {"stay", "map", "dual", "cascade@50"} <= set(order)
    value = {s["name"]: s["metrics"]["overlap@25"]["estimate"] for s in part["strategies"] if s["metrics"]}
    full = {s["name"]: s["metrics"]["overlap@10"]["estimate"] for s in whole["strategies"] if s["metrics"]}
    assert value["shuffled"] < 0.1 < value["stay"]
    assert (value["dual"] > value["stay"]) == (full["dual"] > full["stay"])
    assert "from a pool" in part["evidence"]
    kept = next(s["quantities"]["retention"] for s in part["strategies"] if s["name"] == "dual")
    assert kept["estimate"] == pytest.approx(value["dual"])


def test_a_pool_too_thin_to_judge_by_says_how_many(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path, count=3000, queries=20)
    np.savez(tmp_path / "pool.npz", x=world.new["gallery"][:20], id=np.arange(20))
    words = [*world.words(labels=False, pool=False), "--new-queries", tmp_path / "queries.new.npy"]
    assert "at least 75" in suture(*words, "--pool", tmp_path / "pool.npz", code=2)


def told(found: Any) -> list[str]:
    """The notes but that on what an estimate without labels cannot tell."""
    return [note for note in found["notes"] if not note.startswith("Without labels")]


def test_what_was_sampled_without_ids_is_found_again_by_row(tmp_path: Path, suture: Suture) -> None:
    """The gallery itself as the old rows of the pairs, what was embedded as the new ones: nothing has to be cut out."""
    world = World(tmp_path, count=700)
    gallery, listed, embedded = tmp_path / "gallery.old.npy", tmp_path / "s.jsonl", tmp_path / "embedded.npz"
    said = suture("gallery", "sample", gallery, "-o", listed, "--pairs", 300, "--pool", 200)
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    rows = [line["row"] for line in lines]
    np.savez(embedded, x=world.new["gallery"][rows], id=np.array(rows))
    assert f"--old-pairs {gallery} --new-pairs EMBEDDED" in said
    words = ["gallery", "estimate", "--new-pairs", embedded, "--pool", embedded, "--sample", listed]
    words += ["--method", "procrustes", "--no-variants", "--json"]
    found = suture(*words, "--old-gallery", gallery, "--old-pairs", gallery)
    assert found["pool_rows"] == 200
    pooled = [line["chance"] > 0 for line in lines]
    assert found["queries"] == sum(line["pair"] and line["split"] == "test" for line in lines)
    assert found["pairs"] == sum(line["pair"] and line["split"] != "test" for line in lines)
    assert not any(line["pair"] and line["split"] != "test" and p for line, p in zip(lines, pooled, strict=True))
    assert said.startswith(f"Embed {len(rows)} of 700")
    bare = [word for word in words if word not in ("--sample", listed)]
    flattered = suture(*bare, "--old-gallery", gallery, "--old-pairs", gallery)
    assert "rows of the pool are fitted as pairs too" in flattered["notes"][0]
    assert flattered["pairs"] > found["pairs"]
    named = tmp_path / "named.npz"
    np.savez(named, x=world.old["gallery"], id=np.arange(700))
    again = suture(*words, "--old-gallery", named, "--old-pairs", named)
    assert again["strategies"] == found["strategies"]
    assert not any("pairs too" in note for note in found["notes"])
    queries = ["--new-queries", tmp_path / "queries.new.npy", "--old-queries", tmp_path / "queries.old.npy"]
    page = tmp_path / "page.html"
    same = suture(*words, *queries, "--old-gallery", gallery, "--old-pairs", gallery, "--report", page)
    assert same["size_curve"] == []
    assert "With more rows" not in page.read_text(encoding="utf-8")
    assert "120, without right answers" in page.read_text(encoding="utf-8")
    assert told(same) == []
    assert same["pairs"] == len(rows) - 200
    apart = ["--old-pairs", tmp_path / "pairs.old.npy", "--new-pairs", tmp_path / "pairs.new.npy"]
    assert told(suture(*words, *queries, "--old-gallery", gallery, *apart)) == []


@pytest.mark.parametrize("named", [False, True])
def test_the_next_command_runs_as_it_is_printed(tmp_path: Path, suture: Suture, named: bool) -> None:
    world = World(tmp_path, count=700)
    gallery, listed, embedded = tmp_path / "gallery.old.npy", tmp_path / "s.jsonl", tmp_path / "embedded.npz"
    words: list[object] = ["gallery", "sample", gallery, "-o", listed, "--pairs", 200, "--pool", 200]
    names = np.array([f"item {i}" for i in range(700)])
    (tmp_path / "ids.txt").write_text("\n".join(names))
    said = suture(*words, *(["--ids", tmp_path / "ids.txt"] if named else []))
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    np.savez(embedded, x=world.new["gallery"][[x["row"] for x in lines]], id=np.array([x["id"] for x in lines]))
    command = shlex.split(said.split("`")[1].replace("EMBEDDED", str(embedded)))
    found = suture(*command[1:], "--method", "procrustes", "--no-variants", "--json")
    assert found["pairs"] == sum(x["pair"] and x["split"] != "test" for x in lines)
    assert told(found) == []


def test_maps_are_not_flattered_by_rows_that_they_were_fitted_on(tmp_path: Path, suture: Suture) -> None:
    """Two encoders that have nothing in common: what a map finds of unseen rows is chance, of fitted ones it is not."""
    draw = np.random.default_rng(1)
    old, new = (unit(draw.normal(size=(500, 96))) for _ in range(2))
    listed, embedded = tmp_path / "s.jsonl", tmp_path / "embedded.npz"
    gallery = tmp_path / "gallery.npy"
    np.save(gallery, old)
    suture("gallery", "sample", gallery, "-o", listed, "--pairs", 230, "--pool", 250)
    rows = [json.loads(line)["row"] for line in listed.read_text().splitlines()]
    np.savez(embedded, x=new[rows], id=np.array(rows))
    words = ["gallery", "estimate", "--old-gallery", gallery, "--old-pairs", gallery, "--new-pairs", embedded]
    words += ["--pool", embedded, "--method", "procrustes", "--no-variants", "--json"]

    def overlap(found: Any) -> float:
        row = next(s for s in found["strategies"] if s["name"] == "map")
        return float(row["metrics"][found["metric"]]["estimate"])

    assert overlap(suture(*words)) > 4 * 10 / 500
    assert overlap(suture(*words, "--sample", listed)) < 1.5 * 10 / 500


def test_a_sample_that_makes_no_estimate_prints_no_command(tmp_path: Path, suture: Suture) -> None:
    World(tmp_path)
    np.save(tmp_path / "three.npy", np.eye(24, dtype=np.float32)[:3])
    none = suture("gallery", "sample", tmp_path / "gallery.old.npy", "-o", tmp_path / "a.jsonl", "--pairs", 0)
    assert "`" not in none
    assert "0 pairs outside the pool are left to fit on, at least 20" in none
    tiny = suture("gallery", "sample", tmp_path / "three.npy", "-o", tmp_path / "b.jsonl")
    assert "`" not in tiny
    assert "fewer than 11 rows" in tiny


def test_queries_that_are_pairs_are_told(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    for side in (world.old, world.new):
        side["pairs"][:30] = side["queries"][:30]
    world.write()
    assert "30 of the 120 queries are pairs too" in suture(*world.words(), "--no-variants", "--json")["notes"][0]
    words = world.words(pool=False)
    for part, ids in (("pairs", np.arange(400)), ("queries", np.arange(120))):
        for side, rows in (("old", world.old[part]), ("new", world.new[part])):
            path = tmp_path / f"{part}.{side}.npz"
            np.savez(path, x=rows + np.float32(1e-6), id=ids)
            words = [path if w == path.with_suffix(".npy") else w for w in words]
    # Numbers from 0 on are equal for all, the items only for 30.
    assert "30 of the 120 queries are pairs too" in suture(*words, "--no-variants", "--json")["notes"][0]
