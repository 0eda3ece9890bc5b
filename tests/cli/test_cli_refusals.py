"""What is refused, with which exit code, in which words; and that a refusal leaves nothing behind."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from suture.aligners import Alignment, load, save_alignment

Fails = Callable[..., str]
Rows = Callable[[str], Any]
QUICK = ("--method", "procrustes")


def malformed(folder: Path) -> Iterator[tuple[str, str]]:
    """Files that are no dump, and what the message must say of each."""
    arrays = {
        "one": (np.ones(5, np.float32), "(5)|one-dim|1-D|2-D|shape"),
        "three": (np.ones((5, 4, 3), np.float32), "(5, 4, 3)|2-D|shape"),
        "empty": (np.ones((0, 24), np.float32), "(0, 24)|at least one row"),
        "zerowidth": (np.ones((5, 0), np.float32), "(5, 0)|at least one"),
        "complex": (np.ones((5, 24), np.complex64), "complex64"),
        "text": (np.full((5, 24), "a"), "<U1"),
        "bool": (np.ones((5, 24), bool), "bool"),
        "object": (np.full((5, 24), None), "object"),
    }
    for name, (array, words) in arrays.items():
        np.save(folder / f"{name}.npy", array)
        yield f"{name}.npy", words
    (folder / "garbage.npy").write_bytes(b"garbage" * 100)
    yield "garbage.npy", "garbage.npy"
    (folder / "void.npy").write_bytes(b"")
    yield "void.npy", "void.npy"
    (folder / "garbage.parquet").write_bytes(b"garbage" * 100)
    yield "garbage.parquet", "garbage.parquet"
    (folder / "notes.docx").write_text("hello")
    yield "notes.docx", "suffix"
    yield "missing.npy", "there is none"
    (folder / "nothing").mkdir()
    yield "nothing", "nothing"
    with h5py.File(folder / "groups.h5", "w") as file:
        file["a"] = np.ones((5, 4, 3))
    yield "groups.h5", "2-D"


COMMANDS: dict[str, Callable[[Path, Path, Any], list[object]]] = {
    "fit source": lambda w, ab, bad: ["fit", bad, w / "fit.b.npy", "-o", "x.safetensors"],
    "fit target": lambda w, ab, bad: ["fit", w / "fit.a.npy", bad, "-o", "x.safetensors"],
    "fit queries": lambda w, ab, bad: [
        *("fit", w / "fit.a.npy", w / "fit.b.npy", "-o", "x.safetensors", "--queries", bad),
        *("--gallery", w / "gallery.a.npy", "--relevant", w / "right.npy"),
    ],
    "fit gallery": lambda w, ab, bad: [
        *("fit", w / "fit.a.npy", w / "fit.b.npy", "-o", "x.safetensors", "--queries", w / "query.b.npy"),
        *("--gallery", bad, "--relevant", w / "right.npy"),
    ],
    "apply": lambda w, ab, bad: ["apply", ab, bad, "-o", "x.npy"],
    "evaluate queries": lambda w, ab, bad: [
        *("evaluate", ab, "--queries", bad, "--gallery", w / "gallery.a.npy", "--relevant", w / "right.npy")
    ],
    "evaluate gallery": lambda w, ab, bad: [
        *("evaluate", ab, "--queries", w / "query.b.npy", "--gallery", bad, "--relevant", w / "right.npy")
    ],
    "evaluate source queries": lambda w, ab, bad: [
        *("evaluate", ab, "--queries", w / "query.b.npy", "--gallery", w / "gallery.a.npy"),
        *("--relevant", w / "right.npy", "--source-queries", bad),
    ],
    "evaluate target gallery": lambda w, ab, bad: [
        *("evaluate", ab, "--queries", w / "query.b.npy", "--gallery", w / "gallery.a.npy", "--target-gallery", bad)
    ],
    "inspect": lambda w, ab, bad: ["inspect", bad],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_dump_is_an_error_everywhere(fails: Fails, world: Path, ab: Path, here: Path, command: str) -> None:
    for name, words in [*malformed(here)]:
        said = fails(1, *COMMANDS[command](world, ab, here / name))
        assert any(word in said for word in words.split("|")), f"{name}: {said}"
        assert said.startswith("error: ")
        assert len(said) < 700


@pytest.mark.parametrize("command", COMMANDS)
def test_ragged_rows_are_found_while_reading(
    fails: Fails, world: Path, ab: Path, here: Path, rows: Rows, command: str
) -> None:
    part = command.split()[-1].replace("queries", "query").replace("source", "fit").replace("inspect", "fit")
    side = "b" if command in ("fit target", "fit queries", "evaluate queries", "evaluate target gallery") else "a"
    good = rows(f"{part if part in ('query', 'gallery') else 'fit'}.{side}").tolist()
    lines = [*good[:-1], good[-1][:-1]]
    (here / "ragged.jsonl").write_text("".join(json.dumps({"embedding": r}) + "\n" for r in lines))
    said = fails(1, *COMMANDS[command](world, ab, here / "ragged.jsonl"))
    assert f"{len(good[0])}" in said
    assert f"{len(good[0]) - 1}" in said


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "inspect"])
def test_a_map_is_no_dump(fails: Fails, world: Path, ab: Path, command: str) -> None:
    assert "this is a map" in fails(1, *COMMANDS[command](world, ab, ab))


def test_a_map_without_canaries_is_no_dump(fails: Fails, world: Path, ab: Path, here: Path) -> None:
    """Its weight is the only matrix in the file, and would be read as rows."""
    save_alignment(Alignment.one_sided(load(ab).translate()), "bare.safetensors")
    assert "this is a map" in fails(1, "apply", ab, "bare.safetensors", "-o", "x.npy")


def test_a_dump_is_no_map(fails: Fails, world: Path, here: Path) -> None:
    for words in (
        ("apply", world / "gallery.a.npy", world / "gallery.a.npy", "-o", "x.npy"),
        ("evaluate", world / "gallery.a.npy", "--queries", world / "query.b.npy", "--gallery", world / "gallery.a.npy"),
        ("invert", world / "gallery.a.npy", "-o", "x.safetensors"),
        ("compose", world / "gallery.a.npy", world / "gallery.a.npy", "-o", "x.safetensors"),
    ):
        assert "expected a map file" in fails(1, *words)


def test_the_wrong_side_by_its_width(fails: Fails, world: Path, ab: Path) -> None:
    said = fails(3, "apply", ab, world / "gallery.b.npy", "-o", "x.npy")
    assert said.startswith("refused: ")
    assert "24" in said
    assert "32" in said
    assert "target side" in said
    for command, bad in (
        ("evaluate queries", "query.a"),
        ("evaluate gallery", "gallery.b"),
        ("evaluate source queries", "query.b"),
        ("evaluate target gallery", "gallery.a"),
        ("fit queries", "query.a"),
        ("fit gallery", "gallery.b"),
    ):
        said = fails(3, *COMMANDS[command](world, ab, world / f"{bad}.npy"))
        assert "24" in said, command
        assert "32" in said, command


def test_the_wrong_side_of_the_same_width(fails: Fails, world: Path, ac: Path) -> None:
    said = fails(3, "apply", ac, world / "gallery.c.npy", "-o", "x.npy")
    assert "look like rows of the target space" in said
    assert "expected source rows" in said
    said = fails(3, "apply", ac, world / "gallery.a.npy", "-o", "x.npy", "--side", "target")
    assert "look like rows of the source space" in said
    for command, bad in (
        ("evaluate queries", "query.a"),
        ("evaluate gallery", "gallery.c"),
        ("evaluate source queries", "query.c"),
        ("evaluate target gallery", "gallery.a"),
    ):
        words = [
            world / str(w.name).replace(".b.", ".c.") if isinstance(w, Path) and ".b." in w.name else w
            for w in COMMANDS[command](world, ac, world / f"{bad}.npy")
        ]
        assert "look like rows of the" in fails(3, *words), command


def test_another_encoder_of_the_same_width(
    fails: Fails, suture: Callable[..., Any], world: Path, ab: Path, here: Path, rows: Rows
) -> None:
    rng = np.random.default_rng(0)
    gallery = rows("gallery.a")
    rotation = np.linalg.qr(rng.normal(size=(24, 24)))[0].astype(np.float32)
    np.save("rotated.npy", gallery @ rotation)
    np.save("permuted.npy", gallery[:, rng.permutation(24)])
    for name in (world / "gallery.c.npy", "rotated.npy", "permuted.npy"):
        said = fails(3, "apply", ab, name, "-o", "x.npy")
        assert "do not look like rows of the source space" in said
        assert "--unfamiliar" in said
    suture("apply", ab, "permuted.npy", "-o", "x.npy", "--unfamiliar")
    assert np.load("x.npy").shape == (500, 32)


def test_the_norm_policy_both_ways(
    fails: Fails, suture: Callable[..., Any], world: Path, ab: Path, here: Path, rows: Rows
) -> None:
    scale = np.random.default_rng(0).uniform(1, 3, (500, 1)).astype(np.float32)
    np.save("raw.npy", rows("gallery.a") * scale)
    said = fails(3, "apply", ab, "raw.npy", "-o", "x.npy")
    assert "unit length" in said
    assert "norms from 1" in said
    assert "unit length" in fails(3, *COMMANDS["evaluate gallery"](world, ab, "raw.npy"))
    np.save("raw.fit.npy", rows("fit.a") * scale[:320])
    suture("fit", "raw.fit.npy", world / "fit.b.npy", "-o", "raw.safetensors", *QUICK)
    said = fails(3, "apply", "raw.safetensors", world / "gallery.a.npy", "-o", "x.npy")
    assert "varying length" in said
    # One row of another length, late in the dump, is enough.
    late = rows("gallery.a").copy()
    late[-1] *= 2
    np.save("late.npy", np.concatenate([rows("gallery.a")] * 17 + [late]))
    assert "norms from" in fails(3, "apply", ab, "late.npy", "-o", "x.npy")


@pytest.fixture
def spoilt(here: Path, rows: Rows) -> Path:
    """Rows 3, 17 and 20 are NaN, zero and infinite; ids in ``ids.npy``."""
    bad = rows("fit.a").copy()
    bad[3, 5], bad[17], bad[20, 1] = np.nan, 0, np.inf
    np.save("bad.npy", bad)
    np.save("ids.npy", rows("ids"))
    return here / "bad.npy"


def test_bad_rows_are_refused_by_name(fails: Fails, world: Path, ab: Path, spoilt: Path, rows: Rows) -> None:
    for words in (
        ("apply", ab, spoilt, "-o", "x.npy", "--ids", "ids.npy"),
        ("fit", spoilt, world / "fit.b.npy", "-o", "x.safetensors", "--ids", "ids.npy"),
    ):
        said = fails(3, *words)
        for name, reason in (("item 3", "nan"), ("item 17", "zero"), ("item 20", "infinite")):
            assert f"id '{name}': {reason}" in said
        assert "--bad-rows skip" in said
    gallery = rows("gallery.a").copy()
    gallery[17] = 0
    np.save("gallery.npy", gallery)
    for command in ("evaluate gallery", "fit gallery"):
        assert "row 17: zero" in fails(3, *COMMANDS[command](world, ab, "gallery.npy"))


def test_bad_rows_are_skipped_or_put_aside(
    suture: Callable[..., Any], fails: Fails, world: Path, ab: Path, spoilt: Path, rows: Rows
) -> None:
    apply = ("apply", ab, spoilt, "--ids", "ids.npy", "-o")
    skipped = suture(*apply, "skip.npy", "--bad-rows", "skip", "--json").json
    assert skipped["rows"] == 317
    assert skipped["dropped"] == {"nan": 1, "zero": 1, "infinite": 1}
    kept = np.delete(np.arange(320), [3, 17, 20])
    names = [json.loads(line) for line in Path("skip.ids.jsonl").read_text().splitlines()]
    assert names == rows("ids")[kept].tolist()
    mapped = load(ab).translate()(rows("fit.a")[kept])
    np.testing.assert_allclose(np.load("skip.npy"), mapped / np.linalg.norm(mapped, axis=1, keepdims=True), atol=1e-6)
    # Two words, as in the README of the format, and one, as shells complete it.
    suture(*apply, "aside.npy", "--bad-rows", "quarantine", "with space.jsonl")
    suture(*apply, "aside2.npy", "--bad-rows=quarantine", "aside2.jsonl")
    records = [json.loads(line) for line in Path("with space.jsonl").read_text().splitlines()]
    assert {(r["row"], r["id"], r["reason"]) for r in records} == {
        (3, "item 3", "nan"),
        (17, "item 17", "zero"),
        (20, "item 20", "infinite"),
    }
    assert Path("aside2.jsonl").read_bytes() == Path("with space.jsonl").read_bytes()
    fitted = suture(
        *("fit", spoilt, world / "fit.b.npy", "-o", "m.safetensors", "--bad-rows", "quarantine", "fit.jsonl"),
        *(*QUICK, "--json"),
    ).json
    assert fitted["rows"] == 317
    assert fitted["bad_rows"]["dropped"] == 3
    # A quarantine file replaces nothing.
    assert "exists" in fails(3, *apply, "y.npy", "--bad-rows", "quarantine", "fit.jsonl")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("quarantine",), "needs a FILE"),
        (("quarantine", "bad.npy"), ".jsonl"),
        (("drop",), "refuse, skip or quarantine"),
        (("skip it",), "refuse, skip or quarantine"),
    ],
)
def test_unclear_words_about_bad_rows(fails: Fails, world: Path, ab: Path, words: tuple[str, ...], said: str) -> None:
    assert said in fails(2, "apply", ab, world / "gallery.a.npy", "-o", "x.npy", "--bad-rows", *words)


def test_no_good_row_is_left(fails: Fails, ab: Path, here: Path) -> None:
    np.save("zero.npy", np.zeros((5, 24), np.float32))
    assert "no good row" in fails(3, "apply", ab, "zero.npy", "-o", "x.npy", "--bad-rows", "skip")


def test_outputs_never_replace_inputs(fails: Fails, world: Path, ab: Path, here: Path, rows: Rows) -> None:
    np.save("dump.npy", rows("fit.a"))
    Path("copy.safetensors").write_bytes(ab.read_bytes())
    Path("link.npy").symlink_to("dump.npy")
    from safetensors.numpy import save_file

    save_file({"x": rows("fit.a")}, "dump.safetensors")
    (here / "rows.jsonl").write_text("".join(json.dumps({"embedding": r}) + "\n" for r in rows("fit.a").tolist()))
    cases: list[tuple[object, ...]] = [
        ("apply", ab, "dump.npy", "-o", "dump.npy"),
        ("apply", ab, "dump.npy", "-o", "./dump.npy"),
        ("apply", ab, "link.npy", "-o", "dump.npy"),
        ("apply", "copy.safetensors", "dump.npy", "-o", "copy.safetensors"),
        ("fit", "dump.safetensors", world / "fit.b.npy", "-o", "dump.safetensors"),
        ("fit", "dump.safetensors::x", world / "fit.b.npy", "-o", "dump.safetensors"),
        ("invert", "copy.safetensors", "-o", "copy.safetensors"),
        ("compose", "copy.safetensors", "copy.safetensors", "-o", "copy.safetensors"),
        ("apply", ab, "rows.jsonl", "-o", "x.npy", "--bad-rows", "quarantine", "rows.jsonl"),
        ("fit", "rows.jsonl", world / "fit.b.npy", "-o", "x.safetensors", "--bad-rows", "quarantine", "rows.jsonl"),
        ("apply", ab, "dump.npy", "-o", "x.jsonl", "--bad-rows", "quarantine", "x.jsonl"),
    ]
    for words in cases:
        assert "never overwritten" in fails(3, *words, "--overwrite"), words


def test_no_part_is_added_to_a_dump_of_parts(fails: Fails, ab: Path, here: Path, rows: Rows) -> None:
    Path("parts").mkdir()
    np.save("parts/0.npy", rows("fit.a"))
    assert "part of the dump" in fails(3, "apply", ab, "parts", "-o", "parts/1.npy")


def test_existing_outputs_are_left_alone(
    fails: Fails, suture: Callable[..., Any], world: Path, ab: Path, ac: Path, here: Path
) -> None:
    for name in ("x.npy", "x.safetensors"):
        Path(name).write_text("precious")
    commands: list[tuple[object, ...]] = [
        ("apply", ab, world / "gallery.a.npy", "-o", "x.npy"),
        ("fit", world / "fit.a.npy", world / "fit.b.npy", "-o", "x.safetensors", *QUICK),
        ("invert", ac, "-o", "x.safetensors"),
        ("compose", ac, "-o", "x.safetensors", ac, "--unfamiliar"),
    ]
    for words in commands:
        assert "exists" in fails(3, *words)
    for words in commands:
        suture(*words, "--overwrite")
    assert np.load("x.npy").shape == (500, 32)
    assert load("x.safetensors").translate().target_dim == 24


def test_a_refused_overwrite_keeps_the_old_file(fails: Fails, world: Path, ab: Path, here: Path) -> None:
    Path("x.npy").write_text("precious")
    fails(3, "apply", ab, world / "gallery.b.npy", "-o", "x.npy", "--overwrite")
    assert Path("x.npy").read_text() == "precious"


def test_folders_that_cannot_be_written(fails: Fails, world: Path, ab: Path, ac: Path, here: Path) -> None:
    (here / "file").write_text("")
    for folder in ("nowhere", "file", "/proc"):
        for words in (
            ("apply", ab, world / "gallery.a.npy", "-o", f"{folder}/x.npy"),
            ("fit", world / "fit.a.npy", world / "fit.b.npy", "-o", f"{folder}/x.safetensors", *QUICK),
            ("invert", ac, "-o", f"{folder}/x.safetensors"),
        ):
            said = fails(1, *words)
            assert "x." in said
            assert folder in said
    assert "is a folder" in fails(3, "apply", ab, world / "gallery.a.npy", "-o", here)
    assert "suffix" in fails(2, "apply", ab, world / "gallery.a.npy", "-o", "x.xyz")
    assert ".safetensors" in fails(2, "fit", world / "fit.a.npy", world / "fit.b.npy", "-o", "x.npy")


def test_float16_overflow(fails: Fails, suture: Callable[..., Any], world: Path, here: Path, rows: Rows) -> None:
    np.save("huge.npy", rows("fit.b") * np.float32(1e6))
    suture("fit", world / "fit.a.npy", "huge.npy", "-o", "m.safetensors", *QUICK, "--set", "scale=true")
    apply = ("apply", "m.safetensors", world / "gallery.a.npy", "-o", "x.npy", "--dtype")
    said = fails(3, *apply, "float16")
    assert "do not fit float16" in said
    assert "--dtype float32" in said
    suture(*apply, "float32")
    assert np.isfinite(np.load("x.npy")).all()
    suture(*apply[:4], "y.npy", "--dtype", "float16", "--normalize", "l2")
    assert np.isfinite(np.load("y.npy")).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "nope"), "procrustes"),
        (("--method", "ridge", "--set", "alhpa=1"), "alpha, criterion, per_target"),
        (("--method", "ridge", "--set", "alpha"), "name=value"),
        (("--method", "ridge", "--set", "alpha=much"), "float or none"),
        (("--method", "ridge", "--set", "alpha=NaN"), "alpha"),
        (("--method", "ridge", "--set", "alpha=-1"), "-1"),
        (("--method", "ridge", "--set", "criterion=aic"), "gcv"),
        (("--method", "ridge", "--set", "per_target=1"), "bool"),
        (("--method", "mean-shift", "--set", "a=1"), "mean-shift"),
        (("--set", "alpha=1"), "not with auto"),
        (("--family", "all"), "affine"),
        (("--seed", "-1"), "--seed"),
        (("--queries", "q.npy"), "all three"),
        (("--gallery", "g.npy", "--relevant", "r.npy"), "all three"),
        (("--frobnicate",), "--frobnicate"),
    ],
)
def test_wrong_words_are_usage_errors(fails: Fails, world: Path, words: tuple[str, ...], said: str) -> None:
    assert said in fails(2, "fit", world / "fit.a.npy", world / "fit.b.npy", "-o", "x.safetensors", *words)


def test_other_wrong_words(fails: Fails, world: Path, ab: Path) -> None:
    apply = ("apply", ab, world / "gallery.a.npy", "-o", "x.npy")
    assert "source, target" in fails(2, *apply, "--side", "left")
    assert "float16" in fails(2, *apply, "--dtype", "int8")
    assert "l2" in fails(2, *apply, "--normalize", "L1")
    assert "two or more" in fails(2, "compose", ab, "-o", "x.safetensors")
    assert "nothing to judge by" in fails(
        2, "evaluate", ab, "--queries", world / "query.b.npy", "--gallery", world / "gallery.a.npy"
    )
    assert "No such command" in fails(2, "alling")
    fails(2, "apply", ab)


def test_settings_are_typed(suture: Callable[..., Any], world: Path, here: Path) -> None:
    fit = (
        "fit",
        world / "fit.a.npy",
        world / "fit.b.npy",
        "--method",
        "ridge",
        "--json",
        "--overwrite",
        "-o",
        "m.safetensors",
    )
    for word, value in (("alpha=0.1", 0.1), ("alpha=2", 2.0), ("alpha=none", None), ("per-target=True", True)):
        done = suture(*fit, "--set", word).json
        assert done["params"][word.partition("=")[0].replace("-", "_")] == value
        assert type(done["params"]["per_target"]) is bool


def test_errors_are_objects_too(suture: Callable[..., Any], world: Path, ab: Path, here: Path) -> None:
    for code, words in (
        (1, ("inspect", "missing.npy")),
        (2, ("fit", "a", "b", "-o", "x.safetensors", "--method", "nope")),
        (2, ("apply", ab, "--nope")),
        (3, ("apply", ab, world / "gallery.b.npy", "-o", "x.npy")),
    ):
        done = suture(*words, "--json", code=code)
        assert done.json["exit_code"] == code
        assert done.json["error"][:30] in " ".join(done.err.replace("│", "").split())


def test_joints_that_do_not_fit(fails: Fails, ab: Path, ac: Path, world: Path) -> None:
    said = fails(3, "compose", ab, ac, "-o", "x.safetensors")
    assert "ends in 32 dims and the second starts from 24" in said
    assert "does not look like the one" in fails(3, "compose", ac, ac, "-o", "x.safetensors")
    assert "no exact inverse" in fails(3, "invert", ab, "-o", "x.safetensors")


def test_an_inverse_of_noise_is_refused(fails: Fails, suture: Callable[..., Any], here: Path, rows: Rows) -> None:
    """A map fitted on fewer pairs than dims has directions that it forgets."""
    np.save("x.npy", rows("fit.a")[:15])
    np.save("y.npy", rows("fit.c")[:15])
    suture("fit", "x.npy", "y.npy", "-o", "m.safetensors", "--method", "ridge", "--set", "alpha=0.01")
    assert "condition number" in fails(3, "invert", "m.safetensors", "-o", "inv.safetensors")


def test_a_map_file_cut_short_is_neither_map_nor_dump(fails: Fails, ab: Path, here: Path) -> None:
    whole = ab.read_bytes()
    for length in (20, len(whole) // 2, len(whole) - 1):
        Path("cut.safetensors").write_bytes(whole[:length])
        said = fails(1, "inspect", "cut.safetensors")
        assert "truncated" in said or "cut within its header" in said


def test_dumps_without_a_spread_that_can_be_measured(fails: Fails, here: Path, rows: Rows) -> None:
    a, b = np.tile(rows("fit.a"), 2), rows("fit.b")  # 48 dims: fewer than 32 are multiplied in float64, where all fits
    np.save("b.npy", b)
    for spoilt, said in (
        (np.broadcast_to(a[:1], a.shape), "no variance"),
        (a * np.float32(1e-28), "scale it up"),
        (a * np.float32(1e28), "scale them down, or give float64 rows"),
        (a.astype(float) * 1e200, "scale them down."),
    ):
        np.save("a.npy", spoilt)
        found = fails(3, "fit", "a.npy", "b.npy", "-o", "m.safetensors", "--method", "ridge", "--allow-mispaired")
        assert said in found
    assert not Path("m.safetensors").exists()


def test_rows_that_are_all_alike_are_not_blamed_on_another_method(fails: Fails, here: Path, rows: Rows) -> None:
    np.save("same.npy", np.tile(rows("fit.a")[:1], (320, 1)))
    np.save("b.npy", rows("fit.b"))
    said = fails(3, "fit", "same.npy", "b.npy", "-o", "m.safetensors", "--method", "procrustes")
    assert "no variance" in said
    assert "rotation-ridge" not in said


def test_one_pair_is_refused(fails: Fails, here: Path, rows: Rows) -> None:
    for name in "ab":
        np.save(f"{name}.npy", rows(f"fit.{name}")[:1])
    assert "two pairs" in fails(3, "fit", "a.npy", "b.npy", "-o", "m.safetensors", "--method", "procrustes")


def test_huge_rows_of_a_unit_space_have_a_length(fails: Fails, ab: Path, here: Path, rows: Rows) -> None:
    np.save("huge.npy", rows("gallery.a").astype(float) * 1e200)
    said = fails(3, "apply", ab, "huge.npy", "-o", "out.npy")
    assert "norms from 1e+200 to 1e+200" in said


def test_matching_advises_what_the_command_has(fails: Fails, world: Path, ab: Path, here: Path) -> None:
    words = ("evaluate", ab, "--queries", world / "query.b.npy", "--gallery", world / "gallery.a.npy")
    said = fails(3, *words, "--target-gallery", world / "fit.b.npy")
    assert "has 500" in said
    assert "--pairs" not in said
    Path("right.json").write_text(str([["nobody"]] * 60).replace("'", '"'))
    assert "--gallery-ids" in fails(3, *words, "--relevant", "right.json")


def test_ranks_beyond_the_dims(fails: Fails, world: Path, here: Path) -> None:
    for method in ("cca", "pls", "reduced-rank", "subspace"):
        words = ("fit", world / "fit.a.npy", world / "fit.b.npy", "-o", "m.safetensors", "--method", method)
        said = fails(2, *words, "--set", "rank=25")
        assert "at most 24" in said
