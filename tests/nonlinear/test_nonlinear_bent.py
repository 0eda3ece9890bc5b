"""Maps that bend: exactly linear where they start, and better than linear where the world is not."""

import pytest
import torch
from nonlinear_worlds import bent, planted, r2, rotation, two_rotations

from suture.aligners import MLP, LandmarkKernel, Local, Procrustes, RefusedError, Ridge, SutureError
from suture.aligners.nonlinear.kinds import Landmark, Mixture, Residual, gaussian, soft_cells


def test_the_residual_network_is_ridge_where_it_starts() -> None:
    x, y = planted(200, 7, 9)
    untrained = MLP(rate=1e-30, steps=10, hidden=8).fit(x, y).translate()
    torch.testing.assert_close(untrained(x), Ridge().fit(x, y).translate()(x), rtol=0, atol=1e-12)
    assert isinstance(untrained, Residual)
    assert float(untrained.outer.abs().max()) < 1e-25


def test_the_network_does_no_harm_where_there_is_nothing_to_bend() -> None:
    x, y = planted(1000, 7, 9, noise=0.5)
    train, test = slice(0, 500), slice(500, 1000)
    network = MLP(hidden=64).fit(x[train], y[train])
    facts = network.provenance["training"]["objective"]
    assert facts["best"] <= facts["start"]
    plain = Ridge().fit(x[train], y[train]).translate()
    assert r2(network.translate()(x[test]), y[test]) > r2(plain(x[test]), y[test]) - 0.01


@pytest.mark.parametrize(
    ("aligner", "least"), [(LandmarkKernel(base="ridge"), 0.9), (MLP(hidden=64, steps=600, rate=3e-3), 0.9)], ids=str
)
def test_a_known_bend_is_recovered_better_than_by_ridge(aligner: LandmarkKernel | MLP, least: float) -> None:
    (x, y), (new_x, new_y) = bent(3000), bent(500, seed=50)
    linear = r2(Ridge().fit(x, y).translate()(new_x), new_y)
    assert linear < 0.75
    assert r2(aligner.fit(x, y).translate()(new_x), new_y) > least


def test_landmarks_add_nothing_to_a_world_that_is_linear() -> None:
    x, y = planted(500, 7, 9)
    new_x, new_y = planted(700, 7, 9)
    plain, more = (a.fit(x, y).translate()(new_x[500:]) for a in (Ridge(), LandmarkKernel(base="ridge")))
    assert r2(more, new_y[500:]) > r2(plain, new_y[500:]) - 0.02


def test_with_all_rows_as_landmarks_it_is_kernel_ridge_regression() -> None:
    """Against the n by n system on the residuals of the base, centred as a ridge with an intercept centres it."""
    x, y = bent(60)
    aligner = LandmarkKernel(base="ridge", landmarks=60, alpha=0.1)
    mapping = aligner.fit(x, y).translate()
    assert isinstance(mapping, Landmark)
    kernel = gaussian(x - x.mean(0), x - x.mean(0), mapping.gamma)
    h = torch.eye(60, dtype=x.dtype) - 1 / 60
    centred = h @ kernel @ h
    penalty = 0.1 * float(torch.linalg.eigvalsh(centred).sum()) / 60  # features: 60, all of them useful here
    base = Ridge().fit(x, y).translate()(x)
    residual = y - base
    fitted = centred @ torch.linalg.solve(centred + penalty * torch.eye(60, dtype=x.dtype), h @ residual)
    torch.testing.assert_close(mapping(x), base + fitted + residual.mean(0), rtol=0, atol=1e-6)


def test_a_world_of_two_rotations_is_recovered() -> None:
    (x, y), (new_x, new_y) = two_rotations(800), two_rotations(200, seed=9)
    local = Local(cells=2, blend=0.0, scale=False, softness=0.05)
    mapping = local.fit(x, y).translate()
    assert isinstance(mapping, Mixture)
    assert r2(Procrustes().fit(x, y).translate()(new_x), new_y) < 0.6
    assert r2(mapping(new_x), new_y) > 0.999
    found = sorted(float((w - r).norm()) for w in mapping.weight for r in (rotation(6, 5), rotation(6, 6)))
    assert found[1] < 0.05 < 1 < found[2]


def test_one_cell_or_a_large_blend_is_one_rotation() -> None:
    x, y = planted(200, 8, 8)
    plain = Procrustes(scale=True).fit(x, y).translate()(x)
    torch.testing.assert_close(Local(cells=1).fit(x, y).translate()(x), plain, rtol=0, atol=1e-9)
    blended = Local(cells=3, blend=1e9, scale=False).fit(x, y).translate()
    assert isinstance(blended, Mixture)
    rotation_of_all = Procrustes().fit(x, y).translate().tensors()["weight"]
    torch.testing.assert_close(blended.weight, rotation_of_all.expand(3, 8, 8), rtol=0, atol=1e-6)


def test_gates_are_soft_and_sum_to_one() -> None:
    x, centres = planted(50, 4, 4)
    gates = soft_cells(x, centres[:3], 0.7)
    torch.testing.assert_close(gates.sum(1), torch.ones(50, dtype=x.dtype))
    expected = (-0.7 * torch.cdist(x, centres[:3]).square()).softmax(1)
    torch.testing.assert_close(gates, expected)
    torch.testing.assert_close(soft_cells(x + 1e6, centres[:3] + 1e6, 0.7), expected, rtol=0, atol=1e-6)


def test_what_is_left_open_is_settled() -> None:
    x, y = planted(150, 8, 8)
    assert Local().fit(x, y).provenance["params"]["cells"] in (2, 4, 8)
    assert LandmarkKernel().fit(x, y).provenance["params"]["base"] in ("procrustes", "rotation-ridge", "ridge")


def test_bent_maps_say_what_cannot_be_had() -> None:
    x, y = planted(100, 5, 5)
    for aligner in (MLP(steps=10, hidden=4), LandmarkKernel(base="ridge"), Local(cells=2)):
        with pytest.raises(RefusedError, match="fit the other direction"):
            aligner.fit(x, y).translate().inverse()


def test_tensors_that_do_not_fit_are_refused() -> None:
    a, b = torch.ones(3, 4), torch.ones(4)
    with pytest.raises(SutureError, match="Residual: expected tensors that fit"):
        Residual(a, b, a, b, a)
    with pytest.raises(SutureError, match="Landmark: expected tensors that fit"):
        Landmark(a, b, b, a, a, 1.0)
    with pytest.raises(SutureError, match="Mixture: expected tensors that fit"):
        Mixture(a[None], b[None], b[None], 1.0)
