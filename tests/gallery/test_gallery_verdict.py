"""Verdicts on worlds whose answer is known, and the refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery_worlds import World, unit

from suture.stitching.gallery.costs import cost

Suture = Callable[..., Any]


def by_name(result: dict[str, Any]) -> dict[str, Any]:
    return {s["name"]: s for s in result["strategies"]}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, suture: Suture) -> dict[str, Any]:
    world = World(tmp_path_factory.mktemp("world"), count=3000, queries=100, old_noise=0.35)
    found = suture(*world.words(), "--json")
    assert isinstance(found, dict)
    return found


def test_a_better_model_is_worth_a_cascade(result: dict[str, Any]) -> None:
    assert result["verdict"] == "cascade"
    table = by_name(result)
    assert table["re-embed"]["difference"]["ndcg@10"]["low"] > 0
    assert table[result["strategy"]]["metrics"]["ndcg@10"]["estimate"] >= 0.95 * max(
        s["metrics"]["ndcg@10"]["estimate"] for s in result["strategies"] if s["metrics"]
    )
    assert table["re-embed"]["quantities"]["retention"] == {"estimate": 1.0, "low": 1.0, "high": 1.0}
    assert table["re-embed"]["quantities"]["update_gain"]["estimate"] == pytest.approx(1.0)


def test_nulls_score_at_chance(result: dict[str, Any]) -> None:
    for name in ("shuffled", "random"):
        assert by_name(result)[name]["metrics"]["ndcg@10"]["estimate"] < 0.05


def test_costs_say_what_is_embedded_and_written(result: dict[str, Any]) -> None:
    table = by_name(result)
    assert table["stay"]["cost"]["rows_written"] == table["dual"]["cost"]["rows_written"] == 0
    assert table["map"]["cost"]["bytes_written"] == 3000 * 32 * 4
    assert table["re-embed"]["cost"]["gallery_embeddings"] == 3000
    assert table["backfill@25"]["cost"]["gallery_embeddings"] == 750
    assert cost("dual-concat", 10, 3, 5, 2)["bytes_written"] == 160


@pytest.mark.parametrize(
    ("strategy", "base", "rows", "numbers", "encoders"),
    [
        ("cascade@10", "bridge", 0, 0, ["new"]),
        ("cascade@10", "stay", 0, 0, ["old", "new"]),
        ("cascade@10", "dual", 0, 0, ["old", "new"]),
        ("cascade@10", "map", 100, 100 * 5, ["new"]),
        ("cascade@10", "dual-concat", 100, 100 * 8, ["old", "new"]),
        ("backfill@10", "bridge", 10, 10 * 5, ["new"]),
        ("backfill@10", "dual", 10, 10 * 5, ["old", "new"]),
        ("backfill@10", "dual-concat", 100, 10 * 5 + 90 * 8, ["old", "new"]),
        ("backfill@10", "expanded", 100, 100 * 5, ["new"]),
    ],
)
def test_costs_hold_what_recalls_and_what_serves_the_rest(
    strategy: str, base: str, rows: int, numbers: int, encoders: list[str]
) -> None:
    found = cost(strategy, 100, 3, 5, 2, base=base, distinct=10, price=1000.0)
    assert (found["rows_written"], found["bytes_written"]) == (rows, 2 * numbers)
    assert found["query_encoders"] == encoders
    assert found["price"] == 10 * 1000 / 1000


def test_what_recalls_and_what_fills_up_is_told(result: dict[str, Any]) -> None:
    assert f"rows by {result['recall_by']}, re-embed those" in result["conclusion"]
    assert "These 100 queries recalled" in result["conclusion"]
    assert "of 3,000 rows" in result["conclusion"]
    table = by_name(result)
    assert table["cascade@50"]["cost"]["query_encoders"] == (
        ["new"] if result["recall_by"] in ("bridge", "map") else ["old", "new"]
    )
    assert set(result["backfill_by"]) == {"order", "base"}


def test_flips_add_up_to_the_change_of_hits(result: dict[str, Any]) -> None:
    table = by_name(result)
    q, d = table["map"]["quantities"], table["map"]["difference"]
    net = q["positive_flips"]["estimate"] - q["negative_flips"]["estimate"]
    assert net == pytest.approx(d["recall@10"]["estimate"])


def test_thresholds_keep_their_share(result: dict[str, Any]) -> None:
    assert result["thresholds"]
    for row in result["thresholds"]:
        assert 0 < row["passes"] < 1
        assert set(row["new"]) >= {"map", "dual", "re-embed"}
        assert all(v["low"] <= v["estimate"] <= v["high"] for v in row["new"].values())


def test_the_same_model_again_is_no_reason_to_move(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    world.new = world.old
    world.write()
    found = suture(*world.words(), "--json")
    assert found["verdict"] == "stay"
    assert "finds the same" in found["conclusion"]


def test_a_rotated_copy_is_no_reason_to_move_but_costs_nothing(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(24, 24)))[0].astype(np.float32)
    world.new = {part: unit(rows @ turn) for part, rows in world.old.items()}
    world.write()
    found = suture(*world.words(), "--json")
    assert found["verdict"] == "stay"
    assert by_name(found)["map"]["quantities"]["retention"]["low"] > 0.99


def test_a_worse_model_is_left_alone(tmp_path: Path, suture: Suture) -> None:
    found = suture(*World(tmp_path, old_noise=0.2, new_noise=0.9).words(), "--json")
    assert found["verdict"] == "stay"
    assert by_name(found)["re-embed"]["quantities"]["update_gain"] is None


def test_another_model_of_the_same_width_is_mapped_not_mixed_up(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    world.new = {part: rows[:, :24] / np.linalg.norm(rows[:, :24], axis=1)[:, None] for part, rows in world.new.items()}
    world.write()
    table = by_name(suture(*world.words(), "--json"))
    assert table["map"]["metrics"]["ndcg@10"]["estimate"] > 10 * table["random"]["metrics"]["ndcg@10"]["estimate"]
    old, new = tmp_path / "queries.old.npy", tmp_path / "queries.new.npy"
    swapped = [{old: new, new: old}.get(w, w) if isinstance(w, Path) else w for w in world.words()]
    said = suture(*swapped, code=3)
    assert "expected rows of the new encoder, as in --new-pairs" in said
    assert "source" not in said
    pairs = {
        tmp_path / "pairs.old.npy": tmp_path / "pairs.new.npy",
        tmp_path / "pairs.new.npy": tmp_path / "pairs.old.npy",
    }
    said = suture(*[pairs.get(w, w) for w in world.words()], code=3)
    assert "gallery.old.npy: expected rows of the old encoder, as in --old-pairs" in said
    pool = [tmp_path / "gallery.old.npy" if w == tmp_path / "gallery.new.npy" else w for w in world.words()]
    assert "the pool" in suture(*pool, code=3)


def test_shuffled_pairs_mean_stay(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    world.new["pairs"] = world.new["pairs"][np.random.default_rng(0).permutation(world.pairs)]
    world.write()
    found = suture(*world.words(), "--json")
    assert found["verdict"] == "stay"
    assert "unrelated" in found["conclusion"]
    assert by_name(found)["map"]["metrics"]["ndcg@10"]["estimate"] < 0.05


def test_some_wrong_pairs_are_told(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path, old_noise=0.05, new_noise=0.05)
    rows = np.arange(world.pairs)
    rows[:40] = np.roll(rows[:40], 1)
    world.new["pairs"] = world.new["pairs"][rows]
    world.write()
    assert "look like wrong pairs" in suture(*world.words(), "--json")["notes"][0]


def test_bad_rows_and_a_wrong_suffix_name_options_that_are_there(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    words = world.words()
    assert "--save: expected a .safetensors file" in suture(*words, "--save", tmp_path / "x.npy", code=2)
    for side, part in (("old", "gallery"), ("new", "gallery")):
        spoilt = {"old": world.old, "new": world.new}[side][part].copy()
        spoilt[7] = np.nan
        np.save(tmp_path / "spoilt.npy", spoilt)
        dump = tmp_path / f"{part}.{side}.npy"
        said = suture(*[tmp_path / "spoilt.npy" if w == dump else w for w in words], code=3)
        assert "row 7" in said
        assert "drop these rows; a command that has the option" in said


def test_a_tiny_gallery_is_refused(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path, count=3, queries=3)
    assert "at least 11 rows" in suture(*world.words(), code=3)


def test_queries_without_an_answer_do_not_count_and_none_at_all_is_refused(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    world.right[: world.queries // 2] = -1
    world.write()
    assert suture(*world.words(), "--json")["queries_with_answers"] == world.queries // 2
    world.right[:] = -1
    world.write()
    said = suture(*world.words(), code=3)
    assert "at least one query with a right answer" in said
    assert "leave --relevant out" in said


@pytest.mark.parametrize(("part", "side"), [("gallery", "old"), ("gallery", "new"), ("pairs", "new")])
def test_an_id_that_is_there_twice_is_refused(tmp_path: Path, suture: Suture, part: str, side: str) -> None:
    world = World(tmp_path)
    words = world.words()
    for each in ("gallery", "pairs", "queries"):
        for encoder, sides in (("old", world.old), ("new", world.new)):
            ids = np.arange(len(sides[each]))
            if (each, encoder) == (part, side):
                ids[7] = ids[3]
            path = tmp_path / f"{each}.{encoder}.npz"
            np.savez(path, x=sides[each], id=ids)
            words = [path if w == path.with_suffix(".npy") else w for w in words]
    said = suture(*words, code=3)
    assert f"{part}.{side}.npz" in said
    assert "3" in said


def test_without_the_old_model_there_is_no_staying(tmp_path: Path, suture: Suture) -> None:
    found = suture(*World(tmp_path).words(old=False, pool=False), "--json")
    assert found["verdict"] in ("bridge", "map")
    table = by_name(found)
    for name in ("stay", "dual", "dual-concat"):
        assert table[name]["metrics"] is None
        assert "--old-queries" in table[name]["reason"]
    assert "--pool" in table["re-embed"]["reason"]


def test_pairs_alone_are_judged_by_the_new_models_neighbours(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    found = suture(*world.words(labels=False), "--json")
    assert found["metric"] == "overlap@10"
    assert "held-out pairs as queries" in found["evidence"]
    assert by_name(found)["re-embed"]["metrics"]["overlap@10"]["estimate"] == 1
    assert found["pairs"] + found["queries"] == world.pairs
    alone = suture(*world.words(labels=False, pool=False), "--json")
    assert alone["verdict"] == "undecided"
    assert alone["scope"] == "held-out pairs"
    assert "not on yours of 600 rows" in alone["notes"][0]


def test_a_pool_by_row_number_serves_a_gallery_without_ids(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    rows = np.sort(np.random.default_rng(0).permutation(600)[:300])
    np.savez(tmp_path / "pool.npz", x=world.new["gallery"][rows], id=rows)
    words = [*world.words(labels=False, pool=False), "--pool", tmp_path / "pool.npz", "--json"]
    found = suture(*words)
    assert found["pool_rows"] == 300
    table = by_name(found)
    assert table["re-embed"]["metrics"] is None
    full = by_name(suture(*world.words(labels=False), "--json"))
    for name in ("stay", "map", "dual"):
        come = table[name]["metrics"]["overlap@10"]["estimate"]
        assert come == pytest.approx(full[name]["metrics"]["overlap@10"]["estimate"], abs=0.06)


def test_labels_with_a_thin_pool_add_what_the_pool_knows(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    np.savez(tmp_path / "pool.npz", x=world.new["gallery"][::3], id=np.arange(600)[::3])
    found = suture(*world.words(pool=False), "--pool", tmp_path / "pool.npz", "--report", tmp_path / "r.html", "--json")
    table = by_name(found)
    assert found["metric"] == "ndcg@10"
    assert table["map"]["metrics"]["overlap@15"]["estimate"] > 0
    assert table["cascade@50"]["metrics"]["ndcg@10"] is None
    assert table["cascade@50"]["metrics"]["overlap@15"]["estimate"] > table["map"]["metrics"]["overlap@15"]["estimate"]
    assert table["re-embed"]["metrics"] is None
    assert found["verdict"] in ("bridge", "dual", "map")


def test_a_map_that_bends_has_no_single_query_vector(tmp_path: Path, suture: Suture) -> None:
    words = [*World(tmp_path).words(), "--json"]
    words[words.index("procrustes")] = "landmark"
    table = by_name(suture(*words))
    assert "affine" in table["dual"]["reason"]
    assert table["dual-concat"]["metrics"]["ndcg@10"]["estimate"] > table["stay"]["metrics"]["ndcg@10"]["estimate"]


def test_slices_find_where_it_is_worse(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    bad = np.arange(world.queries) % 4 == 0
    world.new["queries"][bad] = unit(np.random.default_rng(2).normal(size=(int(bad.sum()), 32)))
    world.write()
    lines = "\n".join(["kind", *("bad" if b else "good" for b in bad)])
    (tmp_path / "kinds.csv").write_text(lines)
    found = suture(*world.words(), "--segments", tmp_path / "kinds.csv", "--json")
    kinds = [s for s in found["slices"] if s["column"] == "kind"]
    assert [s["slice"] for s in kinds] == ["bad", "good"]
    assert kinds[0]["queries"] == 30
    assert kinds[0]["difference"]["high"] < kinds[1]["difference"]["low"]
    assert kinds[0]["difference"]["estimate"] <= kinds[0]["shrunken"]


def test_groups_widen_the_intervals(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    for part in ("queries",):
        for sides in (world.old, world.new):
            sides[part] = np.repeat(sides[part][:12], 10, axis=0)
    world.right = np.repeat(world.right[:12], 10)
    world.write()
    (tmp_path / "groups.txt").write_text("\n".join(str(i // 10) for i in range(120)))
    plain, grouped = (
        by_name(suture(*world.words(), *more, "--json"))["stay"]["metrics"]["ndcg@10"]
        for more in ((), ("--groups", tmp_path / "groups.txt"))
    )
    assert grouped["high"] - grouped["low"] > 2 * (plain["high"] - plain["low"])


def test_smaller_rows_of_a_large_gallery_are_measured_where_they_are_asked_for(
    tmp_path: Path, suture: Suture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("suture.stitching.gallery.estimate.FEW", 500)
    words = World(tmp_path).words(pool=False)
    found = suture(*words, "--json")
    assert all(s["kind"] != "variant" for s in found["strategies"])
    assert "up to 500 rows, or by --variants" in found["notes"][-1]
    asked = suture(*words, "--variants", "--json")
    assert "map int8" in by_name(asked)
    assert asked["notes"] == []
