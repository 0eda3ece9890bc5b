"""Ridge and its criteria against scikit-learn and brute force."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from torch import Tensor

from suture.aligners import Moments, Pairs, Ridge, Survey, UsageError
from suture.aligners.linear.ridge import gcv, leave_one_out, penalties

SHAPES = [(40, 6, 5), (12, 20, 7), (30, 30, 4)]
shapes = pytest.mark.parametrize(("n", "p", "q"), SHAPES)


def rows(n: int, p: int, q: int, seed: int = 0, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, p, generator=g, dtype=torch.float64) * torch.linspace(0.2, 2, p, dtype=torch.float64) + 2
    w = torch.randn(p, q, generator=g, dtype=torch.float64)
    return x, x @ w / p**0.5 + noise * torch.randn(n, q, generator=g, dtype=torch.float64) - 1


def brute_ridge(x: Tensor, y: Tensor, penalty: float, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weight and bias by scikit-learn, whose intercept is not penalised either."""
    model = SklearnRidge(alpha=penalty, solver="svd" if weights is None else "cholesky")
    model.fit(x.numpy(), y.numpy(), sample_weight=None if weights is None else weights.numpy())
    return torch.from_numpy(model.coef_.T), torch.from_numpy(np.asarray(model.intercept_))


@shapes
@pytest.mark.parametrize("alpha", [1e-3, 0.1, 10.0])
def test_fixed_alpha_is_sklearn(n: int, p: int, q: int, alpha: float) -> None:
    x, y = rows(n, p, q)
    mapping = Ridge(alpha=alpha).solve(Moments.of(x, y))
    xc = x - x.mean(0)
    weight, bias = brute_ridge(x, y, alpha * float(torch.trace(xc.T @ xc)) / p)
    torch.testing.assert_close(mapping.weight, weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(mapping.bias, bias, rtol=0, atol=1e-6)


def brute_gcv(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """By the hat matrix, per target."""
    n = len(x)
    xc, yc = x - x.mean(0), y - y.mean(0)
    hat = xc @ torch.linalg.solve(xc.T @ xc + penalty * torch.eye(x.shape[1], dtype=x.dtype), xc.T) + 1 / n
    return (yc - (hat - 1 / n) @ yc).square().sum(0) / n / (1 - torch.trace(hat) / n) ** 2


@shapes
def test_gcv_is_the_hat_matrix_formula(n: int, p: int, q: int) -> None:
    x, y = rows(n, p, q)
    moments = Moments.of(x, y)
    grid = penalties(moments)[-36:]
    each = torch.stack([brute_gcv(x, y, float(penalty)) for penalty in grid])
    torch.testing.assert_close(gcv(moments, grid, per_target=True), each, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gcv(moments, grid), each.sum(1), rtol=1e-6, atol=1e-9)


def test_gcv_of_float32_rows_agrees_with_float64_where_rows_are_few() -> None:
    """There RSS and n - df both go to 0, and their ratio must not be left to rounding."""
    x, y = rows(25, 60, 40, noise=0.05)
    exact = Moments.of(x, y)
    grid = penalties(exact)
    torch.testing.assert_close(gcv(Moments.of(x.float(), y.float()), grid), gcv(exact, grid), rtol=2e-2, atol=0)


@shapes
def test_the_penalty_chosen_minimises_gcv(n: int, p: int, q: int) -> None:
    moments = Moments.of(*rows(n, p, q))
    grid = penalties(moments)
    scores = gcv(moments, grid)
    chosen = Ridge().penalty(moments)
    assert float(chosen) == float(grid[scores.argmin()])
    assert (0.0 in grid) == (n > p + 1)


@shapes
def test_leave_one_out_is_brute_force_with_refitted_means(n: int, p: int, q: int) -> None:
    x, y = rows(n, p, q)
    survey = Survey.of(Pairs.of(x, y))
    grid = penalties(survey.moments)[-30::6]
    brute = []
    for penalty in grid.tolist():
        errors = []
        for i in range(n):
            keep = torch.arange(n) != i
            weight, bias = brute_ridge(x[keep], y[keep], penalty)
            errors.append((x[i] @ weight + bias - y[i]).square().sum())
        brute.append(torch.stack(errors).mean())
    torch.testing.assert_close(leave_one_out(survey, grid), torch.stack(brute), rtol=1e-8, atol=1e-8)


def test_weighted_leave_one_out_is_brute_force() -> None:
    x, y = rows(20, 4, 3)
    weights = torch.linspace(0.2, 1.8, 20, dtype=torch.float64)
    survey = Survey.of(Pairs.of(x, y, weights=weights))
    grid = penalties(survey.moments)[10:41:10]
    brute = []
    for penalty in grid.tolist():
        total = 0.0
        for i in range(20):
            keep = torch.arange(20) != i
            weight, bias = brute_ridge(x[keep], y[keep], penalty, weights[keep])
            total += float(weights[i] * (x[i] @ weight + bias - y[i]).square().sum())
        brute.append(total / float(weights.sum()))
    np.testing.assert_allclose(leave_one_out(survey, grid).numpy(), brute, rtol=1e-8)


def test_leave_one_out_alpha_is_the_best_of_the_grid_and_on_record() -> None:
    x, y = rows(40, 6, 5)
    survey = Survey.of(Pairs.of(x, y))
    grid = penalties(survey.moments)
    alignment = Ridge(criterion="loo").fit(x, y)
    best = float(grid[leave_one_out(survey, grid).argmin()] / survey.moments.eigen_x[0].mean())
    assert alignment.provenance["alpha"] == pytest.approx(best)
    torch.testing.assert_close(alignment.translate()(x), Ridge(alpha=best).fit(x, y).translate()(x))


def test_a_penalty_per_target_is_ridge_of_every_target_alone() -> None:
    x, y = rows(40, 6, 5)
    y[:, 2] = torch.randn(40, generator=torch.Generator().manual_seed(9), dtype=torch.float64)  # nothing to predict
    mapping = Ridge(per_target=True).solve(Moments.of(x, y))
    for j in range(5):
        alone = Ridge().solve(Moments.of(x, y[:, j : j + 1]))
        torch.testing.assert_close(mapping.weight[:, j], alone.weight[:, 0])
    chosen = Ridge(per_target=True).penalty(Moments.of(x, y))
    assert float(chosen[2]) == float(chosen.max()) > float(chosen.min())


def test_limits() -> None:
    x, y = rows(40, 6, 5)
    moments = Moments.of(x, y)
    ols = np.linalg.lstsq((x - x.mean(0)).numpy(), (y - y.mean(0)).numpy())[0]
    np.testing.assert_allclose(Ridge(alpha=0.0).solve(moments).weight.numpy(), ols, atol=1e-9)
    heavy = Ridge(alpha=1e12).solve(moments)
    torch.testing.assert_close(heavy(x), y.mean(0).expand_as(y), rtol=0, atol=1e-9)


def test_an_alpha_at_the_end_of_the_grid_is_on_record() -> None:
    x, y = rows(40, 6, 5)
    nothing = torch.randn(40, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert Ridge().fit(x, nothing).provenance["alpha_at_edge"] == (Ridge().fit(x, nothing).provenance["alpha"] > 100)
    assert Ridge().fit(x, x @ torch.ones(6, 2, dtype=x.dtype)).provenance["alpha_at_edge"]
    assert not Ridge().fit(*rows(40, 6, 5, noise=3.0)).provenance["alpha_at_edge"]
    assert "alpha" not in Ridge(alpha=0.3).fit(x, y).provenance


def test_weights_count_rows_whatever_their_scale() -> None:
    x, y = rows(40, 6, 5)
    share = torch.linspace(0.01, 0.2, 40, dtype=torch.float64)
    small, large = (Ridge().fit(x, y, weights=w).translate()(x) for w in (share, 1000 * share))
    torch.testing.assert_close(small, large, rtol=0, atol=1e-9)
    # Moments are taken at their word, and GCV cannot work with a number of rows that is none.
    with pytest.raises(UsageError, match="rescale the weights"):
        Ridge().solve(Moments.of(x, y, torch.full((40,), 1 / 10)))
    assert math.isfinite(float(Ridge(alpha=0.1).solve(Moments.of(x, y, share)).weight.sum()))
