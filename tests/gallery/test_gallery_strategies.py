"""Every strategy against brute force in numpy: scores of everything, a sort, a metric."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gallery_worlds import World, unit
from numpy.typing import NDArray

from suture.aligners import Procrustes
from suture.stitching.dumps import open_dump, pair
from suture.stitching.gallery.backfill import LEVELS, merged, segments_of
from suture.stitching.gallery.choice import crossed, highest, nearest_half
from suture.stitching.gallery.inputs import Pool, gather_inputs
from suture.stitching.gallery.maps import fit_maps
from suture.stitching.gallery.measure import Measured, measure
from suture.stitching.gallery.scan import count_above
from suture.stitching.gallery.systems import GRID, Systems
from suture.stitching.gallery.truth import Truth


def progress(total: int, what: str) -> Any:
    return nullcontext(lambda rows: None)


class Case:
    """A world that was measured, and its scores by numpy."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)

        def dump(part: str, side: str) -> Any:
            return open_dump(folder / f"{part}.{side}.npy")

        self.inputs = gather_inputs(
            dump("gallery", "old"),
            pair(dump("pairs", "old"), dump("pairs", "new")),
            old_queries=dump("queries", "old"),
            new_queries=dump("queries", "new"),
            relevant=[[r] for r in self.world.right],
            pool=dump("gallery", "new"),
        )
        self.maps = fit_maps(self.inputs.pairs, [Procrustes()], track=lambda items, what: items)
        self.systems = Systems(self.inputs, self.maps)
        self.measured: Measured = measure(self.systems, traffic=None, seed=0, progress=progress)

    def scores(self, name: str, weight: float | None = None) -> NDArray[np.float64]:
        """``(m, count)`` in float64; of a dual by its own weights, or by one ``weight``."""
        w = self.world
        old, new = w.old["queries"].astype(float), w.new["queries"].astype(float)
        stay = old @ w.old["gallery"].astype(float).T
        if name == "stay":
            return stay
        if name == "re-embed":
            return new @ w.new["gallery"].astype(float).T
        if name == "bridge":
            return unit(self.maps.bridge(w.new["queries"])).astype(float) @ w.old["gallery"].astype(float).T
        affine = self.maps.forward(w.old["gallery"].astype(float))
        if name == "map":
            return new @ unit(affine).astype(float).T
        a = self.measured.mixing[name].crossed if weight is None else weight
        a = a if isinstance(a, float) else a.numpy().astype(float)
        second = new @ (affine if name == "dual" else unit(affine).astype(float)).T
        channel = self.systems.turned if name == "dual" else self.systems.map
        assert channel is not None
        assert self.systems.old is not None
        spreads = [self.systems.spread(c).deviation for c in (self.systems.old, channel)]
        return (1 - a) * stay / spreads[0] + a * second / spreads[1]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("case"))


def ndcg(order: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
    rank = (order == right[:, None]).argmax(1) + 1
    return np.where(rank <= 10, 1 / np.log2(1 + rank), 0.0)


@pytest.mark.parametrize("name", ["stay", "bridge", "map", "dual", "dual-concat", "re-embed"])
def test_a_strategy_ranks_as_a_sort_of_all_scores(case: Case, name: str) -> None:
    order = np.argsort(-case.scores(name), axis=1, kind="stable")
    assert np.mean(case.measured.top[name].numpy() == order[:, :10]) > 0.999  # rounding may swap near ties
    came = case.measured.metrics[name]["ndcg@10"].numpy()
    np.testing.assert_allclose(came.mean(), ndcg(order, case.world.right).mean(), atol=2e-3)
    truth = np.argsort(-case.scores("re-embed"), axis=1, kind="stable")[:, :10]
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(order[:, :10], truth, strict=True)])
    assert float(case.measured.metrics[name]["overlap@10"].mean()) == pytest.approx(shared, abs=1e-3)


def test_one_query_vector_on_the_old_index_is_the_sum_of_both_scores(case: Case) -> None:
    """The claim that makes `dual` cheap: the bias of the map is a number per query and moves no rank."""
    w = case.world
    affine = case.maps.forward(w.old["gallery"].astype(float))
    both = w.new["queries"].astype(float) @ affine.T
    turned = case.systems.turned
    assert turned is not None
    apart = both - turned.queries.numpy() @ w.old["gallery"].T
    assert np.ptp(apart, axis=1).max() < 1e-5


