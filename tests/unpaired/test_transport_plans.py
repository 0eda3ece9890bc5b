"""Transport plans and what is built on them: marginals, limits, invariances, closed forms."""

import math

import numpy as np
import pytest
import torch
from unpaired_worlds import cloud, disjoint, permuted, right, rotation

from suture.aligners import Affine, AssignmentPrediction, Procrustes, SutureError, UsageError, WassersteinProcrustes
from suture.aligners.measures.local_cka import local_cka, local_cka_kernel
from suture.aligners.transport.gromov import gromov, gromov_objective, relative_distances
from suture.aligners.transport.sinkhorn import (
    barycentric,
    hard_assignment,
    partial_plan,
    plan_entropy,
    sinkhorn,
    unbalanced,
)

G = torch.Generator()


def cost(n: int = 30, m: int = 40) -> torch.Tensor:
    return torch.rand(n, m, generator=G.manual_seed(0), dtype=torch.float64)


def test_sinkhorn_keeps_its_marginals_and_is_optimal() -> None:
    c = cost()
    a = torch.linspace(1, 2, 30, dtype=torch.float64)
    b = torch.linspace(3, 1, 40, dtype=torch.float64)
    a, b = a / a.sum(), b / b.sum()
    plan = sinkhorn(c, 0.05, a, b)
    torch.testing.assert_close(plan.sum(1), a, atol=1e-6, rtol=0)
    torch.testing.assert_close(plan.sum(0), b, atol=1e-6, rtol=0)
    # Optimal: log P = (f_i + g_j - C_ij) / eps, so what is left of log P + C / eps has rank one in the additive sense.
    rest = plan.log() + c / 0.05
    rest = rest - rest[:1] - rest[:, :1] + rest[0, 0]
    assert float(rest.abs().max()) < 1e-6


def test_little_entropy_finds_the_assignment() -> None:
    c = cost(12, 12)
    plan = sinkhorn(c, 0.02, rounds=20_000)
    rows, columns = hard_assignment(-c)
    assert torch.equal(rows, torch.arange(12))
    assert float((plan.argmax(1) == columns).double().mean()) > 0.9
    assert float((plan * c).sum()) < float(c[rows, columns].mean()) + 0.02
    assert plan_entropy(plan) < plan_entropy(sinkhorn(c, 1.0))
    assert plan_entropy(torch.full((5, 7), 1 / 35)) == pytest.approx(7)


def test_unbalanced_goes_from_free_to_balanced() -> None:
    c = cost()
    torch.testing.assert_close(unbalanced(c, 0.1, 1e4), sinkhorn(c, 0.1), atol=1e-6, rtol=0)
    assert float(unbalanced(c + 5, 0.1, 0.5).sum()) < 0.1


def test_unbalanced_is_what_pot_finds() -> None:
    import ot

    c, a, b = cost(), torch.full((30,), 1 / 30).double(), torch.full((40,), 1 / 40).double()
    other = ot.unbalanced.sinkhorn_unbalanced(
        a.numpy(), b.numpy(), c.numpy(), 0.1, 0.5, reg_type="kl", numItermax=20_000, stopThr=1e-12
    )
    np.testing.assert_allclose(unbalanced(c, 0.1, 0.5).numpy(), other, atol=1e-7)


def test_partial_moves_the_share_that_is_cheapest() -> None:
    c = cost(40, 40)
    plan = partial_plan(c, 0.01, 0.5, rounds=20_000)
    assert float(plan.sum()) == pytest.approx(0.5, abs=1e-4)
    assert float(plan.sum(1).max()) < 1 / 40 + 1e-5
    whole = sinkhorn(c, 0.01, rounds=20_000)
    assert float((plan * c).sum()) / 0.5 < float((whole * c).sum())
    torch.testing.assert_close(partial_plan(c, 0.1, 1.0), sinkhorn(c, 0.1))


