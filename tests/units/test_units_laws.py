"""Units and subspaces: planted permutations, sparse maps, shared directions and orders are found."""

import pytest
import torch
from torch import Tensor

from suture.aligners import (
    Affine,
    ExpandOrthogonal,
    Moments,
    Pairs,
    Procrustes,
    RefusedError,
    SharedPrivate,
    SparseUnits,
    Survey,
    UnitMatching,
    UsageError,
)
from suture.aligners.maps import Identity
from suture.aligners.named.simplex import simplex, simplex_map
from suture.aligners.units.clusters import cluster_units, sharedness
from suture.aligners.units.matching import matched_units
from suture.aligners.units.order import nested, shortened, truncated
from suture.aligners.units.recombine import block_weights, held_out_r2, recombined
from suture.aligners.units.sparse import lasso
from suture.aligners.units.split import contrast, split


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weight(mapping: object) -> Tensor:
    assert isinstance(mapping, Affine)
    return mapping.weight


def test_a_permutation_with_signs_and_scales_is_recovered() -> None:
    x, order = normal(500, 12) + 3, torch.randperm(12, generator=torch.Generator().manual_seed(1))
    scales = torch.linspace(-2, 3, 12, dtype=torch.float64)
    y = x[:, order] * scales + 5
    for kind in ("bipartite", "semi"):
        torch.testing.assert_close(UnitMatching(kind=kind).fit(x, y).translate()(x), y)  # type: ignore[arg-type]
    signed = weight(UnitMatching(signed=True).fit(x, y).translate())
    assert bool((signed >= 0).all())


def test_semi_takes_a_unit_twice_and_bipartite_does_not() -> None:
    c = torch.tensor([[0.9, 0.8], [0.1, 0.3]])
    assert matched_units(c, "semi")[0].tolist() == [0, 0]
    assert matched_units(c, "bipartite")[0].tolist() == [0, 1]


def test_a_sparse_map_is_found_and_its_optimum_holds() -> None:
    x = normal(2000, 20)
    truth = torch.zeros(20, 8, dtype=torch.float64)
    truth[torch.arange(8), torch.arange(8)] = 1
    truth[torch.arange(8) + 10, torch.arange(8)] = -0.7
    y = x @ truth + 0.1 * normal(2000, 8, seed=1)
    found = SparseUnits().fit(x, y)
    assert torch.equal(weight(found.translate()).abs() > 0.05, truth != 0)
    assert 0 < found.provenance["params"]["penalty"] < 1
    gram, cross = x.T @ x / 2000, x.T @ y / 2000
    strong, w = lasso(gram, cross, torch.tensor([0.3, 0.1], dtype=torch.float64))
    assert int((strong != 0).sum()) <= int((w != 0).sum())
    slope = cross - gram @ w  # the subgradient conditions: at most the penalty, and it where a weight is not 0
    assert float(slope.abs().max()) <= 0.1 + 1e-3
    torch.testing.assert_close(slope[w != 0], 0.1 * w[w != 0].sign(), atol=1e-3, rtol=0)


def test_clusters_and_sharedness() -> None:
    z = normal(800, 3)
    x = z.repeat_interleave(4, 1) + 0.3 * normal(800, 12, seed=1)
    y = z.repeat_interleave(2, 1) + 0.3 * normal(800, 6, seed=2)
    found = cluster_units(Moments.of(x, y), 3)
    assert len(found.shared) == 3
    assert all(len(found.source[4 * i : 4 * i + 4].unique()) == 1 for i in range(3))
    assert found.target.tolist() == found.source[::2][:6].tolist()
    dead = torch.cat([x, torch.ones(800, 1)], 1)
    still = cluster_units(Moments.of(dead, y), 3)
    assert still.source[-1] == -1
    assert len(still.shared) == 3
    turned = sharedness(Moments.of(x[:, ::4], x[:, ::4] @ torch.linalg.qr(normal(3, 3, seed=5))[0]))
    assert turned["canonical"] > 0.99
    assert turned["bipartite"] < 0.95
    with pytest.raises(RefusedError, match="clusters"):
        cluster_units(Moments.of(x, y), 1)


