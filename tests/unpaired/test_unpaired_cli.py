"""`suture fit --unpaired`, `suture fit --seeds` and `suture match`: what they write, say and refuse."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result
from unpaired_worlds import cloud, disjoint, permuted

from suture.aligners import load
from suture.cli.main import app

WORLD = Path


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


def answer(*args: object) -> dict[str, Any]:
    done = run(*args, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dumps with ids that share 20 items of 800, the seeds, and the same rows shuffled."""
    folder = tmp_path_factory.mktemp("unpaired")
    x, y, held_x, held_y = disjoint(800, 24, 20, noise=0.05)
    np.save(folder / "a.npy", x.float().numpy())
    np.save(folder / "b.npy", y.float().numpy())
    (folder / "a.txt").write_text("".join(f"a{i}\n" for i in range(len(x))))
    (folder / "b.txt").write_text("".join(f"b{i}\n" for i in range(len(y))))
    np.save(folder / "held_a.npy", held_x.float().numpy())
    np.save(folder / "held_b.npy", held_y.float().numpy())
    rows = [f"a{i},b{i}" for i in range(20)]
    (folder / "seeds.csv").write_text("\n".join(["source,target", *rows]) + "\n")
    (folder / "rows.csv").write_text("\n".join(["source,target", *(f"{i},{i}" for i in range(20))]) + "\n")
    left, right, order = permuted(300, 16)
    np.save(folder / "left.npy", left.float().numpy())
    np.save(folder / "right.npy", right.float().numpy())
    np.save(folder / "order.npy", order.numpy())
    np.save(folder / "other.npy", cloud(300, 16, seed=9).float().numpy())
    return folder


@pytest.fixture(scope="module")
def seeded(world: Path) -> Path:
    out = world / "seeded.safetensors"
    ids = ("--ids", world / "a.txt", "--ids", world / "b.txt")
    found = answer("fit", world / "a.npy", world / "b.npy", "--seeds", world / "seeds.csv", *ids, "-o", out)
    assert found["method"] == "seeded"
    assert found["rows"] == 20
    assert found["seeds_found"] > 0.9
    assert found["held_out"] is None
    assert "no pairs" in found["held_out_reason"]
    return out


def test_seeds_by_row_number_give_the_map_that_seeds_by_id_give(world: Path, seeded: Path) -> None:
    out = world / "rows.safetensors"
    answer("fit", world / "a.npy", world / "b.npy", "--seeds", world / "rows.csv", "-o", out)
    one, other = (load(path).translate().tensors()["weight"] for path in (seeded, out))
    assert torch.equal(one, other)


def test_match_with_a_map_finds_the_mates(world: Path, seeded: Path) -> None:
    for suffix in (".csv", ".jsonl", ".parquet"):
        out = world / f"pairs{suffix}"
        found = answer("match", world / "held_a.npy", world / "held_b.npy", "--map", seeded, "-o", out)
        rows = read(out)
        assert found["rows"] == len(rows) == 300
        assert [int(row["source"]) for row in rows] == list(range(300))
        assert sum(int(row["source"]) == int(row["target"]) for row in rows) > 285
        assert all(float(row["confidence"]) >= 0 for row in rows)
        assert 0.9 < found["mutual"] <= 1


def test_one_to_one_uses_every_target_once(world: Path, seeded: Path) -> None:
    out = world / "one.csv"
    answer("match", world / "held_a.npy", world / "held_b.npy", "--map", seeded, "--one-to-one", "-o", out)
    rows = read(out)
    assert len({row["target"] for row in rows}) == len(rows) == 300
    assert sum(row["source"] == row["target"] for row in rows) > 285


def test_a_plan_leaves_rows_without_a_mate_alone(world: Path, seeded: Path) -> None:
    """Of 300 rows 240 have their mate among the targets; 60 targets are others'."""
    others = np.load(world / "b.npy")[700:760]
    np.save(world / "some_b.npy", np.concatenate([np.load(world / "held_b.npy")[:240], others]))
    out = world / "plan.csv"
    words = ("match", world / "held_a.npy", world / "some_b.npy", "--map", seeded, "-o", out, "--overwrite")
    matched = {}
    for how in ((), ("--share", 0.8), ("--rho", 0.2)):
        found = answer(*words, "--by", "transport", *how)
        rows = read(out)
        matched[how] = {int(row["source"]) for row in rows}
        right = sum(row["source"] == row["target"] for row in rows)
        assert found["rows"] == len(rows)
        assert (found["by"], found["method"]) == ("transport", "seeded")
        assert found["spread"] >= 1
        assert right > 220
    assert matched[()] == set(range(300))  # balanced: everybody has a mate
    for how in (("--share", 0.8), ("--rho", 0.2)):
        alone = set(range(300)) - matched[how]
        assert len(alone) >= 20
        assert sum(row >= 240 for row in alone) > 0.7 * len(alone)


def test_known_pairs_alone_match_by_local_cka(world: Path) -> None:
    out = world / "cka.csv"
    x, y, _, _ = disjoint(800, 24, 20, noise=0.05)
    np.save(world / "seen_a.npy", x[:20].float().numpy())
    np.save(world / "seen_b.npy", y[:20].float().numpy())
    for side in "ab":
        rows = [np.load(world / f"{part}_{side}.npy") for part in ("seen", "held")]
        np.save(world / f"cka_{side}.npy", np.concatenate(rows))
    words = ("match", world / "cka_a.npy", world / "cka_b.npy", "--seeds", world / "rows.csv", "-o", out)
    found = answer(*words, "--by", "local-cka")
    rows = read(out)
    assert (found["method"], found["known"], found["rows"]) == ("local-cka", 20, 320)
    assert sum(row["source"] == row["target"] for row in rows[20:]) > 10 * 300 / 320  # ten times chance, of 20 pairs
    assert all(row["source"] == row["target"] for row in rows[:20])


