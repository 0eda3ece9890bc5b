"""Gromov-Wasserstein alignment: matched by distances inside each space, then refined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..linear.checks import check_number, check_rank
from ..polar import polar
from ..transport.gromov import gromov, relative_distances
from .base import UnpairedAligner
from .clouds import Clouds, sampled_rows
from .signatures import signatures

__all__ = ["GromovWasserstein"]


@dataclass(frozen=True)
class GromovWasserstein(UnpairedAligner):
    """``min_P sum (Dx_ik - Dy_jl)^2 P_ij P_kl`` with entropy ``eps``; then ``W = polar(X' P Y)`` and the refinement.

    D are cosine distances divided by their mean, of up to ``nodes`` rows a side. Of ``starts`` starts the one with the
    lowest objective is kept; ``rounds_of_plan``: at most so many steps to each plan. With known pairs the fused form:
    ``alpha`` of the objective above and ``1 - alpha`` of the cost between relative signatures.
    """

    name: ClassVar[str] = "gromov-wasserstein"
    summary: ClassVar[str] = "rotation without pairs: a transport plan that keeps the distances within each space"
    paper: ClassVar[str] = "Alvarez-Melis & Jaakkola 2018 (arXiv 1809.00013); fused: Vayer et al. 2019"

    nodes: int = 500
    eps: float = 5e-3
    alpha: float = 0.5
    starts: int = 10
    rounds_of_plan: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("nodes", "starts", "rounds_of_plan"):
            check_rank(f"gromov-wasserstein: {field}", getattr(self, field))
        check_number("gromov-wasserstein: eps", self.eps, 0, above=True)
        check_number("gromov-wasserstein: alpha", self.alpha, 0, 1, above=True)

    def start(self, clouds: Clouds, seed: int) -> Tensor:
        """Procrustes on the plan."""
        s = clouds.seeds
        chosen = [sampled_rows(len(r), self.nodes, seed + i, s[:, i]) for i, r in enumerate((clouds.x, clouds.y))]
        x, y = clouds.x[chosen[0]], clouds.y[chosen[1]]
        cost = None
        if len(s):
            cost = 1 - signatures(x, clouds.x[s[:, 0]]) @ signatures(y, clouds.y[s[:, 1]]).T
        found = gromov(
            relative_distances(x),
            relative_distances(y),
            eps=self.eps,
            cost=cost,
            alpha=1.0 if cost is None else self.alpha,
            starts=self.starts,
            rounds=self.rounds_of_plan,
            seed=seed,
        )
        return polar((x.double().T @ found.plan @ y.double()).float())