def test_the_shared_rank_and_the_parts() -> None:
    z = normal(1500, 4)
    x = torch.cat([z, normal(1500, 6, seed=1)], 1) @ normal(10, 10, seed=2)
    y = torch.cat([z, normal(1500, 5, seed=3)], 1) @ normal(9, 9, seed=4)
    survey = Survey.of(Pairs.of(x, y))
    found = SharedPrivate(draws=40).fit_survey(survey)
    assert found.provenance["shared_rank"] == 4
    here, there = split(survey.moments, 4, eps=1e-6)
    shared, private = here.shared(x), here.private(x)
    assert private.shape == (1500, 6)
    assert float(shared.mean(0).abs().max()) < 1e-9
    cross = torch.corrcoef(torch.cat([shared, private], 1).T)[:4, 4:]
    assert float(cross.abs().max()) < 1e-6
    other = torch.corrcoef(torch.cat([private, there.shared(y)], 1).T)[:6, 6:]
    assert float(other.abs().max()) < 0.1
    with pytest.raises(RefusedError, match="no direction is shared"):
        SharedPrivate(draws=40).fit(normal(400, 6), normal(400, 6, seed=9))


def test_contrastive_directions() -> None:
    background = normal(1000, 8) * torch.linspace(5, 1, 8)
    target = normal(1000, 8, seed=1) * torch.linspace(5, 1, 8)
    target[:, 6] *= 4
    parts = contrast(Moments.of(target, target), Moments.of(background, background), 1)
    assert int(weight(parts.shared)[:, 0].abs().argmax()) == 6
    both = torch.cat([weight(parts.shared), weight(parts.private)], 1)
    torch.testing.assert_close(both.T @ both, torch.eye(8, dtype=torch.float64))


