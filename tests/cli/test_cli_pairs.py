"""Pairing: which rows belong together, what is refused as a guess, and how few pairs are enough."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suture.aligners import load

Fails = Callable[..., str]
Rows = Callable[[str], Any]
Run = Callable[..., Any]
QUICK = ("--method", "procrustes")


@pytest.fixture
def fit(world: Path, here: Path) -> tuple[object, ...]:
    return ("fit", world / "fit.a.npy", world / "fit.b.npy", "-o", "m.safetensors", *QUICK)


def test_unequal_lengths(fails: Fails, world: Path, here: Path) -> None:
    said = fails(3, "fit", world / "fit.a.npy", world / "gallery.b.npy", "-o", "m.safetensors")
    assert "320" in said
    assert "500" in said
    assert "--pairs" in said


def test_ids_that_do_not_determine_pairs(
    fails: Fails, fit: tuple[object, ...], here: Path, world: Path, rows: Rows
) -> None:
    ids = rows("ids")
    twice = ids.copy()
    twice[5] = twice[4]
    np.save("twice.npy", twice)
    np.save("other.npy", np.char.add(ids, " bis"))
    np.save("short.npy", ids[:-1])
    np.save("whole.npy", np.arange(320))
    good = world / "ids.npy"
    for second, said in (
        ("twice.npy", "'item 4' (2 times)"),
        ("other.npy", "'item 0 bis'"),
        ("short.npy", "319"),
        ("whole.npy", "int"),
    ):
        assert said in fails(3, *fit, "--ids", good, "--ids", second)
    np.savez("inside.npz", x=rows("fit.a"), id=ids)
    said = fails(3, "fit", "inside.npz", world / "fit.b.npy", "-o", "m.safetensors")
    assert "fit.b.npy has none" in said
    assert "--by-row" in said


def test_by_row_and_by_table(suture: Run, world: Path, here: Path, rows: Rows) -> None:
    order = np.random.default_rng(0).permutation(320)
    np.savez("old.npz", x=rows("fit.a"), id=rows("ids"))
    np.save("new.npy", rows("fit.b")[order])
    np.save("same.npy", rows("fit.b"))
    done = suture("fit", "old.npz", "same.npy", "-o", "row.safetensors", "--by-row", *QUICK, "--json").json
    assert done["pairing"]["by"] == "row"
    where = np.argsort(order)
    lines = [f"item {i},{where[i]}" for i in range(300)]
    Path("pairs.csv").write_text("source,target\n" + "\n".join(lines) + "\n")
    done = suture("fit", "old.npz", "new.npy", "-o", "table.safetensors", "--pairs", "pairs.csv", *QUICK, "--json").json
    assert (done["pairing"]["by"], done["rows"]) == ("pairs", 300)
    assert done["audit"]["verdict"] == "clean"


def test_shifted_rows(fails: Fails, suture: Run, world: Path, here: Path, rows: Rows) -> None:
    np.save("shifted.npy", np.roll(rows("fit.b"), 1, axis=0))
    words = ("fit", world / "fit.a.npy", "shifted.npy", "-o", "m.safetensors")
    said = fails(3, *words)
    assert "shifted or shuffled" in said
    assert "--allow-mispaired" in said
    suture(*words, *QUICK, "--allow-mispaired")


def test_a_tenth_of_the_pairs_is_wrong(fails: Fails, suture: Run, world: Path, here: Path, rows: Rows) -> None:
    target = rows("fit.b").copy()
    target[:32] = np.roll(target[:32], 1, axis=0)
    np.save("wrong.npy", target)
    words = ("fit", world / "fit.a.npy", "wrong.npy", "--ids", world / "ids.npy", "-o", "m.safetensors", *QUICK)
    said = fails(3, *words)
    named = [part.split("'")[0] for part in said.split("'item ")[1:]]
    assert len(named) == 10
    assert sum(int(name) < 32 for name in named) >= 9
    assert "--allow-mispaired" in said
    allowed = suture(*words, "--allow-mispaired", "--json").json
    assert allowed["audit"]["verdict"] == "mispaired"
    assert allowed["audit"]["suspect_share"] == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("pairs", [3, 10, 19])
def test_too_few_pairs_to_choose(fails: Fails, suture: Run, here: Path, rows: Rows, pairs: int) -> None:
    np.save("x.npy", rows("fit.a")[:pairs])
    np.save("y.npy", rows("fit.b")[:pairs])
    fit = ("fit", "x.npy", "y.npy", "-o", "m.safetensors")
    said = fails(3, *fit)
    assert f"got {pairs} pairs" in said
    assert "--method procrustes" in said
    done = suture(*fit, *QUICK, "--json").json
    assert done["held_out"] is None
    assert f"{pairs} pairs in {pairs} groups are too few" in done["held_out_reason"]
    assert done["candidates"] == []
    assert suture("inspect", "m.safetensors", "--json").json["held_out"] is None
    assert "Not judged" in suture(*fit, *QUICK, "--overwrite").out
    assert np.isfinite(load("m.safetensors").translate()(rows("gallery.a"))).all()


@pytest.mark.parametrize(("pairs", "code"), [(0, 1), (1, 3)])  # an empty dump is malformed, one row is too few
def test_no_pairs_at_all(fails: Fails, here: Path, rows: Rows, pairs: int, code: int) -> None:
    np.save("x.npy", rows("fit.a")[:pairs])
    np.save("y.npy", rows("fit.b")[:pairs])
    fails(code, "fit", "x.npy", "y.npy", "-o", "m.safetensors", *QUICK)


def test_fewer_pairs_than_dims(suture: Run, here: Path, rows: Rows) -> None:
    """30 pairs of 24 and 120 dims: every candidate is finite, and the choice is made."""
    wide = np.concatenate([rows("fit.b")[:30]] * 4, axis=1) / 2
    np.save("x.npy", rows("fit.a")[:30])
    np.save("wide.npy", wide)
    for source, target in (("x", "wide"), ("wide", "x")):
        done = suture("fit", f"{source}.npy", f"{target}.npy", "-o", f"{source}.safetensors", "--json").json
        assert done["held_out"]["strategies"][0]["metrics"]["overlap@10"]["estimate"] > 0.4
        assert done["audit"]["verdict"] == "unknown"


def test_groups_stay_together(suture: Run, here: Path) -> None:
    """Chunks of a document are near copies of each other: apart, they tell the map what it is asked."""
    rng = np.random.default_rng(0)
    latent = np.repeat(rng.normal(size=(60, 40)), 5, axis=0) + 0.02 * rng.normal(size=(300, 40))
    for name, dim in (("x", 40), ("y", 40)):
        # Each document has noise of its own in each space, which its chunks share.
        own = np.repeat(rng.normal(size=(60, dim)), 5, axis=0)
        np.save(f"{name}.npy", (latent @ rng.normal(size=(40, dim)) / 6 + own).astype(np.float32))
    Path("documents.txt").write_text("".join(f"document {i // 5}\n" for i in range(300)))
    score = {}
    for name, words in (("apart", ()), ("together", ("--groups", "documents.txt"))):
        done = suture(
            *("fit", "x.npy", "y.npy", "-o", f"{name}.safetensors", "--method", "ridge", "--json"),
            *("--allow-mispaired", *words),
        ).json
        score[name] = done["held_out"]["strategies"][0]["metrics"]["r2"]
    assert score["together"]["high"] < score["apart"]["low"]
    Path("short.txt").write_text("a\n")


def test_groups_of_another_dump(fails: Fails, fit: tuple[object, ...]) -> None:
    Path("short.txt").write_text("a\nb\n")
    said = fails(3, *fit, "--groups", "short.txt")
    assert "2 group labels" in said
    assert "320 rows" in said


def test_the_same_command_writes_the_same_bytes(suture: Run, world: Path, here: Path, ab: Path) -> None:
    for name in ("one", "two"):
        suture("fit", world / "fit.a.npy", world / "fit.b.npy", "-o", f"{name}.safetensors")
    assert Path("one.safetensors").read_bytes() == Path("two.safetensors").read_bytes() == ab.read_bytes()


def test_the_order_of_the_rows_does_not_matter(suture: Run, world: Path, here: Path, rows: Rows) -> None:
    rng = np.random.default_rng(5)
    for name in ("a", "b"):
        order = rng.permutation(320)
        whole = rows(f"fit.{name}").astype(np.float64)
        np.savez(f"{name}.npz", x=whole, id=rows("ids"))
        np.savez(f"shuffled.{name}.npz", x=whole[order], id=rows("ids")[order])
    done = [
        suture("fit", f"{kind}a.npz", f"{kind}b.npz", "-o", f"{kind}m.safetensors", "--json").json
        for kind in ("", "shuffled.")
    ]
    assert done[0]["params"] == done[1]["params"]
    assert done[0]["pairing"]["order"] == "same"
    assert done[1]["pairing"]["order"] == "joined"
    one, two = (load(f"{kind}m.safetensors") for kind in ("", "shuffled."))
    np.testing.assert_allclose(one.translate()(np.eye(24)), two.translate()(np.eye(24)), atol=1e-10)
    assert one.spaces["source"].fingerprint == two.spaces["source"].fingerprint
    key = "overlap@10"
    ours, theirs = (d["held_out"]["strategies"][0]["metrics"][key]["estimate"] for d in done)
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_choice_by_labelled_queries(suture: Run, world: Path, here: Path) -> None:
    labels = ("--queries", world / "query.b.npy", "--gallery", world / "gallery.a.npy", "--relevant")
    fit = ("fit", world / "fit.a.npy", world / "fit.b.npy", "--json", "-o")
    done = suture(*fit, "rows.safetensors", *labels, world / "right.npy").json
    assert done["judged_by"] == "ndcg@10"
    scores = [c["ndcg@10"]["estimate"] for c in done["candidates"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.2
    # What evaluate measures of the chosen map is what it was chosen by.
    judged = suture("evaluate", "rows.safetensors", *labels, world / "right.npy", "--json").json
    assert judged["strategies"][0]["metrics"]["ndcg@10"]["estimate"] == pytest.approx(scores[0], abs=1e-9)
    # The same answers by id.
    gids = np.load(world / "gids.npy")
    Path("right.json").write_text(str([[int(gids[row])] for row in np.load(world / "right.npy")]))
    by_id = suture(*fit, "ids.safetensors", *labels, "right.json", "--gallery-ids", world / "gids.npy").json
    assert by_id["candidates"] == done["candidates"]


def test_labels_judge_few_pairs(suture: Run, world: Path, here: Path, rows: Rows) -> None:
    """With labelled queries a choice can be made although nothing can be held out."""
    np.save("x.npy", rows("fit.a")[:15])
    np.save("y.npy", rows("fit.b")[:15])
    labels = (
        "--queries",
        world / "query.b.npy",
        "--gallery",
        world / "gallery.a.npy",
        "--relevant",
        world / "right.npy",
    )
    done = suture("fit", "x.npy", "y.npy", "-o", "m.safetensors", *labels, "--json").json
    assert done["judged_by"] == "ndcg@10"
    assert len(done["candidates"]) > 2
    assert done["held_out"] is None
    assert "15 pairs in 15 groups are too few" in done["held_out_reason"]


def test_weights_count_pairs_as_if_some_were_not_there(
    suture: Run, fails: Fails, here: Path, world: Path, rows: Rows
) -> None:
    kept = np.ones(320)
    kept[::4] = 0
    np.save("w.npy", 7 * kept)
    np.savetxt("w.txt", 7 * kept)
    wrong = rows("fit.b").copy()
    wrong[::4] = wrong[::4][::-1]
    np.save("wrong.npy", wrong)
    for name, source, target, more in (
        ("some", rows("fit.a")[kept > 0], rows("fit.b")[kept > 0], ()),
        ("npy", rows("fit.a"), wrong, ("--weights", "w.npy", "--allow-mispaired")),
        ("txt", rows("fit.a"), wrong, ("--weights", "w.txt", "--allow-mispaired")),
    ):
        np.save("x.npy", source)
        np.save("y.npy", target)
        suture("fit", "x.npy", "y.npy", "-o", f"{name}.safetensors", *QUICK, *more)
    some, npy, txt = (load(f"{name}.safetensors").translate()(rows("gallery.a")) for name in ("some", "npy", "txt"))
    np.testing.assert_allclose(npy, some, atol=1e-5)
    np.testing.assert_array_equal(npy, txt)
    np.save("short.npy", kept[1:])
    np.save("minus.npy", -kept)
    for path, said in (("short.npy", "320 weights"), ("minus.npy", "none negative")):
        assert said in fails(3, "fit", "x.npy", "y.npy", "-o", "m.safetensors", *QUICK, "--weights", path)


def test_people_are_told_of_rows_without_a_mate_and_with_several(
    suture: Run, fit: tuple[object, ...], world: Path, here: Path, rows: Rows
) -> None:
    ids = rows("ids")
    usual = suture(*fit, "--ids", world / "ids.npy", "--overwrite").out
    assert "Without a mate" not in usual
    assert "ore than one" not in usual.lower()
    other = ids.copy()
    other[:20] = [f"new {i}" for i in range(20)]
    np.save("other.npy", other)
    said = suture(*fit, "--ids", world / "ids.npy", "--ids", "other.npy", "--overwrite").out.splitlines()[1]
    assert said == (
        "Without a mate: 20 of 320 source rows (such as 'item 0') and 20 of 320 target rows (such as 'new 0')."
    )
    ids[7] = ids[5]
    np.save("twice.npy", ids)
    said = suture(*fit, "--ids", "twice.npy", "--overwrite").out.splitlines()[1]
    assert said == "In more than one row: 1 source ids (such as 'item 5') and 1 target ids (such as 'item 5')."
    Path("p.csv").write_text("source,target\n3,3\n" + "".join(f"{i},{i}\n" for i in range(300)) + "3,310\n")
    lines = suture(*fit, "--pairs", "p.csv", "--overwrite").out.splitlines()
    assert lines[1] == "Without a mate: 20 of 320 source rows (such as 300) and 19 of 320 target rows (such as 300)."
    assert lines[2] == "Paired more than once: 1 source rows (such as 3) and 1 target rows (such as 3)."


@pytest.mark.parametrize(
    ("method", "pairs", "said"),
    [
        ("procrustes", 10, "the 10 pairs determine 9 of the 24 directions"),
        ("blend", 10, "Give more pairs, or take --method ridge"),
        ("least-squares", 47, "47 pairs for 24 source dims"),
        ("procrustes", 320, ""),
        ("least-squares", 48, ""),
        ("ridge", 10, ""),
    ],
)
def test_too_few_pairs_for_the_method_are_told(
    suture: Run, here: Path, rows: Rows, method: str, pairs: int, said: str
) -> None:
    np.save("a.npy", rows("fit.a")[:pairs])
    np.save("b.npy", rows("fit.b")[:pairs])
    words = ("fit", "a.npy", "b.npy", "-o", "m.safetensors", "--method", method, "--overwrite")
    done = suture(*words, "--json")
    assert done.json["notes"] == done.err.splitlines() if said else done.json["notes"] == []
    assert said in done.err
    assert bool(done.err) == bool(said)
    rotation = load("m.safetensors").provenance.get("rotation")
    assert rotation is None or rotation["unique"] == (pairs > 24)


def test_a_direction_without_variance_is_no_want_of_pairs(suture: Run, here: Path, rows: Rows) -> None:
    flat = rows("fit.a").copy()
    flat[:, 0] = 0.25
    np.save("a.npy", flat)
    np.save("b.npy", rows("fit.b"))
    done = suture("fit", "a.npy", "b.npy", "-o", "m.safetensors", "--method", "procrustes", "--json")
    assert done.json["notes"] == []
    assert load("m.safetensors").provenance["rotation"]["rank"] == flat.shape[1] - 1
