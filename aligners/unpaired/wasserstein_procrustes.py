"""Wasserstein-Procrustes: transport and rotation in turn, from a convex start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..linear.checks import check_number, check_rank
from ..polar import polar
from ..transport.sinkhorn import sinkhorn
from .base import UnpairedAligner
from .clouds import Clouds, sampled_rows

__all__ = ["WassersteinProcrustes", "convex_start"]

ROUGH = 1e-2  # marginals of a plan that is only a step on the way


@dataclass(frozen=True)
class WassersteinProcrustes(UnpairedAligner):
    """``min_{P, W} ||X W - P Y||^2`` over plans P and rotations W (Grave, Joulin & Berthet 2019).

    Start: ``convex_rounds`` of Frank-Wolfe on ``||K_X P - P K_Y||^2`` over doubly stochastic P, convex, K being square
    roots of the Gram matrices scaled to equal norms. Then in turn ``P = sinkhorn(-X W Y')`` and ``W = polar(X' P Y)``
    on all ``nodes`` rows at once with the entropy falling from .1 to ``eps`` in ``turns`` turns (the authors draw
    batches and take gradient steps, which on thousands of rows is slower and no better), then the refinement that all
    methods share.
    """

    name: ClassVar[str] = "wasserstein-procrustes"
    summary: ClassVar[str] = "rotation without pairs: transport and Procrustes in turn, from a convex start"
    paper: ClassVar[str] = "Grave, Joulin & Berthet 2019 (arXiv 1805.11222)"

    nodes: int = 1000
    eps: float = 0.01
    turns: int = 20
    convex_rounds: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("nodes", "turns", "convex_rounds"):
            check_rank(f"wasserstein-procrustes: {field}", getattr(self, field))
        check_number("wasserstein-procrustes: eps", self.eps, 0, 0.1, above=True)

    def start(self, clouds: Clouds, seed: int) -> Tensor:
        """The convex start, then transport and Procrustes in turn; the known pairs are added to every Procrustes."""
        s, few = clouds.seeds, min(len(clouds.x), len(clouds.y), self.nodes)
        x, y = (r[sampled_rows(len(r), few, seed + i, s[:0, i])].double() for i, r in enumerate((clouds.x, clouds.y)))
        # Known pairs weigh as seed_weight rows each, where all rows weigh 1 together.
        known = clouds.x[s[:, 0]].double().T @ clouds.y[s[:, 1]].double() * self.seed_weight / few
        plan = convex_start(x, y, rounds=self.convex_rounds)
        weight = polar(x.T @ plan @ y + known)
        for turn in range(self.turns):
            eps = 0.1 * (self.eps / 0.1) ** (turn / max(1, self.turns - 1))
            plan = sinkhorn(-(x @ weight) @ y.T, eps, rounds=5000, tolerance=ROUGH)
            weight = polar(x.T @ plan @ y + known)
        return weight.float()


def convex_start(x: Tensor, y: Tensor, *, rounds: int = 50, eps: float = 0.05) -> Tensor:
    """A plan ``(n, n)`` between equally many rows by Frank-Wolfe on ``||K_X P - P K_Y||_F^2``.

    Gradient ``2 (K_X^2 P + P K_Y^2 - 2 K_X P K_Y)``; its linear step is a `sinkhorn` with entropy ``eps`` of the
    gradient's range; step 2 / (2 + t). From the flat plan the gradient is the difference of row profiles.
    """
    n = len(x)
    a, b = (root_gram(rows) for rows in (x, y))
    b = b * (torch.linalg.norm(a) / torch.linalg.norm(b))
    square_a, square_b = a @ a, b @ b
    plan = torch.full((n, n), 1.0 / n, dtype=torch.float64)
    for t in range(rounds):
        gradient = square_a @ plan + plan @ square_b - 2 * a @ plan @ b
        gradient = gradient / gradient.abs().max().clamp(min=1e-300)
        plan = plan + 2 / (2 + t) * (sinkhorn(gradient, eps, rounds=5000, tolerance=ROUGH) * n - plan)
    return plan / n


def root_gram(rows: Tensor) -> Tensor:
    """``(X X')^(1/2)`` ``(n, n)``."""
    u, s, _ = torch.linalg.svd(rows, full_matrices=False)
    return (u * s) @ u.T