def test_barycentric_map_of_a_permutation_is_the_permutation() -> None:
    y, order = cloud(20, 5), torch.randperm(20, generator=G.manual_seed(1))
    torch.testing.assert_close(barycentric(torch.eye(20, dtype=torch.float64)[order] / 20, y), y[order])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sinkhorn(cost(), 0.0), "eps"),
        (lambda: sinkhorn(cost(), math.nan), "eps"),
        (lambda: sinkhorn(cost() * math.inf, 0.1), "finite cost"),
        (lambda: sinkhorn(cost(), 0.1, torch.ones(30)), "add up to 1"),
        (lambda: unbalanced(cost(), 0.1, 0.0), "rho"),
        (lambda: partial_plan(cost(), 0.1, 0.0), "share"),
        (lambda: gromov(cost(9, 9), cost(9, 9), alpha=0.5), "alpha"),
        (lambda: AssignmentPrediction(eps=0.0), "assignment: eps"),
        (lambda: AssignmentPrediction(kind="both"), "assignment: kind"),  # type: ignore[arg-type]
        (lambda: WassersteinProcrustes(eps=0.5), "wasserstein-procrustes: eps"),
    ],
)
def test_nonsense_is_refused(call: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call()  # type: ignore[operator]


def test_no_convergence_is_an_error_that_says_what_to_try() -> None:
    with pytest.raises(SutureError, match=r"Raise eps \(now 0.0001"):
        sinkhorn(cost(), 1e-4, rounds=5)
    with pytest.raises(SutureError, match="lower rho"):
        unbalanced(cost(), 1e-4, 100.0, rounds=5)


def test_gromov_wasserstein_sees_no_rotation_and_finds_the_permutation() -> None:
    x, _, order = permuted(40, 8)
    x = x - x.mean(0)
    turned = (x @ rotation(8, 4))[order]
    dx, dy = relative_distances(x), relative_distances(turned)
    torch.testing.assert_close(dx[order][:, order], dy)
    found = gromov(dx, dy, starts=2)
    same = gromov(dx, dx[order][:, order], starts=2)
    assert found.objective == pytest.approx(same.objective, rel=1e-6)
    assert float((found.plan.argmax(0) == order).double().mean()) > 0.95
    assert list(found.objectives) == sorted(found.objectives)
    # A random pairing of the same rows is far worse.
    other = torch.eye(40, dtype=torch.float64)[torch.randperm(40, generator=G.manual_seed(2))] / 40
    assert found.objective < 0.2 * gromov_objective(dx, dy, other)


def test_the_objective_is_its_definition() -> None:
    dx, dy = relative_distances(cloud(7, 3)), relative_distances(cloud(6, 4, seed=2))
    plan = sinkhorn(cost(7, 6), 0.5)
    naive = sum(
        float((dx[i, k] - dy[j, m]) ** 2 * plan[i, j] * plan[k, m])
        for i in range(7)
        for j in range(6)
        for k in range(7)
        for m in range(6)
    )
    assert gromov_objective(dx, dy, plan) == pytest.approx(naive, rel=1e-9)


def test_fused_follows_the_cost_where_distances_say_nothing() -> None:
    d = 1 - torch.eye(10, dtype=torch.float64)
    order = torch.randperm(10, generator=G.manual_seed(3))
    c = 1 - torch.eye(10, dtype=torch.float64)[order]
    assert torch.equal(gromov(d, d, cost=c, alpha=0.5, eps=0.02, starts=1).plan.argmax(1), order)


def test_wasserstein_procrustes_finds_a_planted_rotation() -> None:
    x, y, order = permuted(200, 12)
    alignment = WassersteinProcrustes(turns=8, convex_rounds=10).fit_unpaired(x, y)
    assert right(alignment.translate()(x)[order], y) > 0.95


def naive_cka(k: torch.Tensor, other: torch.Tensor) -> float:
    h = torch.eye(len(k), dtype=torch.float64) - 1 / len(k)
    a, b = h @ k @ h, h @ other @ h
    return float((a * b).sum() / (torch.linalg.norm(a) * torch.linalg.norm(b)))


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_fast_local_cka_is_the_naive_one(kind: str) -> None:
    ax, ay, qx, qy = cloud(25, 6), cloud(25, 9, seed=1), cloud(7, 6, draw=1), cloud(5, 9, seed=1, draw=1)

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b.T if kind == "linear" else torch.exp(-torch.cdist(a, b).square() / 40)

    naive = torch.tensor(
        [
            [
                naive_cka(kernel(*[torch.cat([ax, qx[i : i + 1]])] * 2), kernel(*[torch.cat([ay, qy[j : j + 1]])] * 2))
                for j in range(5)
            ]
            for i in range(7)
        ],
        dtype=torch.float64,
    )
    kernels = [part for a, q in ((ax, qx), (ay, qy)) for part in (kernel(a, a), kernel(q, a), kernel(q, q).diagonal())]
    torch.testing.assert_close(local_cka_kernel(*kernels), naive, atol=1e-10, rtol=0)
    if kind == "linear":
        torch.testing.assert_close(local_cka(ax, ay, qx, qy), naive, atol=1e-10, rtol=0)


def test_local_cka_refuses_what_is_not_paired() -> None:
    a = cloud(20, 4)
    with pytest.raises(UsageError, match="paired anchors"):
        local_cka(a, a[:10], a, a)
    with pytest.raises(UsageError, match="queries"):
        local_cka(a, a, a[:, :2], a)
    with pytest.raises(UsageError, match="variance"):
        local_cka(torch.ones(20, 4), a, torch.ones(2, 4), a)


@pytest.mark.parametrize("kind", ["regress", "swapped"])
def test_assignment_prediction_maps_to_the_right_prototypes(kind: str) -> None:
    x = cloud(700, 16)
    y = x @ rotation(16, 2) + 0.1 * torch.randn(700, 16, generator=G.manual_seed(4), dtype=torch.float64)
    alignment = AssignmentPrediction(kind=kind, prototypes=20).fit(x[:500], y[:500])  # type: ignore[arg-type]
    mapping = alignment.translate()
    assert isinstance(mapping, Affine)
    assert alignment.provenance["prototype_top1"] > 0.7
    mean = y[:500].mean(0)
    if kind == "swapped":  # it asks for the right prototypes, not for the mate
        plain_top1 = AssignmentPrediction(prototypes=20).fit(x[:500], y[:500]).provenance["prototype_top1"]
        assert alignment.provenance["prototype_top1"] > plain_top1
        return
    score = float(torch.cosine_similarity(mapping(x[500:]) - mean, y[500:] - mean).mean())
    plain = Procrustes().fit(x[:500], y[:500]).translate()
    assert score > 0.8 * float(torch.cosine_similarity(plain(x[500:]) - mean, y[500:] - mean).mean())


def test_worlds_share_no_row() -> None:
    x, y, held_x, _ = disjoint(100, 6, 20)
    turned = (x - held_x.mean(0)) @ rotation(6, 5)
    assert float(torch.cdist(turned[20:], (y - held_x.mean(0) @ rotation(6, 5))[20:]).min()) > 0.05
