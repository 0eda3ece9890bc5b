"""Entropic transport plans: balanced, unbalanced, partial; and what to make of a plan."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import SutureError, UsageError

__all__ = ["barycentric", "hard_assignment", "partial_plan", "plan_entropy", "sinkhorn", "unbalanced"]

TOLERANCE = 1e-6


def sinkhorn(
    cost: Tensor,
    eps: float,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    rounds: int = 1000,
    tolerance: float = TOLERANCE,
) -> Tensor:
    """``argmin_P <P, C> + eps KL(P | a b')`` ``(n, m)`` of marginals ``a`` ``(n,)``, ``b`` ``(m,)``, uniform if open.

    POT's iteration in the log domain (Cuturi 2013; Peyre & Cuturi 2019, 4.4); eps is absolute. Raises `SutureError` if
    the marginals are off by more than ``tolerance`` after ``rounds``.
    """
    import ot

    a, b = marginals(cost, a, b)
    check_eps(eps)
    c = cost.double()
    plan = ot.sinkhorn(
        a, b, c, eps, method="sinkhorn_log", numItermax=rounds, stopThr=tolerance / 2 * len(b) ** -0.5, warn=False
    )
    error = float((plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum())
    if not error <= tolerance:
        raise SutureError(
            f"sinkhorn: expected marginals within {tolerance:g} after {rounds} rounds, got {error:.2g}. Raise eps (now "
            f"{eps:g}; costs run from {float(c.min()):.3g} to {float(c.max()):.3g}) or allow more rounds."
        )
    return plan.to(cost.dtype)


def unbalanced(
    cost: Tensor,
    eps: float,
    rho: float,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    rounds: int = 10_000,
) -> Tensor:
    """The plan ``(n, m)`` whose marginals may differ from a and b at the price ``rho KL``: lone rows fade out.

    ``f = -d eps LSE_j((g_j - C_ij) / eps + log b_j)`` with ``d = rho / (rho + eps)``, and alike for g (Chizat et al.
    2018); rho to infinity is the balanced plan. POT has no such iteration in the log domain. Raises `SutureError`
    where the potentials still move after ``rounds``.
    """
    a, b = marginals(cost, a, b)
    check_eps(eps)
    if not rho > 0:
        raise UsageError(f"unbalanced: expected rho above 0, got {rho!r}.")
    c, damping = cost.double(), rho / (rho + eps)
    log_a, log_b = a.log(), b.log()
    f, g = c.new_zeros(len(a)), c.new_zeros(len(b))
    moved = torch.inf
    for _ in range(rounds):
        before = f
        f = -damping * eps * torch.logsumexp((g - c) / eps + log_b, 1)
        g = -damping * eps * torch.logsumexp((f[:, None] - c) / eps + log_a[:, None], 0)
        # What f gains and g loses leaves the plan as it is and converges slowly for large rho: its optimum is closed
        # (Sejourne, Vialard & Peyre 2022).
        shift = rho / 2 * (torch.logsumexp(log_a - f / rho, 0) - torch.logsumexp(log_b - g / rho, 0))
        f, g = f + shift, g - shift
        moved = float((f - before).abs().max())
        if moved < TOLERANCE * eps:
            return torch.exp((f[:, None] + g - c) / eps + log_a[:, None] + log_b).to(cost.dtype)
    raise SutureError(
        f"unbalanced: expected potentials to settle within {rounds} rounds, they still move by {moved:.2g}. Raise eps "
        f"(now {eps:g}), lower rho (now {rho:g}), or allow more rounds."
    )


def partial_plan(cost: Tensor, eps: float, share: float, *, rounds: int = 1000) -> Tensor:
    """The plan ``(n, m)`` that moves ``share`` of the mass and leaves the rest where it is.

    A dummy row and column take what is not moved, at no cost, and exchange nothing with each other (Chapel, Alaya &
    Gasso 2020, prop. 1): with the mass fixed exactly, no quantile of the cost has to be guessed.
    """
    if not 0 < share <= 1:
        raise UsageError(f"partial_plan: expected a share above 0 and at most 1, got {share!r}.")
    if share == 1:
        return sinkhorn(cost, eps, rounds=rounds)
    n, m = cost.shape
    low = float(cost.min())
    # Costs from 0 on, the dummies at 0, and their corner dearer than anything that it could replace.
    wide = cost.new_zeros(n + 1, m + 1)
    wide[:n, :m] = cost - low
    wide[:n, m] = wide[n, :m] = 0
    wide[n, m] = 2 * float(wide.max()) + 1
    rest = 1 - share
    a = torch.cat([torch.full((n,), 1.0 / n), torch.tensor([rest])]).double() / (1 + rest)
    b = torch.cat([torch.full((m,), 1.0 / m), torch.tensor([rest])]).double() / (1 + rest)
    return sinkhorn(wide, eps, a, b, rounds=rounds)[:n, :m] * (1 + rest)


def barycentric(plan: Tensor, y: Tensor) -> Tensor:
    """``sum_j P_ij y_j / sum_j P_ij`` ``(n, q)``: where the plan sends each row on average."""
    mass = plan.sum(1, keepdim=True)
    return (plan @ y.to(plan)) / torch.where(mass > 0, mass, 1.0)


def hard_assignment(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns ``(min(n, m),)`` of the one-to-one assignment with the highest total score (Hungarian)."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(scores.numpy(), maximize=True)
    return torch.from_numpy(rows), torch.from_numpy(columns)


def plan_entropy(plan: Tensor) -> float:
    """``exp`` of the mean entropy of the plan's rows: how many targets a row is spread over, from 1 to m."""
    rows = plan.double() / plan.double().sum(1, keepdim=True).clamp(min=1e-300)
    return float(torch.special.entr(rows).sum(1).mean().exp())


def marginals(cost: Tensor, a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both marginals in float64, uniform if open. Raises `UsageError` unless they fit the cost and add to 1."""
    if cost.ndim != 2 or 0 in cost.shape or not bool(torch.isfinite(cost).all()):
        raise UsageError(f"expected a finite cost matrix (n, m), got shape {tuple(cost.shape)} or values not finite.")
    out = []
    for given, size, what in ((a, cost.shape[0], "a"), (b, cost.shape[1], "b")):
        mass = torch.full((size,), 1.0 / size, dtype=torch.float64) if given is None else given.double()
        if mass.shape != (size,) or not bool((mass > 0).all()) or abs(float(mass.sum()) - 1) > 1e-6:
            raise UsageError(f"marginal {what}: expected {size} positive masses that add up to 1, got {given!r}.")
        out.append(mass / mass.sum())
    return out[0], out[1]


def check_eps(eps: float) -> None:
    """Raises `UsageError` unless ``eps`` is above 0."""
    if not 0 < eps < float("inf"):
        raise UsageError(f"eps: expected a finite entropy above 0, got {eps!r}.")
