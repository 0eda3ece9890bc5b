"""The main job from end to end: fit, inspect, apply, evaluate, invert, compose."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suture.aligners import load
from suture.aligners.fit import candidates
from suture.stitching.dumps import open_dump, open_writer

Run = Callable[..., Any]
METRICS = ("ndcg@10", "recall@1", "recall@10", "mrr", "overlap@10")


def write(path: Path, rows: Any, ids: Any = None) -> Path:
    kind = None if ids is None else "str" if ids.dtype.kind == "U" else "int"
    with open_writer(path, rows.shape[1], rows.dtype, id_kind=kind) as writer:
        for start in range(0, len(rows), 100):
            part = slice(start, start + 100)
            writer.write(rows[part], None if ids is None else ids[part])
    return path


def test_fit_says_what_it_did(auto: dict[str, Any], ab: Path) -> None:
    assert auto["rows"] == 320
    assert (auto["source_dim"], auto["target_dim"]) == (24, 32)
    assert auto["path"] == str(ab)
    assert auto["method"] in {c["method"] for c in auto["candidates"]}
    assert auto["judged_by"] == "kept@3"
    scores = [c["kept@3"]["estimate"] for c in auto["candidates"]]
    assert scores == sorted(scores, reverse=True)
    tried = {c["method"] for c in auto["candidates"]}
    assert tried == {aligner.name for aligner in candidates("affine", 320)}
    assert {"procrustes", "ridge", "rotation-ridge"} <= tried
    table = {s["name"]: s for s in auto["held_out"]["strategies"]}
    assert set(table) == {"map", "identity", "mean", "shuffled"}
    assert table["identity"]["metrics"] is None
    assert "24 and 32" in table["identity"]["reason"]
    for side in ("metrics", "query_side"):
        mapped, shuffled = table["map"][side]["overlap@10"], table["shuffled"][side]["overlap@10"]
        assert mapped["low"] > 5 * shuffled["high"]
        for name in (*METRICS, "recall@5"):
            value = table["map"][side][name]
            assert 0 <= value["low"] <= value["estimate"] <= value["high"] <= 1
    assert table["map"]["metrics"]["r2"]["low"] > 0.5 > 0.05 > abs(table["mean"]["metrics"]["r2"]["estimate"])
    assert [point["pairs"] for point in auto["learning_curve"]][-1] == 320


def test_the_file_holds_what_fit_said(suture: Run, auto: dict[str, Any], ab: Path) -> None:
    found = suture("inspect", ab, "--json").json
    assert found["kind"] == "map"
    for key in ("method", "params", "rows", "source_dim", "target_dim", "held_out", "candidates", "audit"):
        assert found[key] == auto[key]
    assert found["spaces"]["source"] == {**found["spaces"]["source"], "dim": 24, "unit": True, "canaries": 160}
    text = suture("inspect", ab).out
    assert auto["method"] in text
    assert "{" not in text, "a Python dict was printed"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_apply_writes_what_the_loaded_map_gives(
    suture: Run, world: Path, ab: Path, here: Path, rows: Callable[[str], Any], dtype: str
) -> None:
    done = suture("apply", ab, world / "gallery.a.npy", "-o", "mapped.npy", "--dtype", dtype, "--json").json
    assert {k: done[k] for k in ("rows", "dim", "dtype", "path", "normalize")} == {
        "rows": 500,
        "dim": 32,
        "dtype": dtype,
        "path": "mapped.npy",
        "normalize": "l2",
    }
    assert done["seconds"] >= 0
    came = np.load("mapped.npy")
    assert came.dtype == dtype
    expected = load(ab).translate()(rows("gallery.a"))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(came, expected, atol=1e-3 if dtype == "float16" else 1e-6)


def test_apply_normalises_only_as_asked(
    suture: Run, world: Path, ab: Path, here: Path, rows: Callable[[str], Any]
) -> None:
    for policy in ("none", "l2"):
        suture("apply", ab, world / "gallery.a.npy", "-o", f"{policy}.npy", "--normalize", policy)
    bare, ones = np.load("none.npy"), np.load("l2.npy")
    np.testing.assert_allclose(bare, load(ab).translate()(rows("gallery.a")), atol=1e-6)
    assert np.ptp(np.linalg.norm(bare, axis=1)) > 0.01
    np.testing.assert_allclose(np.linalg.norm(ones, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".h5", ".jsonl", ".safetensors"])
def test_the_job_in_every_format(
    suture: Run, here: Path, rows: Callable[[str], Any], ab: Path, suffix: str, world: Path
) -> None:
    ids, gids = rows("ids"), rows("gids")
    shuffle = np.random.default_rng(3).permutation(len(ids))
    holds = suffix in (".parquet", ".h5", ".jsonl")
    for name, array, names in (
        ("old", rows("fit.a"), ids),
        ("new", rows("fit.b")[shuffle], ids[shuffle]),
        ("gallery", rows("gallery.a"), gids),
    ):
        write(here / f"{name}{suffix}", array, names)
    apart = [] if holds else ["--ids", "old.ids.jsonl", "--ids", "new.ids.jsonl"]
    fit = ["fit", f"old{suffix}", f"new{suffix}", "-o", "m.safetensors", *apart, "--method", "procrustes", "--json"]
    fitted = suture(*fit).json
    assert fitted["pairing"]["by"] == "id"
    assert fitted["rows"] == fitted["pairing"]["overlap"] == 320
    assert fitted["audit"]["verdict"] == "clean"
    by_row = here / "by_row.safetensors"
    suture("fit", world / "fit.a.npy", world / "fit.b.npy", "-o", by_row, "--method", "procrustes")
    ours, theirs = (load(path).translate() for path in ("m.safetensors", by_row))
    np.testing.assert_allclose(ours(np.eye(24)), theirs(np.eye(24)), atol=1e-6)

    apart = [] if holds else ["--ids", "gallery.ids.jsonl"]
    done = suture("apply", "m.safetensors", f"gallery{suffix}", "-o", f"mapped{suffix}", *apart, "--json").json
    beside = here / "mapped.ids.jsonl"
    assert done["ids_path"] == (None if holds else "mapped.ids.jsonl")
    mapped = open_dump(done["path"], ids=None if holds else beside)
    assert np.concatenate([*mapped.ids.blocks()]).tolist() == gids.tolist()
    expected = load("m.safetensors").translate()(rows("gallery.a"))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(mapped.gather(np.arange(500)), expected, atol=1e-6)
    described = suture("inspect", f"mapped{suffix}", "--json").json
    assert (described["rows"], described["dim"], described["unit"]) == (500, 32, True)
    assert described["bad_rows"] == {"nan": 0, "infinite": 0, "zero": 0}


def test_keys_columns_and_spaces_in_paths(
    suture: Run, here: Path, rows: Callable[[str], Any], ab: Path, world: Path
) -> None:
    folder = here / "two words"
    folder.mkdir()
    np.savez(folder / "both.npz", old=rows("fit.a"), new=rows("fit.b"), gallery=rows("gallery.a"))
    both = folder / "both.npz"
    out = folder / "a map.safetensors"
    suture("fit", f"{both}::old", f"{both}::new", "-o", out, "--method", "procrustes")
    columns = ("--column", "old", "--column", "new")
    suture("fit", both, both, *columns, "-o", here / "same.safetensors", "--method", "procrustes")
    assert np.array_equal(
        load(out).translate()(rows("query.a")), load(here / "same.safetensors").translate()(rows("query.a"))
    )
    suture("apply", out, f"{both}::gallery", "-o", folder / "mapped rows.npy")
    assert np.load(folder / "mapped rows.npy").shape == (500, 32)


def test_invert_and_compose(
    suture: Run, world: Path, ab: Path, ac: Path, here: Path, rows: Callable[[str], Any]
) -> None:
    done = suture("invert", ac, "-o", "ca.safetensors", "--json").json
    assert done == {"method": "invert", "kind": "affine", "source_dim": 24, "target_dim": 24, "path": "ca.safetensors"}
    there, back = load(ac).translate(), load("ca.safetensors").translate()
    np.testing.assert_allclose(back(there(rows("gallery.a"))), rows("gallery.a"), atol=1e-6)
    # c -> a -> b, applied to rows of c; c -> a ends in the space that a -> b starts from.
    done = suture("compose", "ca.safetensors", ab, "-o", "cb.safetensors", "--json").json
    assert (done["source_dim"], done["target_dim"]) == (24, 32)
    whole = load("cb.safetensors").translate()(rows("gallery.c"))
    np.testing.assert_allclose(whole, load(ab).translate()(back(rows("gallery.c"))), atol=1e-5)
    suture("apply", "cb.safetensors", world / "gallery.c.npy", "-o", "mapped.npy")
    judged = suture(
        *("evaluate", "cb.safetensors", "--queries", world / "query.b.npy", "--gallery", world / "gallery.c.npy"),
        *("--relevant", world / "right.npy", "--json"),
    ).json
    by_name = {s["name"]: s for s in judged["strategies"]}
    assert by_name["map"]["metrics"]["ndcg@10"]["low"] > by_name["shuffled"]["metrics"]["ndcg@10"]["high"]
    assert json.loads(json.dumps(suture("inspect", "cb.safetensors", "--json").json))["method"] == "compose"


def test_target_rows_are_copied(suture: Run, world: Path, ab: Path, here: Path, rows: Callable[[str], Any]) -> None:
    done = suture("apply", ab, world / "gallery.b.npy", "-o", "copy.npy", "--side", "target")
    assert "copied" in done.out
    np.testing.assert_allclose(np.load("copy.npy"), rows("gallery.b"), atol=1e-6)


def test_methods_are_listed(suture: Run) -> None:
    from suture.aligners import ALIGNERS

    listed = suture("methods", "--json").json["methods"]
    assert [m["name"] for m in listed] == list(ALIGNERS)
    assert all(m["summary"] and m["paper"] for m in listed)
    lines = suture("methods").out.splitlines()
    assert len(lines) == len(ALIGNERS) + 1
    assert all(name in line for name, line in zip(ALIGNERS, lines[1:], strict=True))


def test_people_get_tables_and_machines_get_one_object(suture: Run, world: Path, here: Path) -> None:
    fit = ("fit", world / "fit.a.npy", world / "fit.b.npy", "-o")
    text = suture(*fit, "people.safetensors", "--method", "ridge").out
    for word in ("320 pairs by row", "held out", "overlap@10", "±", "people.safetensors"):
        assert word in text
    done = suture(*fit, "machines.safetensors", "--method", "ridge", "--set", "alpha=0.1", "--json")
    assert done.err == ""
    assert done.json["params"]["alpha"] == 0.1


def test_long_paths_stay_in_one_line(suture: Run, world: Path, ab: Path, here: Path) -> None:
    name = "a-name-that-is-longer-than-a-terminal-is-wide-" * 3 + ".npy"
    assert f"-> {name}\n" in suture("apply", ab, world / "gallery.a.npy", "-o", name).out


@pytest.mark.parametrize("words", [("--help",), ("fit", "--help"), ("evaluate", "-h"), ("--version",)])
def test_help(suture: Run, words: tuple[str, ...]) -> None:
    assert "suture" in suture(*words).out


def test_the_installed_command(ab: Path, world: Path, here: Path) -> None:
    """The real process: exit code, both streams, and no output file after a refusal."""
    command = [str(Path(sys.executable).parent / "suture")]
    words = ["apply", str(ab), str(world / "gallery.b.npy"), "-o", "x.npy", "--json"]
    done = subprocess.run(command + words, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("refused: ")
    assert "Traceback" not in done.stderr
    value = json.loads(done.stdout)
    assert value["exit_code"] == 3
    assert value["error"] in done.stderr
    assert list(here.iterdir()) == []
    # Whoever reads the output may stop early, without a message about it.
    piped = subprocess.run(
        ["bash", "-c", f"{command[0]} inspect {ab} --json | head -c 10"], capture_output=True, text=True, check=False
    )
    assert (len(piped.stdout), piped.stderr) == (10, "")
