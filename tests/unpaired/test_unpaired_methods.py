"""Alignment without pairs: planted worlds are found, seeds are kept, and what cannot be aligned is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from unpaired_worlds import cloud, disjoint, permuted, right, rotation

from suture.aligners import ALIGNERS, Affine, RefusedError, SutureError, UnpairedAligner, UsageError
from suture.aligners.polar import polar
from suture.aligners.unpaired.anchors import AnchorBootstrap, bootstrapped
from suture.aligners.unpaired.clouds import Clouds, checked_seeds, sampled_rows
from suture.aligners.unpaired.csls import csls, mutual_pairs, nearest
from suture.aligners.unpaired.graph_matching import GraphMatching, kernel, matched
from suture.aligners.unpaired.mini_vec2vec import MiniVec2Vec
from suture.aligners.unpaired.refine import agreement, holds_out, mutual_share, refine
from suture.aligners.unpaired.seeded import Seeded
from suture.aligners.unpaired.signatures import signatures
from suture.aligners.unpaired.vecmap import VecMap, sorted_similarities

UNPAIRED = {name: kind for name, kind in ALIGNERS.items() if issubclass(kind, UnpairedAligner)}
SEEDS = torch.arange(20)[:, None].expand(-1, 2)


def test_the_registry_holds_the_family() -> None:
    expected = {
        "anchor-bootstrap",
        "seeded",
        "mini-vec2vec",
        "vecmap",
        "gromov-wasserstein",
        "wasserstein-procrustes",
        "graph-matching",
        "prototype-transport",
    }
    assert set(UNPAIRED) == expected
    assert {kind.name for kind in UNPAIRED.values()} == expected


def test_csls_is_its_formula() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 5, generator=g), torch.randn(25, 5, generator=g)
    u, v = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
    cosine = u @ v.T
    naive = torch.empty(30, 25)
    for i in range(30):
        for j in range(25):
            near = cosine[i].sort(descending=True).values[:10].mean()
            far = cosine[:, j].sort(descending=True).values[:10].mean()
            naive[i, j] = 2 * cosine[i, j] - near - far
    torch.testing.assert_close(csls(x, y), naive)
    assert torch.equal(nearest(u, v, 1)[:, 0], naive.argmax(1))


def test_mutual_pairs_are_each_others_best() -> None:
    scores = torch.tensor([[3.0, 1.0, 0.0], [2.0, 1.5, 0.0], [0.0, 0.0, 9.0]])
    assert mutual_pairs(scores).tolist() == [[0, 0], [2, 2]]


def test_signatures_know_no_coordinates_and_no_order() -> None:
    x, y, order = permuted(200, 12)
    a, b = Clouds.of(x, y, torch.empty((0, 2), dtype=torch.int64)).x, Clouds.of(x, y, order[:0, None].expand(-1, 2)).y
    torch.testing.assert_close(
        sorted_similarities(a.double())[order], sorted_similarities(b.double()), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(signatures(a, a[order[:9]])[order], signatures(b, b[:9]), atol=1e-4, rtol=0)


def test_permutation_and_rotation_are_found_without_pairs() -> None:
    x, y, order = permuted(2000, 64)
    alignment = VecMap().fit_unpaired(x, y)
    mapping = alignment.translate()
    assert isinstance(mapping, Affine)
    assert right(mapping(x)[order], y) >= 0.95
    torch.testing.assert_close(mapping.weight, rotation(64, 1), atol=1e-4, rtol=0)
    assert alignment.provenance["mutual_neighbours"] >= 0.95


# Of world 0 so few draws find nothing on some processors, and 20 draws with 30 restarts find it in 24 s.
@pytest.mark.parametrize(
    ("name", "world"),
    [("mini-vec2vec", 1), ("gromov-wasserstein", 0), ("graph-matching", 0), ("prototype-transport", 0)],
)
def test_other_methods_find_it_too(name: str, world: int) -> None:
    x, y, order = permuted(300, 16, world)
    quick = {"mini-vec2vec": {"draws": 15, "restarts": 10}, "gromov-wasserstein": {"starts": 2}}
    assert right(UNPAIRED[name](**quick.get(name, {})).fit_unpaired(x, y).translate()(x)[order], y) >= 0.95


def test_a_few_seeds_are_enough_between_rows_that_share_no_item() -> None:
    x, y, held_x, held_y = disjoint(1500, 32, 20)
    alignment = Seeded().fit_unpaired(x, y, seeds=SEEDS)
    mapping = alignment.translate()
    assert isinstance(mapping, Affine)
    assert right(mapping(held_x), held_y) > 0.95
    assert mapping.deviation() < 1e-5
    assert alignment.provenance["seeds_found"] > 0.9
    assert (alignment.provenance["rows"], alignment.provenance["unpaired_rows"]) == (20, [1520, 1500])
    assert {name: space.dim for name, space in alignment.spaces.items()} == {"source": 32, "target": 32}
    assert all(space.canaries is not None and space.fingerprint for space in alignment.spaces.values())


def test_the_same_seed_gives_the_same_bits_and_the_global_generator_is_left_alone() -> None:
    x, y, *_ = disjoint(400, 16, 20)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    maps = [Seeded(rounds=5).fit_unpaired(x, y, seeds=SEEDS, seed=s).translate().tensors()["weight"] for s in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_numpy_and_unequal_dims() -> None:
    x, y, held_x, held_y = disjoint(600, 24, 20)
    wide = torch.cat([y, 0.01 * y[:, :8]], 1)
    mapped = Seeded().fit_unpaired(x.numpy(), wide.numpy(), seeds=SEEDS.numpy()).translate()(held_x)
    assert right(mapped[:, :24], held_y) > 0.9
    back = Seeded().fit_unpaired(wide, x, seeds=SEEDS).translate()(torch.cat([held_y, 0.01 * held_y[:, :8]], 1))
    assert right(back, held_x) > 0.9


def test_seeds_are_kept_in() -> None:
    x, y, *_ = disjoint(300, 16, 20, noise=1.0)
    clouds = Clouds.of(x, y, SEEDS)
    options = {"rounds": 5, "batch": 300, "k": 10, "blend": 0.5, "seed": 0}
    start = torch.eye(16)
    fits = []
    for weight in (0.0, 1000.0):
        turned = refine(start, clouds, seed_weight=weight, **options)
        fits.append(float(torch.cosine_similarity(clouds.x[:20] @ turned, clouds.y[:20]).mean()))
    assert fits[1] > fits[0] + 0.1


@pytest.mark.parametrize("name", ["vecmap", "mini-vec2vec", "graph-matching", "prototype-transport"])
def test_unrelated_clouds_are_refused_with_the_evidence(name: str) -> None:
    quick = {"vecmap": {"patience": 2}, "mini-vec2vec": {"draws": 5, "restarts": 3}, "graph-matching": {"nodes": 200}}
    quick["prototype-transport"] = {"starts": 1, "nodes": 300}
    with pytest.raises(RefusedError, match=r"could not be aligned.*halves.*agree.*mutual"):
        UNPAIRED[name](**quick[name]).fit_unpaired(cloud(500, 24), cloud(500, 24, seed=9))


@pytest.mark.parametrize(("turn", "least", "most"), [(5, 0.3, 1.0), (6, 0.0, 0.05)])
def test_right_maps_are_found_again_from_a_few_pairs_and_wrong_ones_are_not(
    turn: int, least: float, most: float
) -> None:
    x, y, *_ = disjoint(1500, 32, 0)
    clouds, method = Clouds.of(x, y, SEEDS[:0]), Seeded(rounds=10)
    weight = method.pulled(rotation(32, turn).float(), clouds, 0)
    again = [method.found_again(weight, clouds.half(part, 0), part) for part in (0, 1)]
    assert least <= agreement(again[0], again[1], clouds, 0) <= most


@pytest.mark.parametrize(("world", "turn"), [(0, 1), (0, 7), (1, 7), (2, 1)])
def test_wrong_seeds_are_refused(world: int, turn: int) -> None:
    x, y, *_ = disjoint(800, 32, 20, world=world)
    wrong = SEEDS.clone()
    wrong[:, 1] = wrong[:, 1].roll(turn)
    with pytest.raises(RefusedError, match=r"Of 20 seed pairs, each hidden in its turn, [0-5] came.*Check the seed"):
        Seeded().fit_unpaired(x, y, seeds=wrong)


def test_seeds_of_unrelated_spaces_are_refused_by_every_method_that_takes_them() -> None:
    for aligner in (MiniVec2Vec(draws=2, restarts=1), GraphMatching(nodes=100, restarts=1)):
        with pytest.raises(RefusedError, match="Of 20 seed pairs"):
            aligner.fit_unpaired(cloud(300, 24), cloud(300, 24, seed=9), seeds=SEEDS)


def test_a_few_wrong_seeds_among_many_are_borne_and_counted() -> None:
    x, y, held_x, held_y = disjoint(800, 32, 20)
    some = SEEDS.clone()
    some[:3, 1] = some[:3, 1].roll(1)
    alignment = Seeded().fit_unpaired(x, y, seeds=some)
    assert 0.6 <= alignment.provenance["seeds_found"] <= 0.9
    assert right(alignment.translate()(held_x), held_y) > 0.5


def test_rows_that_are_hardly_more_than_dims_are_no_evidence() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(150, 300, generator=g), torch.randn(150, 300, generator=g)
    clouds = Clouds.of(x, y, SEEDS[:0])
    memorised = polar(clouds.x.T @ clouds.y)
    assert mutual_share(memorised, clouds) > 0.9
    assert holds_out(memorised, clouds, 0) < 0.2
    true = Clouds.of(*permuted(150, 64)[:2], SEEDS[:0])
    assert holds_out(rotation(64, 1).float(), true, 0) > 0.99


def test_halves_have_nothing_in_common() -> None:
    x, y, *_ = disjoint(300, 16, 20)
    clouds = Clouds.of(x, y, SEEDS)
    one, other = clouds.half(0, 3), clouds.half(1, 3)
    assert len(one.x) + len(other.x) == len(x)
    assert len(torch.cat([one.y, other.y]).unique(dim=0)) == len(y)
    assert len(one.seeds) == len(other.seeds) == 0


def test_kernel_and_known_nodes_of_graph_matching() -> None:
    x, y, order = permuted(40, 8)
    k = kernel(x)
    assert float(torch.linalg.norm(k)) == pytest.approx(1)
    assert float(k.sum(0).abs().max()) < 1e-12
    torch.testing.assert_close(kernel(y), k[order][:, order])
    found = matched(k, kernel(y), restarts=20)
    assert torch.equal(order[found], torch.arange(40))
    known = torch.cat([torch.arange(10), 10 + torch.randperm(30, generator=torch.Generator().manual_seed(1))])
    assert torch.equal(matched(k, k[known][:, known], known=10)[:10], torch.arange(10))


@pytest.mark.parametrize("name", UNPAIRED)
def test_pairs_are_refused_and_the_right_option_named(name: str) -> None:
    x = cloud(60, 6)
    with pytest.raises(UsageError, match="--unpaired"):
        UNPAIRED[name]().fit(x, x)


@pytest.mark.parametrize("name", UNPAIRED)
@pytest.mark.parametrize("bad", [{"limit": 0}, {"rounds": 1.5}, {"blend": 0.0}, {"seed_weight": -1.0}, {"batch": True}])
def test_bad_parameters_are_refused(name: str, bad: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=name):
        UNPAIRED[name](**bad)


@pytest.mark.parametrize(
    ("seeds", "error", "words"),
    [
        ([[0, 1], [0, 2]], RefusedError, "more than once"),
        ([[0, 1], [2, 1]], RefusedError, "target row once"),
        ([[0, 99]], SutureError, "within 0..49"),
        ([[-1, 0]], SutureError, "source rows within"),
        ([0, 1], SutureError, "shape"),
        ([[0.5, 1.0]], SutureError, "row numbers"),
    ],
)
def test_bad_seeds_are_refused(seeds: list[object], error: type[SutureError], words: str) -> None:
    with pytest.raises(error, match=words):
        checked_seeds(seeds, 50, 50)  # type: ignore[arg-type]


def test_too_few_seeds_or_rows() -> None:
    x = cloud(80, 8)
    with pytest.raises(RefusedError, match="at least 5 seed pairs, got 2"):
        Seeded().fit_unpaired(x, x, seeds=[(0, 0), (1, 1)])
    with pytest.raises(RefusedError, match="at least 50 rows"):
        VecMap().fit_unpaired(x[:20], x)
    with pytest.raises(RefusedError, match="rows that differ"):
        VecMap().fit_unpaired(torch.ones(80, 8), x)
    with pytest.raises(SutureError, match="finite"):
        VecMap().fit_unpaired(x * torch.nan, x)


def test_self_learning_that_does_not_settle_says_so() -> None:
    with pytest.raises(SutureError, match="settle within 3 rounds"):
        VecMap(most_rounds=3).fit_unpaired(cloud(200, 8), cloud(200, 8, seed=5))


def test_samples_hold_the_seeds_and_depend_on_the_seed_alone() -> None:
    always = torch.tensor([5, 900])
    drawn = sampled_rows(1000, 100, 3, always)
    assert len(drawn) == 100
    assert bool(torch.isin(always, drawn).all())
    assert torch.equal(drawn, sampled_rows(1000, 100, 3, always))
    assert torch.equal(drawn, drawn.unique())
    x, y, held_x, held_y = disjoint(1500, 32, 20)
    small = replace(Seeded(), limit=900).fit_unpaired(x, y, seeds=SEEDS)
    assert small.provenance["unpaired_rows"] == [900, 900]
    assert right(small.translate()(held_x), held_y) > 0.8


def test_anchors_are_found_from_ten_pairs() -> None:
    x, y, order = permuted(800, 32)
    seeds = torch.stack([order[:10], torch.arange(10)], 1)
    clouds = Clouds.of(x, y, seeds)
    found = bootstrapped(clouds, anchors=200, step=40, pool=800, seed=0)
    assert len(found) == 200
    assert torch.equal(found[:10], seeds)
    assert float((order[found[:, 1]] == found[:, 0]).double().mean()) > 0.95
    mapping = AnchorBootstrap().fit_unpaired(x, y, seeds=seeds).translate()
    assert right(mapping(x)[order], y) > 0.95


def test_graph_matching_uses_seeds() -> None:
    x, y, order = permuted(200, 16)
    seeds = torch.stack([order[:20], torch.arange(20)], 1)
    assert right(GraphMatching(nodes=200, restarts=1).fit_unpaired(x, y, seeds=seeds).translate()(x)[order], y) > 0.95