def test_the_mixing_weight_is_chosen_without_the_own_fold(case: Case) -> None:
    chosen = case.measured.mixing["dual"]
    assert chosen.chosen
    assert isinstance(chosen.crossed, torch.Tensor)
    assert len(chosen.crossed.unique()) <= 5


def test_ranks_by_every_weight_are_those_of_a_sort(case: Case) -> None:
    """Although only rows that beat the right answer in one of the two scores are looked at."""
    duals, own = case.systems.duals(), np.arange(case.world.queries)
    families = {name: [made(a) for a in GRID] for name, made in duals.items()}
    came = count_above(case.inputs, case.systems.views, families, lambda rows: None)
    for name in duals:
        for a, ranks in zip(GRID, came[name].numpy(), strict=True):
            scores = case.scores(name, a)
            expected = (scores > scores[own, case.world.right][:, None]).sum(1) + 1
            assert np.mean(ranks == expected) > 0.98, (name, a)  # a tie within rounding is none by numpy


def test_a_weight_leaves_a_half_only_where_labels_tell() -> None:
    draw = torch.Generator().manual_seed(0)
    noise = torch.rand((9, 400), generator=draw, dtype=torch.float64)
    assert nearest_half(0.01 * noise + 0.5) == 4
    for best in (0, 6, 8):
        peak = -0.05 * (torch.arange(9) - best).abs().double()[:, None]
        assert nearest_half(0.01 * noise + peak) == best
    assert nearest_half(torch.full((9, 5), torch.nan)) == 4


def test_what_is_chosen_crosswise_is_not_flattered() -> None:
    """Of six orders that are equally good the best on 300 queries looks better than it is, if chosen on the same."""
    draw = torch.Generator().manual_seed(0)
    fold, own = torch.arange(300) % 5, torch.arange(300)
    same, apart = [], []
    for _ in range(200):
        gains = torch.randn((6, 300), generator=draw, dtype=torch.float64)
        same.append(float(gains[highest(gains)].mean()) * 300**0.5)
        apart.append(float(gains[crossed(gains, fold, highest), own].mean()) * 300**0.5)
    error = 200**-0.5
    assert np.mean(same) > 1  # standard errors of one mean
    assert abs(np.mean(apart)) < 4 * error


def test_the_order_of_backfill_is_chosen_crosswise(case: Case) -> None:
    curves = case.measured.curve
    area = torch.stack(
        [
            torch.trapezoid(torch.stack([c[p]["ndcg@10"] for p in LEVELS]), torch.tensor(LEVELS).double(), dim=0)
            for c in curves.values()
        ]
    )
    came = case.measured.metrics["backfill@25"]["ndcg@10"]
    each = torch.stack([c[0.25]["ndcg@10"] for c in curves.values()])
    assert bool((each == came).any(0).all())
    assert case.measured.order == list(curves)[int(area.mean(1).argmax())]


@pytest.mark.parametrize("depth", [10, 50, 200])
def test_a_cascade_ranks_what_was_recalled_by_the_new_model(case: Case, depth: int) -> None:
    recalled = np.argsort(-case.scores(case.measured.base), axis=1, kind="stable")
    new = case.scores("re-embed")
    best = []
    for i, row in enumerate(recalled):
        head = sorted(row[:depth], key=lambda r: -new[i, r])
        best.append([*head, *row[depth:]])
    came = case.measured.metrics[f"cascade@{depth}"]
    np.testing.assert_allclose(came["ndcg@10"].mean(), ndcg(np.array(best), case.world.right).mean(), atol=2e-3)
    found = case.measured.top[f"cascade@{depth}"].numpy()
    assert np.mean(found == np.array(best)[:, :10]) > 0.999
    assert case.measured.distinct[f"cascade@{depth}"] <= case.world.count


