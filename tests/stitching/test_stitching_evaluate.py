"""Every number of `evaluate` against brute force in numpy, and the sentence against the numbers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from suture.aligners import Affine, Alignment, Procrustes, RefusedError, UsageError
from suture.aligners.measures.retrieval import METRICS
from suture.stitching.dumps import Dump, open_dump
from suture.stitching.evaluate import conclusion, evaluate, permutation

Floats = NDArray[np.float32]
GALLERY, QUERIES = 150, 40


def unit(rows: Any) -> Floats:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class World:
    """Galleries and queries of an old (10 dims) and a new encoder (14 dims), each seeing the items its own way."""

    def __init__(self, folder: Path, *, old_noise: float = 0.5, new_noise: float = 0.5, same: bool = False) -> None:
        rng = np.random.default_rng(1)
        self.folder = folder
        items = rng.normal(size=(GALLERY, 8))
        self.right = rng.permutation(GALLERY)[:QUERIES]
        asked = items[self.right]
        to_old, to_new = rng.normal(size=(8, 10)), rng.normal(size=(8, 10 if same else 14))

        def see(latent: Any, matrix: Any, noise: float) -> Floats:
            return unit((latent + noise * rng.normal(size=latent.shape)) @ matrix)

        self.old_gallery, self.new_gallery = see(items, to_old, 0.1), see(items, to_new, 0.1)
        self.old_queries, self.new_queries = see(asked, to_old, old_noise), see(asked, to_new, new_noise)
        pairs = rng.normal(size=(300, 8))
        self.alignment = Procrustes().fit(see(pairs, to_old, 0.1), see(pairs, to_new, 0.1))

    def dump(self, name: str, rows: Any, ids: Any = None) -> Dump:
        np.savez(self.folder / f"{name}.npz", x=rows, **({} if ids is None else {"id": ids}))
        return open_dump(self.folder / f"{name}.npz")

    def judge(self, **other: Any) -> dict[str, Any]:
        given: dict[str, Any] = {
            "source_queries": self.dump("old_queries", self.old_queries),
            "target_gallery": self.dump("new_gallery", self.new_gallery),
            "relevant": [[row] for row in self.right],
        }
        queries, gallery = self.dump("queries", self.new_queries), self.dump("gallery", self.old_gallery)
        result = evaluate(self.alignment, queries, gallery, **{**given, **other})
        json.dumps(result, allow_nan=False)
        return result


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def by_name(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {s["name"]: s for s in result["strategies"]}


def ranking(queries: Floats, gallery: Floats) -> NDArray[np.int64]:
    """All gallery rows of each query, best first, in float64."""
    scores = unit(queries).astype(np.float64) @ unit(gallery).astype(np.float64).T
    return np.argsort(-scores, axis=1, kind="stable")


def brute_force(order: NDArray[np.int64], relevant: list[list[int]], truth: NDArray[np.int64]) -> dict[str, float]:
    """The metrics, written the slow way, a query at a time."""
    values: dict[str, list[float]] = {}
    for found, right, best in zip(order.tolist(), relevant, truth.tolist(), strict=True):
        values.setdefault("overlap@10", []).append(len(set(found[:10]) & set(best[:10])) / 10)
        if not right:
            continue
        ranks = sorted(found.index(row) + 1 for row in right)
        gain = sum(1 / np.log2(1 + r) for r in ranks if r <= 10)
        ideal = sum(1 / np.log2(1 + r) for r in range(1, min(len(right), 10) + 1))
        values.setdefault("ndcg@10", []).append(gain / ideal)
        values.setdefault("mrr", []).append(1 / ranks[0])
        for k in (1, 5, 10):
            values.setdefault(f"recall@{k}", []).append(sum(r <= k for r in ranks) / len(right))
    return {name: float(np.mean(v)) for name, v in values.items()}


RELEVANT: dict[str, Callable[[World], list[list[int]]]] = {
    "one each": lambda w: [[int(r)] for r in w.right],
    "several": lambda w: [
        [int(r), (int(r) + 7) % GALLERY, (int(r) + 9) % GALLERY][: 1 + i % 3] for i, r in enumerate(w.right)
    ],
    "more than ten": lambda w: [[*range(i, i + 13)] for i in range(QUERIES)],
    "some without": lambda w: [[int(r)] if i % 3 else [] for i, r in enumerate(w.right)],
}


@pytest.mark.parametrize("answers", RELEVANT)
def test_every_number_equals_brute_force(world: World, answers: str) -> None:
    relevant = RELEVANT[answers](world)
    result = by_name(world.judge(relevant=relevant))
    mapped = world.alignment.translate()(world.old_gallery)
    truth = ranking(world.new_queries, world.new_gallery)
    orders = {
        "map": ranking(world.new_queries, mapped),
        "stay": ranking(world.old_queries, world.old_gallery),
        "re-embed": truth,
    }
    expected = {name: brute_force(order, relevant, truth) for name, order in orders.items()}
    for name, metrics in expected.items():
        for metric, value in metrics.items():
            came = result[name]["metrics"][metric]
            assert came["estimate"] == pytest.approx(value, abs=1e-9), f"{name} {metric}"
            assert came["low"] <= came["estimate"] <= came["high"]
    for metric in expected["map"]:
        gained = result["map"]["difference"][metric]["estimate"]
        assert gained == pytest.approx(expected["map"][metric] - expected["stay"][metric], abs=1e-9)
    assert result["stay"]["difference"] is None
    assert result["re-embed"]["metrics"]["overlap@10"]["estimate"] == 1


def test_intervals_are_those_of_a_bootstrap(world: World) -> None:
    """Percentiles of resampled means, and of resampled differences: paired, hence narrower than apart."""
    result = by_name(world.judge())
    truth = ranking(world.new_queries, world.new_gallery)
    hit = {
        "map": ranking(world.new_queries, world.alignment.translate()(world.old_gallery))[:, 0] == world.right,
        "stay": ranking(world.old_queries, world.old_gallery)[:, 0] == world.right,
        "re-embed": truth[:, 0] == world.right,
    }
    draws = np.random.default_rng(0).integers(QUERIES, size=(20000, QUERIES))
    for name, values in hit.items():
        low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
        came = result[name]["metrics"]["recall@1"]
        assert (came["low"], came["high"]) == (pytest.approx(low, abs=0.03), pytest.approx(high, abs=0.03))
    gained = hit["map"][draws].mean(1) - hit["stay"][draws].mean(1)
    low, high = np.quantile(gained, [0.025, 0.975])
    came = result["map"]["difference"]["recall@1"]
    assert (came["low"], came["high"]) == (pytest.approx(low, abs=0.03), pytest.approx(high, abs=0.03))


def test_baselines(tmp_path: Path) -> None:
    world = World(tmp_path, same=True)
    result = by_name(world.judge())
    relevant, truth = [[int(r)] for r in world.right], ranking(world.new_queries, world.new_gallery)
    expected = brute_force(ranking(world.new_queries, world.old_gallery), relevant, truth)
    for metric, value in expected.items():
        assert result["identity"]["metrics"][metric]["estimate"] == pytest.approx(value, abs=1e-9)
    # All rows of a gallery of means tie, and ties go to the earlier row.
    expected = brute_force(np.tile(np.arange(GALLERY), (QUERIES, 1)), relevant, truth)
    for metric, value in expected.items():
        assert result["mean"]["metrics"][metric]["estimate"] == pytest.approx(value, abs=1e-9)
    order = permutation(GALLERY, seed=0).numpy()
    mapped = world.alignment.translate()(world.old_gallery)
    expected = brute_force(ranking(world.new_queries, mapped[order]), relevant, truth)
    for metric, value in expected.items():
        assert result["shuffled"]["metrics"][metric]["estimate"] == pytest.approx(value, abs=1e-9)
    shuffled = result["shuffled"]["metrics"]
    assert shuffled["recall@10"]["estimate"] < 0.3 < 0.7 < result["map"]["metrics"]["recall@10"]["estimate"]


def test_a_rotated_copy_maps_as_well_as_it_re_embeds(tmp_path: Path) -> None:
    world = World(tmp_path)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))[0].astype(np.float32)
    world.new_gallery, world.new_queries = world.old_gallery @ rotation, world.old_queries @ rotation
    world.alignment = Alignment.one_sided(Affine(torch.from_numpy(rotation), torch.zeros(10)))
    result = world.judge()
    named = by_name(result)
    for metric in METRICS:
        value = named["re-embed"]["metrics"][metric]
        for other in ("map", "stay"):
            assert named[other]["metrics"][metric]["estimate"] == pytest.approx(value["estimate"], abs=1e-9)
    assert "find the same" in result["conclusion"]


@pytest.mark.parametrize(
    ("old_noise", "new_noise", "word"),
    [(2.5, 0.2, "beats staying"), (0.2, 2.5, "Stay: "), (0.9, 0.9, "Undecided")],
)
def test_the_sentence_is_what_the_numbers_say(tmp_path: Path, old_noise: float, new_noise: float, word: str) -> None:
    result = World(tmp_path, old_noise=old_noise, new_noise=new_noise).judge()
    mapped, stay = by_name(result)["map"], by_name(result)["stay"]
    low, high = mapped["difference"]["ndcg@10"]["low"], mapped["difference"]["ndcg@10"]["high"]
    assert word == ("beats staying" if low > 0 else "Stay: " if high < 0 else "Undecided")
    assert word in result["conclusion"]
    for number in (mapped["metrics"]["ndcg@10"], stay["metrics"]["ndcg@10"]):
        assert f"{number['estimate']:.3f}" in result["conclusion"]
    assert f"[{low:+.3f}, {high:+.3f}]" in result["conclusion"]


@pytest.mark.parametrize(
    ("low", "estimate", "high", "word"),
    [
        (0.01, 0.02, 0.03, "beats staying"),
        (0.0, 0.02, 0.03, "Undecided"),
        (-0.01, 0.02, 0.03, "Undecided"),
        (-0.03, -0.02, 0.01, "Undecided"),
        (-0.03, -0.02, -0.01, "Stay: "),
        (0.0, 0.0, 0.0, "find the same"),
    ],
)
def test_only_an_interval_that_excludes_zero_decides(low: float, estimate: float, high: float, word: str) -> None:
    def strategy(name: str, value: float) -> dict[str, Any]:
        difference = {"ndcg@10": {"low": low, "estimate": estimate, "high": high}}
        return {"name": name, "metrics": {"ndcg@10": {"estimate": value}}, "difference": difference}

    assert word in conclusion([strategy("map", 0.5 + estimate), strategy("stay", 0.5)])


@pytest.mark.parametrize("compared", [5000, 60])
def test_cosine_and_r2_are_of_the_gallerys_own_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compared: int
) -> None:
    monkeypatch.setattr("suture.stitching.evaluate.COMPARED", compared)
    world = World(tmp_path, same=True)
    ids = np.arange(GALLERY)
    turned = ids[::-1].copy()  # the target's gallery lies in another order
    result = by_name(
        evaluate(
            world.alignment,
            world.dump("q", world.new_queries),
            world.dump("g", world.old_gallery, ids),
            source_queries=world.dump("qs", world.old_queries),
            target_gallery=world.dump("gt", world.new_gallery[turned], turned),
        )
    )
    order = permutation(GALLERY, seed=0).numpy()
    mapped = unit(world.alignment.translate()(world.old_gallery))  # as it is served: the target's rows are unit rows
    mean = world.alignment.spaces["target"].mean
    assert mean is not None
    rows = np.sort(order[:compared])
    y = world.new_gallery[rows].astype(float)
    spread = ((y - mean.numpy()) ** 2).sum()
    for name, gallery in (
        ("map", mapped),
        ("identity", world.old_gallery),
        ("re-embed", world.new_gallery),
        ("shuffled", mapped[order]),
        ("mean", np.tile(mean.numpy(), (GALLERY, 1))),
    ):
        x = gallery[rows].astype(float)
        came = result[name]["metrics"]
        assert came["cosine"]["estimate"] == pytest.approx((unit(x) * unit(y)).sum(1).mean(), abs=1e-6)
        assert came["r2"]["estimate"] == pytest.approx(1 - ((x - y) ** 2).sum() / spread, abs=1e-6)
        assert all(v["low"] - 1e-12 <= v["estimate"] <= v["high"] + 1e-12 for v in (came["cosine"], came["r2"]))
    assert "source's space" in result["stay"]["metrics"]["cosine"]["reason"]
    alone = by_name(world.judge(target_gallery=None))["map"]["metrics"]
    assert (alone["r2"]["estimate"], alone["r2"]["reason"]) == (None, "needs --target-gallery")
    forgetful = replace(world.alignment, spaces={})
    world.alignment = forgetful
    came = by_name(world.judge())["map"]["metrics"]
    assert came["cosine"]["estimate"] > 0.5
    assert "keeps no mean" in came["r2"]["reason"]


def test_absent_inputs_have_their_reason(world: World) -> None:
    labels_only = world.judge(source_queries=None, target_gallery=None)
    named = by_name(labels_only)
    assert named["stay"]["metrics"] is None
    assert "--source-queries" in named["stay"]["reason"]
    assert "--target-gallery" in named["re-embed"]["reason"]
    assert "10 and 14 dims" in named["identity"]["reason"]
    assert named["map"]["metrics"]["overlap@10"]["estimate"] is None
    assert "--target-gallery" in named["map"]["metrics"]["overlap@10"]["reason"]
    assert "cannot be told" in labels_only["conclusion"]
    assert f"{named['map']['metrics']['ndcg@10']['estimate']:.3f}" in labels_only["conclusion"]
    neighbours_only = world.judge(relevant=None)
    named = by_name(neighbours_only)
    assert "--relevant" in named["map"]["metrics"]["ndcg@10"]["reason"]
    assert "overlap@10" in neighbours_only["conclusion"]
    assert neighbours_only["queries_with_answers"] is None
    with pytest.raises(UsageError, match="nothing to judge by"):
        world.judge(relevant=None, target_gallery=None)


def test_dumps_with_ids_are_matched_by_them(world: World) -> None:
    """Another order of the source queries and of the target's gallery changes nothing where ids tell the order."""
    rng = np.random.default_rng(0)
    plain = world.judge()
    gids, qids = np.arange(GALLERY) * 3, np.array([f"query {i}" for i in range(QUERIES)])
    g, q = rng.permutation(GALLERY), rng.permutation(QUERIES)
    queries = world.dump("q", world.new_queries, qids)
    gallery = world.dump("g", world.old_gallery, gids)
    others = {
        "source_queries": world.dump("qs", world.old_queries[q], qids[q]),
        "target_gallery": world.dump("gt", world.new_gallery[g], gids[g]),
    }
    answers = [[row] for row in world.right]
    matched = evaluate(world.alignment, queries, gallery, relevant=answers, **others)
    assert matched["strategies"] == plain["strategies"]
    blind = evaluate(world.alignment, queries, gallery, relevant=answers, by_row=True, **others)
    assert by_name(blind)["stay"]["metrics"]["recall@10"]["estimate"] < 0.4
    with pytest.raises(RefusedError, match="--by-row"):
        evaluate(world.alignment, queries, gallery, relevant=answers, target_gallery=world.dump("x", world.new_gallery))
    some = world.dump("some", world.new_gallery[:-1], gids[:-1])
    with pytest.raises(RefusedError, match="all 150 rows"):
        evaluate(world.alignment, queries, gallery, relevant=answers, target_gallery=some)


