"""`suture split`, `contrast`, `units`, `truncate`, `recombine`, `methods NAME`: what they write, print and refuse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli_json import documented

from suture.aligners import load

Run = Callable[..., Any]
Rows = Callable[[str], Any]


def test_split(suture: Run, world: Path, here: Path, rows: Rows) -> None:
    sides = (world / "fit.a.npy", world / "fit.b.npy")
    done = suture("split", *sides, "-o", "ab", "--json").json
    assert set(done) == documented("split")[0]
    assert 8 <= done["rank"] <= 14  # twelve latent directions
    assert done["dims"] == {"shared": done["rank"], "source": 24 - done["rank"], "target": 32 - done["rank"]}
    assert done["variance"]["source"] > 0.5
    for name, part, side in (("a", "shared", "source"), ("b", "shared", "target"), ("a", "source", "source")):
        file = f"{name}.{part}.npy"
        suture("apply", done["paths"][part], world / f"fit.{name}.npy", "--side", side, "-o", file, "--unfamiliar")
    shared, other, private = (np.load(f) for f in ("a.shared.npy", "b.shared.npy", "a.source.npy"))
    between = np.corrcoef(shared.T, other.T)[: done["rank"], done["rank"] :]
    assert between.diagonal()[0] > 0.9
    assert np.abs(np.corrcoef(shared.T, private.T)[: done["rank"], done["rank"] :]).max() < 1e-2
    two = suture("split", *sides, "-o", "two", "--rank", 2)
    assert "2 directions are shared" in two.out


def test_contrast(suture: Run, here: Path) -> None:
    rng = np.random.default_rng(0)
    background = rng.normal(size=(300, 6)) * [3, 3, 1, 1, 1, 1]
    target = rng.normal(size=(300, 6)) * [3, 3, 1, 1, 2, 1]
    np.save("background.npy", background.astype(np.float32))
    np.save("target.npy", target.astype(np.float32))
    done = suture("contrast", "target.npy", "background.npy", "-o", "c", "--rank", 1, "--json").json
    assert set(done) == documented("contrast")[0]
    assert done["variance"]["target"] > 2 * done["variance"]["background"]
    weight = load(done["paths"]["salient"]).map_of("source").tensors()["weight"]
    assert int(weight.abs().argmax()) == 4
    assert "salient" in suture("contrast", "target.npy", "background.npy", "-o", "d", "--rank", 1).out


def test_units(suture: Run, here: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype(np.float32)
    order = np.array([3, 1, 4, 0, 2])
    np.save("x.npy", x)
    np.save("y.npy", -x[:, order])
    done = suture("units", "x.npy", "y.npy", "--clusters", 5, "-o", "u.csv", "--json").json
    assert set(done) == documented("units")[0]
    assert done["bipartite"] == pytest.approx(1)
    assert done["shared_clusters"] == 5
    lines = [line.split(",") for line in Path("u.csv").read_text().splitlines()]
    assert lines[0] == ["space", "unit", "best", "correlation", "matched", "matched_correlation", "cluster"]
    assert [int(line[4]) for line in lines[6:]] == order.tolist()
    assert all(float(line[5]) == -1 for line in lines[1:])
    assert "semi" in suture("units", "x.npy", "y.npy").out


def test_truncate(suture: Run, world: Path, ab: Path, here: Path) -> None:
    done = suture("truncate", ab, 6, "-o", "short.safetensors", "--order", world / "fit.b.npy", "--json").json
    assert set(done) == documented("truncate")[0]
    assert 0.3 < done["kept"]["squares"] <= 1
    for side in "ab":
        words = ("--side", {"a": "source", "b": "target"}[side])
        suture("apply", "short.safetensors", world / f"gallery.{side}.npy", *words, "-o", f"{side}.npy")
    a, b = np.load("a.npy"), np.load("b.npy")
    assert a.shape == (500, 6)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-5)
    assert float(((a @ b.T).argmax(1) == np.arange(500)).mean()) > 0.25  # chance .002
    assert suture("truncate", ab, 6, "-o", "plain.safetensors", "--json").json["kept"] is None


def test_recombine(suture: Run, world: Path, ab: Path, here: Path) -> None:
    sides = (world / "fit.a.npy", world / "fit.b.npy")
    suture("fit", *sides, "--method", "ridge", "-o", "ridge.safetensors")
    words = ("recombine", ab, "ridge.safetensors", "--on", *sides)
    done = suture(*words, "-o", "mixed.safetensors", "--blocks", 2, "--json").json
    assert set(done) == documented("recombine")[0]
    assert np.shape(done["weights"]) == (2, 2)
    assert done["held_out"]["recombined"] >= done["held_out"]["mean of all"] - 1e-3
    suture("apply", "mixed.safetensors", world / "gallery.a.npy", "-o", "mapped.npy")
    assert "held out" in suture(*words, "-o", "again.safetensors", "--positive").out


def test_a_method_is_explained(suture: Run) -> None:
    one = suture("methods", "ridge", "--json").json["methods"]
    assert [m["name"] for m in one] == ["ridge"]
    assert one[0]["parameters"][1] == {"name": "criterion", "takes": ["gcv", "loo"], "default": "gcv"}
    assert "``alpha``" in one[0]["explanation"]
    said = suture("methods", "anchor-bootstrap").out
    assert "--set limit=..." in said
    assert "limit``: at most so many rows" in said  # of the base that it has the parameter from


def test_refusals(fails: Callable[..., str], world: Path, ab: Path, ac: Path) -> None:
    a, b = world / "fit.a.npy", world / "fit.b.npy"
    assert "there is no 'cosine'" in fails(2, "methods", "cosine")
    assert "1 to 32 dims" in fails(2, "truncate", ab, 33, "-o", "x.safetensors")
    assert "target side" in fails(3, "truncate", ab, 4, "-o", "x.safetensors", "--order", b, "--side", "source")
    assert "target rows of 24 dims" in fails(3, "recombine", ab, ac, "-o", "x.safetensors", "--on", a, b)
    assert "wrong way round" in fails(3, "recombine", ab, "-o", "x.safetensors", "--on", b, a)
    assert "rank of 1 to" in fails(3, "split", a, b, "-o", "x", "--rank", 30)
    assert "one space" in fails(3, "contrast", a, b, "-o", "x")
    assert "rank below" in fails(3, "contrast", a, world / "fit.c.npy", "-o", "x", "--rank", 24)
    assert ".csv, .jsonl, .parquet" in fails(2, "units", a, b, "-o", "u.txt")
    assert "clusters" in fails(3, "units", a, b, "--clusters", 99)


def clusters(seed: int, dim: int) -> tuple[Any, list[str]]:
    """Rows about the centres of four labels, as one encoder sees them; item i is the same for every encoder."""
    which = np.random.default_rng(0).integers(0, 4, 240)
    latent = 2 * np.random.default_rng(1).normal(size=(4, 5))[which]
    latent += 0.5 * np.random.default_rng(2).normal(size=(240, 5))
    seen = latent @ np.random.default_rng(seed).normal(size=(5, dim))
    return seen.astype(np.float32), [("ant", "bee", "cow", "dog")[w] for w in which]


def test_named_coordinates(suture: Run, fails: Callable[..., str], here: Path) -> None:
    for name, seed, dim in (("a", 3, 8), ("b", 4, 10)):
        x, labels = clusters(seed, dim)
        np.save(f"{name}.npy", x)
        Path("labels.txt").write_text("".join(f"{label}\n" for label in labels))
        np.save(
            f"{name}.names.npy", np.stack([x[[w == n for w in labels]].mean(0) for n in ("ant", "bee", "cow", "dog")])
        )
    Path("names.txt").write_text("ant\nbee\ncow\ndog\n")
    words = ("fit", "a.npy", "b.npy", "--method", "concepts")
    done = suture(*words, "--labels", "labels.txt", "-o", "c.safetensors", "--json").json
    assert done["names"] == done["shared_dim"] == 4
    assert done["held_out"]["source"]["auroc"] > 0.9
    assert "ant" not in suture(*words, "--labels", "labels.txt", "-o", "again.safetensors").err
    told = ("concepts", "c.safetensors", "a.npy", "b.npy", "--labels", "labels.txt", "--match", "3:3")
    found = suture(*told, "--json").json
    assert set(found) == documented("concepts")[0]
    assert [c["name"] for c in found["concepts"]] == ["ant", "bee", "cow", "dog"]
    assert all(c["agreement"] > 0.5 and c["auroc"]["target"] > 0.9 for c in found["concepts"])
    match = found["matches"][0]
    assert match["concepts"][0]["name"] == Path("labels.txt").read_text().split()[3]
    assert "agreement" in suture(*told).out
    suture("apply", "c.safetensors", "a.npy", "-o", "s.npy", "--into", "shared")
    assert np.load("s.npy").shape == (240, 4)
    suture("apply", "c.safetensors", "a.npy", "-o", "t.npy")
    assert np.load("t.npy").shape == (240, 10)
    own = ("--concepts", "a.names.npy", "--concepts", "b.names.npy", "--names", "names.txt")
    assert suture(*words, *own, "-o", "n.safetensors", "--json").json["names"] == 4
    simplex = ("fit", "a.npy", "b.npy", "--method", "simplex", "--labels", "labels.txt", "-o", "s.safetensors")
    assert suture(*simplex, "--json").json["shared_dim"] == 3
    out = ("-o", "x.safetensors")
    assert "--labels or --concepts" in fails(2, *words, *out)
    assert "goes with --method concepts" in fails(2, "fit", "a.npy", "b.npy", "--method", "simplex", *own, *out)
    assert "not with ridge" in fails(2, "fit", "a.npy", "b.npy", "--method", "ridge", "--labels", "labels.txt", *out)
    assert "no ids to name" in fails(3, *words, *own[:4], *out)
    assert "without --pairs" in fails(2, *words, "--labels", "labels.txt", "--by-row", *out)
    assert "have names" in fails(3, "concepts", "s.safetensors", "a.npy")
    assert "ROW:ROW" in fails(2, "concepts", "c.safetensors", "a.npy", "--match", "3")
    assert "0..239" in fails(2, "concepts", "c.safetensors", "a.npy", "b.npy", "--match", "3:999")