def test_what_belongs_to_other_ways_of_matching_is_refused(world: Path, seeded: Path) -> None:
    words = ("match", world / "held_a.npy", world / "held_b.npy", "-o", world / "no.csv")
    for more, said in (
        (("--map", seeded, "--share", 0.5), "of --by transport"),
        (("--map", seeded, "--by", "transport", "--share", 0.5, "--rho", 1), "one of the two"),
        (("--map", seeded, "--by", "cosine"), "expected one of csls"),
        (("--by", "local-cka"), "needs --seeds"),
    ):
        done = run(*words, *more)
        assert done.exit_code == 2
        assert said in " ".join(done.output.split())
    assert not (world / "no.csv").exists()


def test_match_by_seeds_keeps_them_and_names_ids(world: Path) -> None:
    out = world / "by_seeds.csv"
    ids = ("--ids", world / "a.txt", "--ids", world / "b.txt")
    for more in ((), ("--one-to-one", "--overwrite")):
        found = answer(
            *("match", world / "a.npy", world / "b.npy", "--seeds", world / "seeds.csv", *ids, "-o", out, *more)
        )
        assert found["known"] == 20
        kept = {row["source"]: row for row in read(out)}
        assert all(kept[f"a{i}"]["target"] == f"b{i}" for i in range(20))
        assert all(float(kept[f"a{i}"]["confidence"]) == 1 for i in range(20))


def test_unpaired_fit_and_match_find_a_permutation(world: Path) -> None:
    out, pairs = world / "unpaired.safetensors", world / "unpaired.csv"
    found = answer("fit", world / "left.npy", world / "right.npy", "--unpaired", "-o", out)
    assert (found["method"], found["rows"], found["unpaired_rows"]) == ("vecmap", 0, [300, 300])
    assert found["mutual_neighbours"] > 0.95
    answer("match", world / "left.npy", world / "right.npy", "-o", pairs)
    order = np.load(world / "order.npy")
    assert np.mean([order[int(row["target"])] == int(row["source"]) for row in read(pairs)]) > 0.95
    done = run("fit", world / "left.npy", world / "right.npy", "--unpaired", "-o", out, "--overwrite")
    assert "Evidence: 100% of rows are mutual" in done.stdout


def test_unrelated_dumps_are_refused_and_nothing_is_written(world: Path) -> None:
    out = world / "refused.safetensors"
    done = run("fit", world / "left.npy", world / "other.npy", "--unpaired", "-o", out, "--method", "vecmap")
    assert done.exit_code == 3
    assert "could not be aligned" in done.output
    assert not out.exists()


def write(folder: Path, *lines: str) -> Path:
    path = folder / "bad.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("lines", "code", "words"),
    [
        (("source,target", "0,0", "1,1"), 3, "at least 5 seed pairs, got 2"),
        (("source,target", *(f"{i},{i}" for i in range(9)), "3,12"), 3, "more than once"),
        (("source,target", *(f"{i},{i}" for i in range(9)), "9000,12"), 3, "9000"),
        (("source,target", "a1,b1"), 3, "Write them the same way"),
        (("left,right", "0,0"), 1, "source"),
    ],
)
def test_bad_seed_files_are_refused(world: Path, tmp_path: Path, lines: tuple[str, ...], code: int, words: str) -> None:
    seeds = write(tmp_path, *lines)
    for command, out in (("fit", "m.safetensors"), ("match", "m.csv")):
        done = run(command, world / "a.npy", world / "b.npy", "--seeds", seeds, "-o", tmp_path / out)
        assert done.exit_code == code, done.output
        assert words in " ".join(done.output.split())
        assert not (tmp_path / out).exists()


def test_options_that_do_not_go_together(world: Path, seeded: Path, tmp_path: Path) -> None:
    a, b = world / "a.npy", world / "b.npy"
    out = tmp_path / "m.safetensors"
    for args, words in (
        (("fit", a, b, "--unpaired", "--by-row", "-o", out), "go without"),
        (("fit", a, b, "--unpaired", "--method", "ridge", "-o", out), "fitted on pairs"),
        (("fit", a, b, "--by-row", "--method", "vecmap", "-o", out), "--unpaired"),
        (("match", a, b, "-o", tmp_path / "m.txt"), ".csv, .jsonl, .parquet"),
        (("match", a, b, "--map", seeded, "--seeds", world / "rows.csv", "-o", tmp_path / "m.csv"), "--map"),
    ):
        done = run(*args)
        assert done.exit_code == 2, done.output
        assert words in " ".join(done.output.split())
    assert not list(tmp_path.iterdir())


def test_bad_rows_are_refused_or_skipped(world: Path, seeded: Path, tmp_path: Path) -> None:
    rows = np.load(world / "held_a.npy")
    rows[7] = np.nan
    np.save(tmp_path / "bad.npy", rows)
    args = ("match", tmp_path / "bad.npy", world / "held_b.npy", "--map", seeded, "-o", tmp_path / "m.csv")
    assert run(*args).exit_code == 3
    found = answer(*args, "--bad-rows", "skip")
    assert found["rows"] == 299
    assert "7" not in {row["source"] for row in read(tmp_path / "m.csv")}


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found
