"""Gromov-Wasserstein: a plan that keeps distances, between spaces that have no cost between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import SutureError, UsageError

__all__ = ["Gromov", "gromov", "gromov_objective", "relative_distances"]


@dataclass(frozen=True, eq=False)
class Gromov:
    """The ``plan`` ``(n, m)`` of the lowest ``objective`` among all starts, and the objectives of all, lowest first."""

    plan: Tensor
    objective: float
    objectives: tuple[float, ...]


def relative_distances(rows: Tensor) -> Tensor:
    """Cosine distances ``(n, n)`` divided by their mean, so that two spaces can be compared."""
    unit = normalize(rows.double(), dim=1)
    distance = (1 - unit @ unit.T).clamp(min=0)
    mean = float(distance.mean())
    if not mean > 1e-12:
        raise UsageError("expected rows in different directions, got rows that are all alike.")
    return distance / mean


def gromov_objective(dx: Tensor, dy: Tensor, plan: Tensor) -> float:
    """``sum (Dx_ik - Dy_jl)^2 P_ij P_kl`` as ``<c_x 1' + 1 c_y' - 2 Dx P Dy', P>`` (Peyre, Cuturi & Solomon 2016)."""
    a, b = plan.sum(1), plan.sum(0)
    cost = ((dx * dx) @ a)[:, None] + (dy * dy) @ b - 2 * dx @ plan @ dy.T
    return float((cost * plan).sum())


def gromov(
    dx: Tensor,
    dy: Tensor,
    *,
    eps: float = 5e-3,
    cost: Tensor | None = None,
    alpha: float = 1.0,
    starts: int = 10,
    rounds: int = 200,
    seed: int = 0,
) -> Gromov:
    """The entropic plan of ``(1 - alpha) <C, P> + alpha sum (Dx_ik - Dy_jl)^2 P_ij P_kl``, the best of ``starts``.

    ``alpha`` below 1 is the fused form and needs a ``cost`` between the sides. POT solves it with uniform marginals by
    mirror descent; the first start compares sorted distances (each row against each), the others are random. Raises
    `SutureError` where no start ends in a plan with these marginals.
    """
    import ot

    if not 0 < alpha <= 1 or (alpha < 1) != (cost is not None):
        raise UsageError(f"gromov: expected alpha in (0, 1], and a cost if it is below 1, got {alpha!r}.")
    n, m = len(dx), len(dy)
    a, b = (torch.full((k,), 1.0 / k, dtype=torch.float64) for k in (n, m))
    dx, dy = dx.double(), dy.double()
    other = torch.zeros(n, m, dtype=torch.float64) if cost is None else cost.double()
    g = torch.Generator().manual_seed(seed)
    found: list[tuple[float, Tensor]] = []
    for i in range(starts):
        first = by_profile(dx, dy) if i == 0 else torch.rand(n, m, generator=g, dtype=torch.float64) + 0.5
        plan = ot.gromov.entropic_fused_gromov_wasserstein(
            other,
            dx,
            dy,
            a,
            b,
            loss_fun="square_loss",
            epsilon=eps,
            alpha=alpha,
            G0=balanced(first, a, b),
            max_iter=rounds,
            tol=1e-6,
            warn=False,
            numItermax=200,
        )
        off = float((plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum())
        if off < 1e-2:
            value = alpha * gromov_objective(dx, dy, plan) + (1 - alpha) * float((other * plan).sum())
            found.append((value, plan))
    if not found:
        raise SutureError(
            f"gromov: expected a plan with uniform marginals, none of {starts} starts ended in one. Raise eps (now "
            f"{eps:g}) or allow more rounds (now {rounds})."
        )
    found.sort(key=lambda pair: pair[0])
    return Gromov(found[0][1], found[0][0], tuple(value for value, _ in found))


def by_profile(dx: Tensor, dy: Tensor, quantiles: int = 100) -> Tensor:
    """A start ``(n, m)``: rows with alike distributions of distances get more mass."""
    grid = torch.linspace(0, 1, quantiles, dtype=torch.float64)
    a, b = (torch.quantile(d, grid, dim=1).T for d in (dx, dy))
    square = torch.cdist(a, b).square()
    return torch.exp(-square / square.median().clamp(min=1e-12))


def balanced(start: Tensor, a: Tensor, b: Tensor, rounds: int = 50) -> Tensor:
    """The ``start`` scaled to the marginals, as far as ``rounds`` go."""
    for _ in range(rounds):
        start = start * (a / start.sum(1))[:, None]
        start = start * (b / start.sum(0))
    return start