def test_an_answer_named_twice_counts_once(world: World) -> None:
    once = world.judge(relevant=[[int(r), 3] for r in world.right])
    twice = world.judge(relevant=[np.array([3, int(r), 3, int(r)]) for r in world.right])
    assert once["strategies"] == twice["strategies"]


def test_few_answers_do_not_make_nan(world: World) -> None:
    """With one answered query, half of the draws of a bootstrap hold none."""
    result = world.judge(relevant=[[int(world.right[0])], *([] for _ in range(QUERIES - 1))])
    assert result["queries_with_answers"] == 1
    value = by_name(result)["map"]["metrics"]["mrr"]
    assert value["low"] == value["estimate"] == value["high"]


def test_answers_that_fit_nothing(world: World) -> None:
    for relevant, said in (
        ([[0]] * 3, "each of 40 queries, got 3"),
        ([[]] * QUERIES, "at least one query"),
        ([[GALLERY]] * QUERIES, "150 gallery rows, got row 150"),
        ([[-1]] * QUERIES, "150 gallery rows"),
    ):
        with pytest.raises(RefusedError, match=said):
            world.judge(relevant=relevant)


def test_queries_longer_than_a_block_are_all_there(tmp_path: Path) -> None:
    """float32 blocks are views of one buffer: kept without a copy, all would hold the last rows."""
    world = World(tmp_path)
    order = np.resize(np.arange(QUERIES), 8192 + 9 * QUERIES)[::-1]  # the buffer holds 8,192
    queries = world.dump("many", world.new_queries[order])
    gallery = world.dump("gallery", world.old_gallery)
    result = evaluate(world.alignment, queries, gallery, relevant=[[row] for row in world.right[order]])
    hits = ranking(world.new_queries, world.alignment.translate()(world.old_gallery))[:, 0] == world.right
    came = by_name(result)["map"]["metrics"]["recall@1"]["estimate"]
    assert came == pytest.approx(hits[order].mean(), abs=1e-9)


def test_blocks_do_not_show(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gallery read in many blocks is the same gallery."""
    whole = world.judge()
    blocks = Dump.blocks
    monkeypatch.setattr(Dump, "blocks", lambda self, size=8192, *rest: blocks(self, min(size, 17), *rest))
    assert world.judge()["strategies"] == whole["strategies"]
