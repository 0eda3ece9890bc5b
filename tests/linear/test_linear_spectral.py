"""CCA, PLS, reduced rank, subspaces and whitening against references, and the laws that tie them together."""

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import PLSRegression
from torch import Tensor

from suture.aligners import (
    CCA,
    PLS,
    LeastSquares,
    Moments,
    Procrustes,
    ReducedRank,
    Ridge,
    Subspace,
    UsageError,
    Whitening,
)
from suture.aligners.linear.cca import canonical_correlations
from suture.aligners.linear.derived import projected, remembered
from suture.aligners.linear.pls import leading_left_vector


def views(n: int, p: int, q: int, seed: int = 0, latent: int = 4, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    z = normal(n, latent)
    return z @ normal(latent, p) + noise * normal(n, p) + 2, z @ normal(latent, q) + noise * normal(n, q) - 1


def centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(0)


def loss(weight: Tensor, x: Tensor, y: Tensor) -> float:
    return float((centred(x) @ weight - centred(y)).square().sum())


def reference_correlations(x: Tensor, y: Tensor) -> np.ndarray:
    """Bjorck & Golub 1973: singular values of Qx'Qy."""
    (qx, _), (qy, _) = (np.linalg.qr(centred(rows).numpy()) for rows in (x, y))
    return np.linalg.svd(qx.T @ qy, compute_uv=False)


dims = pytest.mark.parametrize(("p", "q"), [(6, 9), (9, 6), (7, 7)])


@dims
def test_correlations_are_those_of_qr_and_svd(p: int, q: int) -> None:
    x, y = views(80, p, q)
    np.testing.assert_allclose(canonical_correlations(Moments.of(x, y)), reference_correlations(x, y), atol=1e-6)


def test_svcca_is_cca_of_the_principal_components() -> None:
    x, y = views(80, 9, 12)
    kept = []
    for rows in (x, y):
        u, s, _ = np.linalg.svd(centred(rows).numpy(), full_matrices=False)
        k = 1 + int(np.sum(np.cumsum(s**2) < 0.9 * np.sum(s**2)))
        kept.append(torch.from_numpy(u[:, :k] * s[:k]))
    found = canonical_correlations(Moments.of(x, y), variance=0.9)
    np.testing.assert_allclose(found, reference_correlations(*kept), atol=1e-6)


@dims
def test_variates_are_uncorrelated_of_unit_variance_and_pairwise_correlated_by_rho(p: int, q: int) -> None:
    x, y = views(80, p, q)
    alignment = CCA(eps=0.0, power=0.0).fit(x, y)
    a, b = (alignment.map_of(side)(rows) for side, rows in (("source", x), ("target", y)))
    eye, n = torch.eye(alignment.shared_dim, dtype=torch.float64), len(x)
    torch.testing.assert_close(a.T @ a / n, eye)
    torch.testing.assert_close(b.T @ b / n, eye)
    rho = torch.from_numpy(reference_correlations(x, y))
    torch.testing.assert_close(a.T @ b / n, torch.diag(rho))


@dims
def test_cca_translation_of_full_rank_is_ridge_and_power_does_not_touch_it(p: int, q: int) -> None:
    x, y = views(80, p, q)
    moments = Moments.of(x, y)
    for eps in (0.0, 0.1):
        ridge = Ridge(alpha=eps).solve(moments)
        # rho lives in min(p, q) directions, and so does the regression.
        torch.testing.assert_close(CCA(eps=eps).solve(moments).weight, ridge.weight)
        for power in (0.0, 0.5, 2.0):
            torch.testing.assert_close(CCA(eps=eps, power=power).solve(moments).weight, ridge.weight)
    plain, weighed = (CCA(eps=0.1, power=t).align_moments(moments).map_of("source")(x) for t in (0.0, 2.0))
    rho = canonical_correlations(moments, 0.1)
    torch.testing.assert_close(weighed, plain * rho.square())


def test_cca_leads_back_to_the_source_as_the_reverse_fit_does() -> None:
    x, y = views(80, 6, 9)
    forth, back = (CCA(eps=0.1, rank=4).solve(m) for m in (Moments.of(x, y), Moments.of(y, x)))
    alignment = CCA(eps=0.1, rank=4).fit(x, y)
    torch.testing.assert_close(alignment.translate("target", "source")(y), back(y))
    torch.testing.assert_close(alignment.translate()(x), forth(x))


def test_cca_of_low_rank_is_reduced_rank_in_the_canonical_metric() -> None:
    """The canonical variates are the best predictors of the whitened target (Izenman 1975)."""
    x, y = views(200, 6, 5)
    values, vectors = torch.linalg.eigh(centred(y).T @ centred(y))
    white, colour = (vectors * values**e @ vectors.T for e in (-0.5, 0.5))
    low = ReducedRank(rank=2, alpha=0.0).solve(Moments.of(x, y @ white)).weight @ colour
    torch.testing.assert_close(CCA(eps=0.0, rank=2).solve(Moments.of(x, y)).weight, low)


@pytest.mark.parametrize("n", [5, 9])
def test_cca_without_regularisation_is_refused_where_it_would_be_perfect(n: int) -> None:
    x, y = views(n, 9, 4)
    with pytest.raises(UsageError, match="set eps above 0"):
        CCA(eps=0.0).fit(x, y)
    assert torch.isfinite(CCA(eps=0.1).fit(x, y).translate()(x)).all()


def test_unrelated_variates_are_dropped() -> None:
    x, y = views(200, 6, 5, latent=2, noise=0.0)
    alignment = CCA(eps=1e-3, power=3.0).fit(x, y)
    assert alignment.shared_dim == 2
    torch.testing.assert_close(alignment.translate()(x), y, rtol=0, atol=0.1)


@dims
def test_reduced_rank_is_its_formula_and_beats_cutting_the_weight(p: int, q: int) -> None:
    x, y = views(80, p, q)
    moments, xc = Moments.of(x, y), centred(x)
    for alpha in (0.0, 0.1):
        weight = Ridge(alpha=alpha).solve(moments).weight
        penalty = alpha * float(moments.square_x.sum()) / p
        rows = torch.cat([xc, penalty**0.5 * torch.eye(p, dtype=torch.float64)])
        u, s, vt = torch.linalg.svd(weight, full_matrices=False)
        for rank in (1, 2, 4):
            directions = torch.linalg.svd(rows @ weight, full_matrices=False)[2][:rank]
            found = ReducedRank(rank=rank, alpha=alpha).solve(moments).weight
            torch.testing.assert_close(found, weight @ directions.T @ directions)
            assert int(torch.linalg.matrix_rank(found)) == rank
            cut = u[:, :rank] * s[:rank] @ vt[:rank]
            penalised = [loss(w, x, y) + penalty * float(w.square().sum()) for w in (found, cut)]
            assert penalised[0] < penalised[1]


def test_reduced_rank_of_full_rank_is_ridge() -> None:
    moments = Moments.of(*views(80, 6, 9))
    torch.testing.assert_close(ReducedRank().solve(moments).weight, Ridge().solve(moments).weight)


@pytest.mark.parametrize(("n", "p", "q"), [(60, 7, 5), (60, 5, 7), (20, 30, 25), (60, 6, 1)])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_pls_regression_is_sklearn(n: int, p: int, q: int, rank: int) -> None:
    x, y = views(n, p, q)
    # Its power iteration stops by default while the sixth digit still moves.
    model = PLSRegression(n_components=rank, scale=False, max_iter=100_000, tol=1e-20)
    reference = model.fit(x.numpy(), y.numpy()).predict(x.numpy()).reshape(n, q)
    mapped = PLS(rank=rank).solve(Moments.of(x, y))(x)
    np.testing.assert_allclose(mapped.numpy(), reference, atol=1e-6)


def test_pls_regression_of_all_components_is_least_squares_and_then_ends() -> None:
    x, y = views(60, 7, 9)
    moments = Moments.of(x, y)
    torch.testing.assert_close(PLS(rank=7).solve(moments).weight, LeastSquares().solve(moments).weight)
    exhausted = Moments.of(x, x[:, :1] @ torch.ones(1, 3, dtype=torch.float64))
    torch.testing.assert_close(PLS(rank=7).solve(exhausted).weight, LeastSquares().solve(exhausted).weight)


def test_pls_components_do_not_depend_on_the_order_in_which_they_are_asked_for() -> None:
    x, y = views(60, 7, 9)
    moments = Moments.of(x, y)
    first = [PLS(rank=k).solve(moments).weight for k in (2, 5, 3)]
    again = [PLS(rank=k).solve(Moments.of(x, y)).weight for k in (2, 5, 3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("shape", [(80, 100), (100, 80), (66, 66)])
def test_lanczos_finds_the_leading_vector(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact, found = torch.linalg.svd(matrix)[0][:, 0], leading_left_vector(matrix)
    assert float((exact @ found).abs()) == pytest.approx(1, abs=1e-12)
    assert torch.equal(found, leading_left_vector(matrix))


@dims
def test_pls_svd_is_regression_on_its_scores(p: int, q: int) -> None:
    x, y = views(80, p, q)
    u, _, vt = torch.linalg.svd(centred(x).T @ centred(y), full_matrices=False)
    scores = centred(x) @ u[:, :3]
    alignment = PLS(rank=3, mode="svd").fit(x, y)
    predicted = torch.linalg.lstsq(scores, centred(y)).solution
    torch.testing.assert_close(alignment.translate()(x), scores @ predicted + y.mean(0))
    assert alignment.shared_dim == 3
    torch.testing.assert_close(alignment.map_of("target")(y).abs(), (centred(y) @ vt[:3].T).abs())


def test_subspaces_of_matched_directions_need_no_rotation() -> None:
    x, y = views(80, 6, 9)
    moments = Moments.of(x, y)
    rho_free = Subspace(kind="cca", inner="procrustes", rank=4, eps=0.1).align_moments(moments)
    plain = CCA(eps=0.1, rank=4, power=0.0).align_moments(moments)
    torch.testing.assert_close(rho_free.map_of("source")(x), plain.map_of("source")(x))
    pls = Subspace(kind="pls", inner="procrustes", rank=3).solve(moments).weight
    u, _, vt = moments.svd_xy
    torch.testing.assert_close(pls, u[:, :3] @ vt[:3])


@pytest.mark.parametrize("kind", ["pca", "pls"])
def test_a_subspace_of_all_dims_is_the_inner_method(kind: str) -> None:
    moments = Moments.of(*views(80, 7, 7))
    for inner, whole in (("procrustes", Procrustes()), ("ridge", Ridge())):
        found = Subspace(kind=kind, inner=inner, rank=7).solve(moments).weight
        torch.testing.assert_close(found, whole.solve(moments).weight)


def test_a_subspace_maps_into_the_span_of_the_targets_components() -> None:
    x, y = views(80, 9, 8)
    alignment = Subspace(kind="pca", inner="ridge", rank=3).fit(x, y)
    basis = torch.linalg.svd(centred(y), full_matrices=False)[2][:3]
    mapped = alignment.translate()(x) - y.mean(0)
    torch.testing.assert_close(mapped @ basis.T @ basis, mapped)
    # Back from the target's own coordinates is the projection onto that span.
    returned = alignment.back["target"](alignment.map_of("target")(y)) - y.mean(0)
    torch.testing.assert_close(returned, centred(y) @ basis.T @ basis)


def test_projected_moments_are_those_of_projected_rows() -> None:
    x, y = views(50, 6, 5)
    a, b = torch.randn(6, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    found, reference = projected(Moments.of(x, y), a, b), Moments.of(centred(x) @ a, centred(y) @ b)
    for name in ("square_x", "square_y", "xx", "xy", "yy"):
        torch.testing.assert_close(getattr(found, name), getattr(reference, name))


@dims
def test_whitening_gives_the_target_its_covariance_and_mean(p: int, q: int) -> None:
    x, y = views(200, p, q)
    alignment = Whitening(shrinkage=0.0).fit(x, y)
    white = alignment.map_of("target")(y)
    torch.testing.assert_close(white.T @ white / len(y), torch.eye(q, dtype=torch.float64))
    if p >= q:
        mapped = alignment.translate()(x)
        torch.testing.assert_close(centred(mapped).T @ centred(mapped), centred(y).T @ centred(y))
    torch.testing.assert_close(alignment.back["target"](white), y)


def test_whitening_ends_at_procrustes_with_one_scale() -> None:
    moments = Moments.of(*views(80, 7, 9))
    scale = (moments.square_y.sum() / 9 / (moments.square_x.sum() / 7)).sqrt()
    weight = Whitening(shrinkage=1.0).solve(moments).weight
    torch.testing.assert_close(weight, scale * Procrustes().solve(moments).weight)


def test_whitening_is_cca_with_every_correlation_set_to_one() -> None:
    moments = Moments.of(*views(80, 7, 9))
    equal = Subspace(kind="cca", inner="procrustes", rank=7, eps=0.25).solve(moments).weight
    # C = (1 - g) (S + g / (1 - g) tr S / d I): the factor 1 - g cancels between the two sides.
    torch.testing.assert_close(Whitening(shrinkage=0.2).solve(moments).weight, equal)


def test_whitening_is_exact_for_an_affine_change_and_leads_back() -> None:
    x, _ = views(200, 6, 6)
    y = x @ torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 4
    alignment = Whitening(shrinkage=0.0).fit(x, y)
    torch.testing.assert_close(alignment.translate()(x), y)
    torch.testing.assert_close(alignment.translate("target", "source")(y), x)


def test_whitening_without_rotation_uses_symmetric_roots() -> None:
    x, y = views(80, 5, 5)

    def root(rows: Tensor, exponent: float) -> Tensor:
        values, vectors = torch.linalg.eigh(centred(rows).T @ centred(rows))
        return vectors * values**exponent @ vectors.T

    weight = Whitening(shrinkage=0.0, rotate=False).solve(Moments.of(x, y)).weight
    torch.testing.assert_close(weight, root(x, -0.5) @ root(y, 0.5))


def test_what_is_remembered_belongs_to_its_moments_and_arguments() -> None:
    calls = []

    @remembered
    def counted(moments: Moments, k: int) -> int:
        calls.append(k)
        return k

    one, other = (Moments.of(*views(20, 3, 3, seed=s)) for s in (0, 1))
    assert [counted(one, 1), counted(one, 1), counted(one, 2), counted(other, 2)] == [1, 1, 2, 2]
    assert calls == [1, 2, 2]