def test_a_gallery_that_is_half_re_embedded_is_merged_by_quantiles(case: Case) -> None:
    level = LEVELS.index(0.25)
    order, base = next(iter(case.measured.curve))
    from suture.stitching.gallery.backfill import orders

    priority = orders(case.inputs, case.maps, case.systems.views, None, 0, lambda rows: None)[order]
    segments = segments_of(priority)
    native = (segments.of < level).numpy()
    assert native.sum() == 150
    assert set(priority[native].tolist()) >= set(priority.topk(150).values.tolist())
    old, new = case.scores(base), case.scores("re-embed")
    expected = []
    for i, right in enumerate(case.world.right):
        keys = np.empty(case.world.count)
        for kind, mask, score in ((0, native, new[i]), (1, ~native, old[i])):
            rows = np.flatnonzero(mask)
            place = rows[np.argsort(-score[rows], kind="stable")]
            keys[place] = (np.arange(len(rows)) + 0.5) / len(rows) + kind * 1e-9
        expected.append(ndcg(np.argsort(keys)[None], np.array([right]))[0])
    came = case.measured.curve[order, base][0.25]["ndcg@10"]
    np.testing.assert_allclose(came.mean(), np.mean(expected), atol=2e-3)


def test_the_backfill_curve_ends_at_its_base_and_at_re_embedding(case: Case) -> None:
    for (_, base), levels in case.measured.curve.items():
        for p, name in ((0.0, base), (1.0, "re-embed")):
            assert torch.equal(levels[p]["ndcg@10"], case.measured.metrics[name]["ndcg@10"])


@pytest.mark.parametrize("first", [True, False])
def test_merged_ranks_are_places_in_the_merge(first: bool) -> None:
    for own, other in ((3, 7), (7, 3), (5, 5), (1, 12), (12, 1), (8, 4)):
        keys = [((j - 0.5) / own, 0 if first else 1, j) for j in range(1, own + 1)]
        keys += [((j - 0.5) / other, 1 if first else 0, -j) for j in range(1, other + 1)]
        places = {j: place for place, (_, _, j) in enumerate(sorted(keys), 1) if j > 0}
        ranks = torch.arange(1, own + 1)
        came = merged(ranks, own, other, first=first)
        assert came.tolist() == [places[j] for j in ranks.tolist()]


def test_the_size_curve_ends_at_the_whole_gallery(case: Case) -> None:
    sizes = case.measured.sizes
    assert list(sizes) == [300, 600]
    for name, metrics in sizes[600].items():
        assert torch.equal(metrics["ndcg@10"], case.measured.metrics[name]["ndcg@10"])
    smaller = sizes[300]["stay"]["ndcg@10"].mean()
    assert smaller > sizes[600]["stay"]["ndcg@10"].mean()  # fewer distractors flatter


def test_a_thin_pool_estimates_the_same_overlap(case: Case) -> None:
    """Horvitz-Thompson: over many draws of a tenth of the rows the estimate is that of the full pool at the same k."""
    rng = np.random.default_rng(3)
    k, whole = 50, case.scores("re-embed")
    top = torch.from_numpy(np.argsort(-case.scores("map"), axis=1)[:, :k].copy())
    order = torch.from_numpy(np.argsort(-whole, axis=1).copy())
    every = Pool(torch.ones(600), lambda rows: rows, 1)
    full = Truth(order[:, :k], torch.ones(len(order), k, dtype=torch.float64), k).overlap(top).mean()
    assert every.full
    came = []
    for _ in range(40):
        inside = np.zeros(600, bool)
        inside[rng.permutation(600)[:120]] = True
        weight = torch.from_numpy(inside * 5.0)
        pooled = torch.stack([row[torch.from_numpy(inside)[row]] for row in order])
        found = type("Found", (), {"top": pooled[:, :k]})()
        came.append(float(Truth.of(found, Pool(weight.float(), lambda rows: rows, 1), k).overlap(top).mean()))
    assert np.mean(came) == pytest.approx(float(full), abs=0.03)
    assert np.std(came) > 0


def test_blocks_and_chunks_do_not_show(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    from suture.stitching.gallery import scan

    monkeypatch.setattr(scan, "CHUNK", 17)
    held = case.inputs.gallery
    small = replace(held, blocks=lambda: (part for block in held.blocks() for part in torch.split(block, 101)))
    systems = Systems(replace(case.inputs, gallery=small), case.maps)
    again = measure(systems, traffic=None, seed=0, progress=progress)
    for name, metrics in case.measured.metrics.items():
        assert float((again.metrics[name]["ndcg@10"] - metrics["ndcg@10"]).abs().mean()) < 2e-3, name
