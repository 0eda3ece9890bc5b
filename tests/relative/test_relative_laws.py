"""Relative representations: each similarity is invariant to its group, anchors are what they say, and ways back."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from suture.aligners import (
    Affine,
    InverseRelative,
    Moments,
    Pairs,
    ProductOfInvariances,
    RefusedError,
    RelativeRepresentation,
    Survey,
    SutureError,
    UsageError,
)
from suture.aligners.relative.anchors import CHOICES, anchor_pairs, farthest_points
from suture.aligners.relative.map import Product, Relative
from suture.aligners.relative.product import linear_cka
from suture.aligners.relative.similarity import SIMILARITIES, path_lengths, relative_map

N, P, K = 60, 5, 12


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(seed: int) -> Tensor:
    return torch.linalg.qr(normal(P, P, seed=seed))[0]


def signed_permutation(seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (P,), generator=g).double() * 2 - 1
    return torch.eye(P, dtype=torch.float64)[torch.randperm(P, generator=g)] * signs


def invertible(seed: int) -> Tensor:
    return rotation(seed) @ torch.diag(torch.linspace(0.3, 3, P, dtype=torch.float64)) @ rotation(seed + 1)


GROUPS = {"rotation": rotation, "signed permutation": signed_permutation, "invertible": invertible}
# similarity: the largest group that leaves it as it is, whether translations do (with and without centring), and scale.
INVARIANT = {
    "cosine": ("rotation", True, False, True),
    "inner": ("rotation", True, False, False),
    "basis": ("invertible", True, False, True),
    "euclidean": ("rotation", True, True, False),
    "l1": ("signed permutation", True, True, False),
    "linf": ("signed permutation", True, True, False),
    "angular": ("rotation", True, False, True),
    "geodesic": ("rotation", True, True, False),
    "whitened": ("invertible", True, True, True),
}


def relative(similarity: str, x: Tensor, centre: bool) -> Tensor:
    """Relative rows of ``x`` to its own first rows."""
    mapping = relative_map(similarity, x[:K], centre=centre, moments=Moments.of(x, x), rows=x[:40], neighbours=6)
    return mapping(x)


def changed(a: Tensor, b: Tensor) -> bool:
    return float((a - b).abs().max()) > 1e-3


def test_every_similarity_is_tried() -> None:
    assert set(INVARIANT) == set(SIMILARITIES)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
@pytest.mark.parametrize("similarity", INVARIANT)
def test_a_similarity_is_invariant_to_its_group_and_to_no_larger_one(similarity: str, seed: int) -> None:
    group, shift_centred, shift_plain, scale = INVARIANT[similarity]
    x, turn = normal(N, P, seed=seed) + 0.3, GROUPS[group](seed + 1)
    # Near a cosine of 1 arccos turns a rounding of 2e-16 into sqrt(2 * 2e-16) / pi = 7e-9, twice.
    atol = 1e-7 if similarity == "angular" else 1e-8
    for centre in (True, False):
        plain = relative(similarity, x, centre)
        torch.testing.assert_close(relative(similarity, x @ turn, centre), plain, rtol=0, atol=atol)
        moved = relative(similarity, x + 2 * normal(P, seed=seed + 2), centre)
        assert changed(moved, plain) != (shift_centred if centre else shift_plain)
        assert changed(relative(similarity, 3 * x, centre), plain) != scale
    if group != "invertible":
        assert changed(relative(similarity, x @ invertible(seed), True), relative(similarity, x, True))
    if group == "signed permutation":
        assert changed(relative(similarity, x @ rotation(seed), True), relative(similarity, x, True))


def test_each_similarity_by_its_formula() -> None:
    x, a = normal(N, P, seed=1), normal(K, P, seed=2)
    c = a.mean(0)
    z, b = x - c, a - c
    cosine = normalize(z, dim=1) @ normalize(b, dim=1).T
    expected = {
        "cosine": cosine,
        "angular": cosine.arccos() / math.pi,
        "inner": z @ b.T / math.sqrt(P),
        "basis": torch.linalg.lstsq(b.T, z.T, driver="gelsd").solution.T,
        "euclidean": (z[:, None] - b).square().sum(2).sqrt(),
        "l1": (z[:, None] - b).abs().sum(2),
        "linf": (z[:, None] - b).abs().amax(2),
    }
    for similarity, want in expected.items():
        torch.testing.assert_close(relative_map(similarity, a)(x), want, rtol=0, atol=1e-9)
    m = Moments.of(x, x)
    covariance = torch.cov(x.T, correction=0)
    want = (x - x.mean(0)) @ torch.linalg.inv(covariance) @ (a - x.mean(0)).T
    torch.testing.assert_close(relative_map("whitened", a, moments=m)(x), want, rtol=0, atol=1e-8)


def test_geodesic_goes_round_the_circle_and_not_across() -> None:
    angle = torch.linspace(0, 1.5 * math.pi, 400, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    anchors = circle[[0, 399]]
    mapping = relative_map("geodesic", anchors, rows=circle, neighbours=4)
    found = mapping(circle[[0, 100, 200, 300, 399]])
    along = angle[[0, 100, 200, 300, 399]]
    torch.testing.assert_close(found[:, 0], along, rtol=0, atol=0.01)
    torch.testing.assert_close(found[:, 1], 1.5 * math.pi - along, rtol=0, atol=0.01)


def test_a_graph_in_pieces_is_refused() -> None:
    x = torch.cat([normal(20, 3, seed=1), normal(20, 3, seed=2) + 100])
    with pytest.raises(RefusedError, match="more neighbours"):
        path_lengths(x, x[:3], 3)


def test_whitening_keeps_to_the_directions_that_vary_and_shrinkage_gives_up_invariance() -> None:
    flat = normal(N, 3, seed=1) @ normal(3, P, seed=2)
    plain = relative_map("whitened", flat[:K], moments=Moments.of(flat, flat))(flat)
    turn = invertible(3)
    turned = relative_map("whitened", flat[:K] @ turn, moments=Moments.of(flat @ turn, flat))(flat @ turn)
    torch.testing.assert_close(turned, plain, rtol=0, atol=1e-7)
    x = normal(N, P, seed=1)
    shrunk = [relative_map("whitened", r[:K], moments=Moments.of(r, r), shrinkage=0.3)(r) for r in (x, x @ turn)]
    assert changed(*shrunk)
    few = normal(P, P, seed=4)
    with pytest.raises(RefusedError, match="more rows than dims"):
        relative_map("whitened", few[:2], moments=Moments.of(few, few))


def test_collinear_anchors_make_no_basis() -> None:
    a = normal(3, P, seed=1)
    with pytest.raises(RefusedError, match="collinear"):
        relative_map("basis", torch.cat([a, a[:1] * 2, a[1:2] * 3]), centre=False)


def world(n: int = 150, p: int = 7, q: int = 9, noise: float = 0.05, seed: int = 0) -> tuple[Tensor, Tensor]:
    z = normal(n, 5, seed=seed)
    return (
        z @ torch.linalg.qr(normal(p, 5, seed=1))[0].T + noise * normal(n, p, seed=2) + 1,
        z @ torch.linalg.qr(normal(q, 5, seed=3))[0].T + noise * normal(n, q, seed=4) - 1,
    )


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_both_sides_land_in_one_space_whatever_their_dims(similarity: str) -> None:
    x, y = world()
    alignment = RelativeRepresentation(anchors=20, similarity=similarity).fit(x, y)
    assert alignment.shared_dim == 20
    a, b = alignment.map_of("source")(x), alignment.map_of("target")(y)
    mates = (torch.cdist(a - a.mean(0), b - b.mean(0)).argmin(1) == torch.arange(len(x))).double().mean()
    # Unlike the others, l1 and linf feel the rotation between the spaces, and whitening the noise dims.
    assert float(mates) > (0.02 if similarity in ("l1", "linf", "whitened", "basis") else 0.5)
    for here, there in (("source", "target"), ("target", "source")):
        rows, want = (x, y) if here == "source" else (y, x)
        mapped = alignment.translate(here, there)(rows)
        assert float((mapped - want).square().sum() / (want - want.mean(0)).square().sum()) < 0.4


def survey(n: int = 80, keys: Tensor | None = None) -> Survey:
    return Survey.of(Pairs.of(normal(n, 4, seed=1), normal(n, 6, seed=2), keys))


@pytest.mark.parametrize("choice", CHOICES)
def test_anchors_are_pairs_of_the_dumps_each_at_most_once_and_the_same_for_a_seed(choice: str) -> None:
    s = survey(keys=torch.arange(80) // 8)
    first, second, other = (anchor_pairs("test", s, 30, choice, top=50, seed=k) for k in (0, 0, 1))
    assert len(torch.unique(first.x, dim=0)) == 30
    rows = torch.cdist(first.x, normal(80, 4, seed=1)).argmin(1)
    assert torch.equal(first.x, normal(80, 4, seed=1)[rows])
    assert torch.equal(first.y, normal(80, 6, seed=2)[rows])
    assert torch.equal(first.x, second.x)
    assert not torch.equal(first.x, other.x)
    with pytest.raises(UsageError, match="at most as many anchors"):
        anchor_pairs("test", s, 81, choice, top=80, seed=0)


def test_top_k_anchors_are_among_the_first_pairs() -> None:
    found = anchor_pairs("test", survey(), 10, "top-k", top=12, seed=0)
    assert set(torch.cdist(found.x, normal(80, 4, seed=1)).argmin(1).tolist()) <= set(range(12))
    with pytest.raises(UsageError, match="the 12 pairs"):
        anchor_pairs("test", survey(), 13, "top-k", top=12, seed=0)


def test_stratified_anchors_are_as_many_of_each_group_as_there_can_be() -> None:
    keys = torch.tensor([1] * 50 + [2] * 20 + [3] * 3 + [4] * 7)
    found = anchor_pairs("test", survey(keys=keys), 23, "stratified", top=1, seed=0)
    assert sorted(torch.unique(found.keys, return_counts=True)[1].tolist()) == [3, 6, 7, 7]
    with pytest.raises(UsageError, match="pairs in groups"):
        anchor_pairs("test", survey(), 10, "stratified", top=1, seed=0)


def test_farthest_points_against_brute_force() -> None:
    x = normal(40, 3, seed=1)
    found = farthest_points(x, 10, 7).tolist()
    assert found[0] == 7
    for i in range(1, 10):
        assert found[i] == int(torch.cdist(x, x[found[:i]]).amin(1).argmax())
    doubles = torch.ones(5, 2, dtype=torch.float64)
    assert sorted(farthest_points(doubles, 5, 2).tolist()) == [0, 1, 2, 3, 4]


def test_kmeans_anchors_cover_clusters() -> None:
    centres = torch.eye(4, dtype=torch.float64) * 10
    x = centres.repeat_interleave(20, 0) + 0.1 * normal(80, 4, seed=1)
    found = anchor_pairs("test", Survey.of(Pairs.of(x, x)), 4, "kmeans", top=1, seed=0)
    assert sorted(found.x.argmax(1).tolist()) == [0, 1, 2, 3]


def test_quantised_similarities() -> None:
    x, a = normal(N, P, seed=1), normal(K, P, seed=2)
    plain = relative_map("cosine", a)
    settings_ = {**plain.settings(), "step": 0.1}
    rounded = Relative.build(plain.tensors(), {**settings_, "quantised": "similarities"})(x)
    torch.testing.assert_close(rounded * 10, (rounded * 10).round(), rtol=0, atol=1e-12)
    assert float((rounded - plain(x)).abs().max()) <= 0.05 + 1e-12
    smooth = Relative.build(plain.tensors(), {**settings_, "quantised": "smooth"})(x)
    torch.testing.assert_close(smooth, plain(x) - torch.sin(20 * math.pi * plain(x)) * 0.1 / (2 * math.pi))
    coarse = Relative.build(plain.tensors(), {**settings_, "quantised": "coordinates"})
    torch.testing.assert_close(coarse(x), plain((x * 10).round() / 10))
    assert (
        RelativeRepresentation(anchors=9, quantised="similarities").fit(*world()).map_of("source")(world()[0]).max()
        <= 1
    )


def test_unit_relative_rows() -> None:
    alignment = RelativeRepresentation(anchors=9, unit=True).fit(*world())
    length = torch.linalg.vector_norm(alignment.map_of("target")(world()[1]), dim=1)
    torch.testing.assert_close(length, torch.ones_like(length))


def test_the_product_is_its_parts_standardised_and_weighted() -> None:
    x, y = world()
    alignment = ProductOfInvariances(anchors=20, similarities="cosine, euclidean", weighting="cka").fit(x, y)
    mapping, weights = alignment.map_of("source"), alignment.provenance["block_weights"]
    assert isinstance(mapping, Product)
    assert mapping.target_dim == 40
    anchors = anchor_pairs("test", Survey.of(Pairs.of(x, y)), 20, "uniform", top=1, seed=0).x
    for block, sign, similarity in ((slice(0, 20), 1, "cosine"), (slice(20, 40), -1, "euclidean")):
        own, rows = relative_map(similarity, anchors)(anchors), relative_map(similarity, anchors)(x)
        want = normalize(sign * (rows - own.mean(0)) / own.std(0, correction=0), dim=1) * weights[block.start // 20]
        torch.testing.assert_close(mapping(x)[:, block], want, rtol=0, atol=1e-9)
    average = ProductOfInvariances(anchors=20, similarities="cosine,euclidean", join="average").fit(x, y)
    assert average.shared_dim == 20
    assert alignment.shared_dim == 40


def test_linear_cka_knows_rotations_from_noise() -> None:
    x = normal(200, 5, seed=1)
    assert linear_cka(x, 3 * x @ rotation(2) + 1) == pytest.approx(1)
    assert linear_cka(x, normal(200, 5, seed=3)) < 0.2


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_inverse_projection_is_exact_on_a_planted_rotation(seed: int, scale: float) -> None:
    x = normal(80, P, seed=seed)
    y = scale * x @ rotation(seed + 1) + normal(P, seed=seed + 2)
    for anchors in (P, 20, None):
        mapping = InverseRelative(anchors=anchors, eps=0.0).fit(x[:60], y[:60]).translate()
        assert isinstance(mapping, Affine)
        # The ratio of lengths is the scale exactly: rotations keep them.
        torch.testing.assert_close(mapping(x) / scale, y / scale, rtol=0, atol=1e-5)


def test_inverse_projection_reports_its_condition_and_refuses_what_it_cannot_solve() -> None:
    x = normal(80, P, seed=1)
    provenance = InverseRelative(anchors=P, starts=3).fit(x, x @ rotation(2)).provenance
    assert len(provenance["condition"]) == 3
    assert all(1 <= c < 1e4 for c in provenance["condition"])
    flat = normal(80, 2, seed=3) @ normal(2, P, seed=4)
    with pytest.raises(RefusedError, match="collinear"):
        InverseRelative(eps=0.0).fit(x, flat)
    InverseRelative().fit(x, flat)
    with pytest.raises(UsageError, match="at most the 80"):
        InverseRelative(anchors=81).fit(x, x)


def test_pruning_stops_when_every_row_has_an_anchor_near() -> None:
    x = normal(300, 3, seed=1)
    few = InverseRelative(prune=0.3, starts=2).fit(x, x).provenance["anchors"]
    more = InverseRelative(prune=0.05, starts=2).fit(x, x).provenance["anchors"]
    assert all(3 <= a < b < 300 for a, b in zip(few, more, strict=True))


def test_relative_maps_have_no_inverse_and_refuse_what_does_not_fit() -> None:
    with pytest.raises(RefusedError, match="has no inverse"):
        RelativeRepresentation(anchors=9).fit(*world()).map_of("source").inverse()
    with pytest.raises(RefusedError, match="has no inverse"):
        ProductOfInvariances(anchors=9).fit(*world()).map_of("source").inverse()
    a, c, k = normal(3, P, seed=1), normal(P, seed=2), normal(3, seed=3)
    with pytest.raises(SutureError, match="fit together"):
        Relative(a, c, k, c)
    with pytest.raises(SutureError, match="a graph if geodesic"):
        Relative(a, c, k, k, readout="geodesic")
