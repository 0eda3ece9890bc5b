"""Procrustes and its kin against closed forms, references and known optima."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import Tensor

from suture.aligners import (
    Blend,
    IdentityRidge,
    LeastSquares,
    LinearAligner,
    MeanShift,
    Moments,
    Procrustes,
    ProcrustesDiagonal,
    Ridge,
    RotationRidge,
    UsageError,
)
from suture.aligners.linear.derived import least_squares_scale, standardised, uncentred
from suture.aligners.linear.procrustes import polished, residuals


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(dim: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(normal(dim, dim, seed=seed))[0]


def views(n: int, p: int, q: int, seed: int = 0, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """Correlated rows with different variances per dimension and means of their own."""
    x = normal(n, p, seed=seed) * torch.linspace(0.3, 2, p, dtype=torch.float64) + 1.5
    y = x @ normal(p, q, seed=seed + 1) / p**0.5 + noise * normal(n, q, seed=seed + 2) - 2
    return x, y


def centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(0)


def loss(weight: Tensor, x: Tensor, y: Tensor) -> float:
    return float((centred(x) @ weight - centred(y)).square().sum())


@pytest.mark.parametrize("dims", [(7, 7), (5, 8)])
def test_procrustes_is_scipy_on_centred_rows(dims: tuple[int, int]) -> None:
    x, y = views(60, *dims)
    wide = max(dims)
    padded = [np.pad(centred(rows).numpy(), ((0, 0), (0, wide - rows.shape[1]))) for rows in (x, y)]
    reference, _ = scipy.linalg.orthogonal_procrustes(*padded)
    weight = Procrustes().solve(Moments.of(x, y)).weight
    np.testing.assert_allclose(weight.numpy(), reference[: dims[0], : dims[1]], atol=1e-6)


@pytest.mark.parametrize("aligner", [Procrustes(), Procrustes(scale=True), RotationRidge(strength=1.0)])
def test_a_planted_rotation_is_found(aligner: Procrustes | RotationRidge) -> None:
    x, turn = normal(200, 16) + 3, rotation(16)
    mapping = aligner.solve(Moments.of(x, x @ turn - 5))
    torch.testing.assert_close(mapping.weight, turn, rtol=0, atol=1e-10)
    torch.testing.assert_close(mapping(x), x @ turn - 5, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("p", "q", "n"), [(6, 9, 50), (9, 6, 50), (9, 9, 50), (30, 30, 8), (20, 30, 8), (30, 20, 8)])
@pytest.mark.parametrize("polish", [False, True])
def test_the_map_is_semi_orthogonal_on_its_smaller_side(p: int, q: int, n: int, polish: bool) -> None:
    mapping = Procrustes(polish=polish).solve(Moments.of(*views(n, p, q)))
    assert mapping.deviation() < 1e-10


def test_scale_and_diagonal_are_least_squares() -> None:
    for p, q in ((6, 9), (9, 6)):
        x, y = views(80, p, q)
        moments = Moments.of(x, y)
        turn, scaled = Procrustes().solve(moments).weight, Procrustes(scale=True).solve(moments).weight
        mapped = centred(x) @ turn
        factor = np.linalg.lstsq(mapped.reshape(-1, 1).numpy(), centred(y).reshape(-1).numpy())[0][0]
        torch.testing.assert_close(scaled, turn * factor)
        if p < q:
            torch.testing.assert_close(float(factor), float(moments.svd_xy[1].sum() / moments.square_x.sum()))
        diagonal = ProcrustesDiagonal().solve(moments).weight
        for j in range(q):
            d = np.linalg.lstsq(mapped[:, j : j + 1].numpy(), centred(y)[:, j].numpy())[0][0]
            torch.testing.assert_close(diagonal[:, j], turn[:, j] * d)
        assert loss(diagonal, x, y) < loss(scaled, x, y) < loss(turn, x, y)


def tangent_gradient(weight: Tensor, moments: Moments) -> float:
    """Norm of the gradient of ``||Xc W - Yc||^2`` along the Stiefel manifold, relative to all of it."""
    gradient = 2 * (moments.block("xx") @ weight - moments.block("xy"))
    inner = weight.T @ gradient
    return float(torch.linalg.norm(gradient - weight @ (inner + inner.T) / 2) / torch.linalg.norm(gradient))


@pytest.mark.parametrize("seed", range(4))
def test_polish_ends_at_a_better_stationary_point(seed: int) -> None:
    x, y = views(100, 12, 5, seed=seed)
    moments = Moments.of(x, y)
    plain, quick = (Procrustes(polish=polish).solve(moments).weight for polish in (False, True))
    exact = polished(plain, moments, tolerance=1e-7)
    assert loss(exact, x, y) <= loss(quick, x, y) < loss(plain, x, y)
    assert loss(quick, x, y) - loss(exact, x, y) < 1e-4 * loss(exact, x, y)
    assert tangent_gradient(exact, moments) < 1e-5 < tangent_gradient(plain, moments)
    scaled, both = (Procrustes(scale=True, polish=polish).solve(moments).weight for polish in (False, True))
    assert loss(both, x, y) < min(loss(scaled, x, y), loss(exact, x, y))
    both = polished(plain, moments, scale=True, tolerance=1e-7)
    both = both * least_squares_scale(both, moments)
    factor = torch.linalg.matrix_norm(both, 2)
    # s also moves: at the joint optimum the rotation is stationary for the target divided by s.
    gradient = moments.block("xx") @ (both / factor) - moments.block("xy") / factor
    inner = (both / factor).T @ gradient
    tangent = gradient - (both / factor) @ (inner + inner.T) / 2
    assert float(torch.linalg.norm(tangent) / torch.linalg.norm(gradient)) < 1e-5


@pytest.mark.parametrize("scale", [False, True])
def test_no_round_of_polish_makes_it_worse(scale: bool) -> None:
    x, y = views(100, 12, 5, seed=2)
    moments, losses = Moments.of(x, y), []
    for rounds in range(0, 120):
        weight = polished(moments.rotation, moments, scale=scale, tolerance=1e-9, rounds=rounds)
        losses.append(loss(weight * least_squares_scale(weight, moments) if scale else weight, x, y))
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(losses))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("seed", range(6))
def test_rotation_only_has_no_reflection_and_costs_least(seed: int) -> None:
    x, y = views(60, 3, 3, seed=seed)
    moments = Moments.of(x, y)
    proper = Procrustes(rotation_only=True).solve(moments).weight
    assert float(torch.linalg.det(proper)) == pytest.approx(1.0)
    free = Procrustes().solve(moments).weight
    if float(torch.linalg.det(free)) > 0:
        torch.testing.assert_close(proper, free)
    rng = np.random.default_rng(seed)
    others = [scipy.stats.special_ortho_group.rvs(3, random_state=rng) for _ in range(200)]
    assert all(loss(proper, x, y) <= loss(torch.from_numpy(other), x, y) for other in others)


def test_rotation_only_with_scale_uses_the_rotation_that_is_left() -> None:
    x = normal(50, 3)
    moments = Moments.of(x, x * torch.tensor([1.0, 1.0, -0.5], dtype=torch.float64))
    s = moments.svd_xy[1]
    factor = (s[0] + s[1] - s[2]) / moments.square_x.sum()
    proper, scaled = (Procrustes(rotation_only=True, scale=k).solve(moments).weight for k in (False, True))
    torch.testing.assert_close(scaled, factor * proper)


def test_rotation_only_is_for_equal_dims() -> None:
    with pytest.raises(UsageError, match="got 3 and 4"):
        Procrustes(rotation_only=True).fit(*views(30, 3, 4))


@pytest.mark.parametrize("robust", ["l1", "huber", "tukey", "trimmed"])
def test_robust_fits_beat_the_plain_one_on_wrong_pairs(robust: str) -> None:
    turn = rotation(12)
    x = normal(300, 12)
    y = x @ turn + 0.1 * normal(300, 12, seed=5)
    y[:60] = 3 * normal(60, 12, seed=6) + 4  # 20 % of the pairs are wrong
    plain, fitted = (Procrustes(robust=r).fit(x, y).translate() for r in ("none", robust))

    def error(mapping: object) -> float:
        return float((mapping(x[60:]) - x[60:] @ turn).square().mean())  # type: ignore[operator]

    assert error(fitted) < 0.5 * error(plain)


@pytest.mark.parametrize("robust", ["l1", "huber", "tukey", "trimmed"])
def test_robust_fits_survive_perfect_pairs(robust: str) -> None:
    x, turn = normal(100, 8), rotation(8)
    mapping = Procrustes(robust=robust).fit(x, x @ turn).translate()
    torch.testing.assert_close(mapping(x), x @ turn, rtol=0, atol=1e-8)


def test_robust_fits_heed_given_weights_and_half_precision_targets() -> None:
    x, turn = normal(200, 8).float(), rotation(8).float()
    y = x @ turn
    y[:80] = 5.0
    weights = torch.ones(200)
    weights[:80] = 0
    mapping = Procrustes(robust="huber").fit(x, y, weights=weights).translate()
    torch.testing.assert_close(mapping(x), x @ turn, rtol=0, atol=1e-5)
    half = Procrustes(robust="huber").fit(x + 100, y.half(), weights=weights).translate()
    torch.testing.assert_close(half(x + 100), x @ turn, rtol=0, atol=1e-2)


def test_residuals_are_taken_in_double_whatever_the_rows_are() -> None:
    x, turn = normal(50, 8) + 1000, rotation(8)
    mapping, y = Procrustes().solve(Moments.of(x, x @ turn)), (x @ turn - 3000).half()
    exact = torch.linalg.vector_norm(mapping(x.float().double()) - y.double(), dim=1)
    torch.testing.assert_close(residuals(mapping, x.float(), y), exact)


def test_uncentred_moments_are_those_about_the_origin() -> None:
    x, y = views(40, 4, 6)
    about = uncentred(Moments.of(x, y))
    for block, product in ((about.xx, x.T @ x), (about.xy, x.T @ y), (about.yy, y.T @ y)):
        torch.testing.assert_close(block, product)
    torch.testing.assert_close(about.square_x, x.square().sum(0))
    u, _, vt = torch.linalg.svd(x.T @ y, full_matrices=False)
    mapping = Procrustes(centre=False).solve(Moments.of(x, y))
    torch.testing.assert_close(mapping.weight, u @ vt)
    assert not mapping.bias.any()


def test_standardised_moments_are_those_of_standardised_rows() -> None:
    x, y = views(40, 4, 6)
    x[:, 2], y[:, 1] = 5.0, 3 + 4e-16 * y[:, 1].sign()  # constant, and constant but for rounding: they keep their unit
    scaled, sx, sy = standardised(Moments.of(x, y))
    assert float(sx[2]) == float(sy[1]) == 1
    reference = Moments.of(x / sx, y / sy)
    for name in ("mean_x", "mean_y", "square_x", "square_y", "xx", "xy", "yy"):
        torch.testing.assert_close(getattr(scaled, name), getattr(reference, name), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("aligner", [Procrustes(standardise=True), LeastSquares(standardise=True, orthogonalise=True)])
def test_standardise_is_scaling_before_and_after(aligner: Procrustes | LeastSquares) -> None:
    x, y = views(60, 6, 8)
    sx, sy = x.std(0, correction=0), y.std(0, correction=0)
    zx, zy = (x - x.mean(0)) / sx, (y - y.mean(0)) / sy
    solved = zx.T @ zy if isinstance(aligner, Procrustes) else torch.linalg.pinv(zx) @ zy
    u, _, vt = torch.linalg.svd(solved, full_matrices=False)
    mapping = aligner.solve(Moments.of(x, y))
    torch.testing.assert_close(mapping(x), zx @ u @ vt * sy + y.mean(0))


@pytest.mark.parametrize(("n", "p"), [(60, 6), (20, 30)])
@pytest.mark.parametrize("bias", [True, False])
def test_least_squares_is_numpy_lstsq(n: int, p: int, bias: bool) -> None:
    x, y = views(n, p, 5)
    mapping = LeastSquares(bias=bias).solve(Moments.of(x, y))
    if bias:
        weight = np.linalg.lstsq(centred(x).numpy(), centred(y).numpy())[0]
    else:
        weight = np.linalg.lstsq(x.numpy(), y.numpy())[0]
        assert not mapping.bias.any()
    np.testing.assert_allclose(mapping.weight.numpy(), weight, atol=1e-7)


def test_least_squares_on_repeated_dimensions_has_least_norm() -> None:
    x, y = views(60, 6, 5)
    x = torch.cat([x, x[:, :2]], dim=1)
    weight = LeastSquares().solve(Moments.of(x, y)).weight
    np.testing.assert_allclose(weight.numpy(), np.linalg.lstsq(centred(x).numpy(), centred(y).numpy())[0], atol=1e-7)


def test_rotation_ridge_runs_from_least_squares_to_procrustes() -> None:
    for dims in ((6, 6), (6, 9), (9, 6)):
        moments = Moments.of(*views(80, *dims))
        weak, strong = (RotationRidge(strength=k).solve(moments).weight for k in (1e-12, 1e12))
        torch.testing.assert_close(weak, LeastSquares().solve(moments).weight, rtol=0, atol=1e-8)
        torch.testing.assert_close(strong, Procrustes().solve(moments).weight, rtol=0, atol=1e-8)
        scaled = RotationRidge(strength=1e12, scale=True).solve(moments).weight
        torch.testing.assert_close(scaled, Procrustes(scale=True).solve(moments).weight, rtol=0, atol=1e-8)
        deviations = [RotationRidge(strength=k).solve(moments).deviation() for k in (0.01, 0.1, 1.0, 10.0, 100.0)]
        assert deviations == sorted(deviations, reverse=True)


def test_identity_ridge_is_its_formula_and_runs_from_least_squares_to_a_shift() -> None:
    x = normal(80, 6) + 1
    y = x + 0.1 * x @ normal(6, 6, seed=1) + 0.05 * normal(80, 6, seed=2) - 3
    moments = Moments.of(x, y)
    xc, yc = centred(x), centred(y)
    mu = 0.3 * torch.linalg.eigvalsh(xc.T @ xc).mean()
    eye = torch.eye(6, dtype=torch.float64)
    change = torch.linalg.solve(xc.T @ xc + mu * eye, xc.T @ (yc - xc))
    mapping = IdentityRidge(strength=0.3).solve(moments)
    torch.testing.assert_close(mapping.weight, eye + change)
    half, none = (IdentityRidge(strength=0.3, blend=t).solve(moments) for t in (0.5, 0.0))
    torch.testing.assert_close(half(x), x + 0.5 * (mapping(x) - x))
    torch.testing.assert_close(none(x), x)
    weak, strong = (IdentityRidge(strength=k).solve(moments) for k in (1e-12, 1e12))
    torch.testing.assert_close(weak(x), LeastSquares().solve(moments)(x))
    torch.testing.assert_close(strong(x), MeanShift().solve(moments)(x))


def test_mean_shift_moves_the_mean_and_nothing_else() -> None:
    x, y = normal(50, 4) + 1, normal(50, 4, seed=1) - 2
    moments = Moments.of(x, y, blocks=())
    torch.testing.assert_close(MeanShift().solve(moments)(x), x - x.mean(0) + y.mean(0))
    quarter = MeanShift(amount=0.25).solve(moments)
    torch.testing.assert_close(quarter(x).mean(0), 0.75 * x.mean(0) + 0.25 * y.mean(0))
    torch.testing.assert_close(quarter(x) - quarter(x).mean(0), centred(x))


def test_small_penalties_do_not_blow_up_where_ridge_is_plain() -> None:
    moments = Moments.of(*views(80, 6, 5))
    torch.testing.assert_close(Ridge(alpha=0.0).solve(moments).weight, LeastSquares().solve(moments).weight)


@pytest.mark.parametrize(("p", "q"), [(6, 9), (9, 6)])
def test_a_blend_is_both_ends_and_the_scaled_mean_of_their_predictions(p: int, q: int) -> None:
    x, y = views(40, p, q)
    moments = Moments.of(x, y)
    turn, ridge = (centred(x) @ aligner.solve(moments).weight for aligner in (Procrustes(), Ridge()))
    unit = [mapped / torch.linalg.norm(mapped) for mapped in (turn, ridge)]
    for share in (0.0, 0.3, 0.5, 1.0):
        mapped = centred(x) @ Blend(share=share).solve(moments).weight
        mean = (1 - share) * unit[0] + share * unit[1]
        best = np.linalg.lstsq(mean.reshape(-1, 1).numpy(), centred(y).reshape(-1).numpy())[0][0]
        torch.testing.assert_close(mapped, mean * best)


def test_a_blend_turns_with_both_spaces() -> None:
    x, y = views(40, 7, 7)
    here, there = rotation(7, seed=3), rotation(7, seed=4)
    plain, turned = (Blend().solve(Moments.of(*rows)) for rows in ((x, y), (x @ here, 3 * y @ there)))
    torch.testing.assert_close(turned(x @ here), 3 * plain(x) @ there)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("aligner", [Procrustes(), Procrustes(scale=True, robust="l1"), ProcrustesDiagonal(), Blend()])
def test_the_provenance_says_whether_the_rotation_is_unique(aligner: LinearAligner, dtype: torch.dtype) -> None:
    x, y = (rows.to(dtype) for rows in views(60, 7, 9))
    assert aligner.fit(x, y).provenance["rotation"] == {"rank": 7, "dims": 7, "unique": True}
    few = aligner.fit(x[:5], y[:5]).provenance["rotation"]
    assert few == {"rank": 4, "dims": 7, "unique": False}  # five centred pairs span four directions
    y[:, 3:] = 0.0  # a target that says nothing of most directions
    assert aligner.fit(x, y).provenance["rotation"] == {"rank": 3, "dims": 7, "unique": False}


def test_what_settles_a_rotation_depends_on_the_method() -> None:
    x, y = views(8, 8, 8)
    assert not Procrustes().fit(x, y).provenance["rotation"]["unique"]
    assert Procrustes(centre=False).fit(x, y).provenance["rotation"]["unique"]
    assert Procrustes(rotation_only=True).fit(x, y).provenance["rotation"] == {"rank": 7, "dims": 8, "unique": True}
    assert "rotation" not in Ridge().fit(x, y).provenance