def test_the_expanded_form_is_isometric_and_old_first() -> None:
    new = normal(300, 10) @ normal(10, 10, seed=1)
    old = new @ normal(10, 6, seed=2)
    alignment = ExpandOrthogonal().fit(new, old)
    z = alignment.map_of("source")(new)
    torch.testing.assert_close(torch.cdist(z, z), torch.cdist(new, new), atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(alignment.translate()(new), Procrustes().fit(new, old).translate()(new))
    torch.testing.assert_close(alignment.map_of("target")(old)[:, :6], old - old.mean(0))
    spread = z[:, 6:].var(0)
    assert bool((spread[:-1] >= spread[1:]).all())
    back, plain = (aligner.fit(old, new).translate()(old) for aligner in (ExpandOrthogonal(), Procrustes()))
    torch.testing.assert_close(back, plain)


def test_nested_order_and_truncation() -> None:
    y = (
        normal(400, 16)
        @ torch.diag(torch.linspace(0.1, 3, 16, dtype=torch.float64))
        @ torch.linalg.qr(normal(16, 16))[0]
    )
    ordered = nested(Identity(16), y)
    torch.testing.assert_close(ordered(y) @ ordered(y).T, y @ y.T)
    short, plain = truncated(ordered, 4)(y), truncated(Identity(16), 4)(y)
    torch.testing.assert_close(short.norm(dim=1), torch.ones(400, dtype=torch.float64))
    exact = torch.nn.functional.normalize(y, dim=1)
    errors = [float((rows @ rows.T - exact @ exact.T).norm()) for rows in (short, plain)]
    assert errors[0] < 0.8 * errors[1]
    for dims in (0, 17):
        with pytest.raises(UsageError, match="1 to 16"):
            truncated(ordered, dims)


def test_simplex_targets_join_spaces_without_pairs() -> None:
    v = simplex(5)
    torch.testing.assert_close(v @ v.T, torch.full((5, 5), -0.25, dtype=torch.float64) + 1.25 * torch.eye(5))
    labels = torch.arange(500) % 5
    centres = 3 * normal(5, 12)
    x = (centres @ normal(12, 10, seed=3))[labels] + normal(500, 10, seed=4)
    y = (centres @ normal(12, 7, seed=5))[labels.flip(0)] + normal(500, 7, seed=6)
    here, there = simplex_map(x, labels, classes=5)(x), simplex_map(y, labels.flip(0), classes=5)(y)
    nearest = (torch.nn.functional.normalize(here, dim=1) @ torch.nn.functional.normalize(there, dim=1).T).argmax(1)
    assert float((labels.flip(0)[nearest] == labels).double().mean()) > 0.9
    with pytest.raises(UsageError, match=r"0\.\.4"):
        simplex_map(x, labels + 1, classes=5)
    with pytest.raises(RefusedError, match="at least two"):
        simplex_map(x, labels * 0, classes=5)


def test_an_alignment_is_cut_short_as_a_whole() -> None:
    x, y = normal(200, 6), normal(200, 6) @ normal(6, 8, seed=3) @ torch.diag(torch.linspace(2, 0.1, 8).double())
    alignment = Procrustes().fit(x, y)
    short = shortened(alignment, 3, y)
    assert [m.target_dim for m in short.maps.values()] == [3, 3]
    torch.testing.assert_close(short.map_of("target")(y), truncated(nested(Identity(8), y), 3)(y))
    torch.testing.assert_close(
        short.map_of("source")(x), truncated(nested(alignment.translate(), y), 3)(x), atol=1e-7, rtol=0
    )
    whole, less = shortened(alignment, 8, y).provenance["kept"], short.provenance["kept"]
    assert whole == {"squares": pytest.approx(1), "neighbours": pytest.approx(1)}
    assert 0.5 < less["squares"] < 1
    assert less["neighbours"] < 1
    plain = shortened(alignment, 3)
    torch.testing.assert_close(plain.map_of("target")(y), torch.nn.functional.normalize(y[:, :3], dim=1))
    with pytest.raises(RefusedError):
        short.translate()  # what was cut off is gone


def test_recombined_maps_are_judged_on_pairs_that_they_have_not_seen() -> None:
    x = normal(60, 6)
    maps = {name: Affine(normal(6, 8, seed=s), normal(8, seed=s + 5)) for s, name in enumerate(("one", "other"))}
    y = 0.7 * maps["one"](x) + 0.3 * maps["other"](x)
    options = {"blocks": 2, "alpha": 0.0, "positive": False}
    weights = block_weights([*maps.values()], x, y, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(weights, torch.tensor([[0.7, 0.7], [0.3, 0.3]], dtype=torch.float64))
    judged = held_out_r2(maps, x, y, **options)  # type: ignore[arg-type]
    assert judged is not None
    assert judged["recombined"] == pytest.approx(1)
    assert judged["recombined"] > judged["mean of all"] > judged["other"]
    noise = held_out_r2(maps, x, normal(60, 8, seed=9), blocks=8, alpha=0.0, positive=False)
    assert noise is not None
    assert noise["recombined"] < 0  # in-sample least squares would be above it
    assert held_out_r2(maps, x[:9], y[:9], **options) is None  # type: ignore[arg-type]


def test_blocks_of_maps_are_recombined() -> None:
    x = normal(40, 6)
    one, other = (Affine(normal(6, 8, seed=s), normal(8, seed=s + 5)) for s in (1, 2))
    y = torch.cat([one(x)[:, :4], other(x)[:, 4:]], 1)
    found = recombined([one, other], x, y, blocks=2, alpha=0.0)
    torch.testing.assert_close(found(x), y)
    held = normal(20, 6, seed=9)
    torch.testing.assert_close(recombined([one, other], x, y, blocks=2, alpha=0.0, positive=True)(held), found(held))
    mean = recombined([one, other], x, y, blocks=2, alpha=1e9)
    torch.testing.assert_close(mean(held), (one(held) + other(held)) / 2, atol=1e-5, rtol=1e-5)
    with pytest.raises(UsageError, match="same two spaces"):
        recombined([one, Affine(normal(5, 8), normal(8))], x, y)
