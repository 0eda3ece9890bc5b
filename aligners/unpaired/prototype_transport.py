"""Prototype transport: rows are shared out among the prototypes of the other space, which fixes a rotation, in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..linear.checks import check_number, check_rank
from ..polar import polar
from ..transport.assignment import prototypes
from ..transport.sinkhorn import sinkhorn
from .base import UnpairedAligner
from .clouds import Clouds, sampled_rows

__all__ = ["PrototypeTransport"]

ROUGH = 1e-2  # marginals of a plan that is only a step on the way
WARM = 0.3  # entropy of the first turn, at which a row is shared out among many prototypes


@dataclass(frozen=True)
class PrototypeTransport(UnpairedAligner):
    """``max_{Q, W} <Q, X W V'> + eps H(Q)``: assignment prediction without pairs (VLAP with its histograms alone).

    V ``(k, q)`` are the k-means centroids of the targets, at most ``prototypes``, and their shares of the rows the
    marginal of Q. In turn ``Q = sinkhorn(-X W V')`` and ``W = polar(X' Q V)``, with the entropy falling from .3 to
    ``eps`` in ``turns`` turns, on ``nodes`` rows. Starts: principal axes onto principal axes by falling variance, with
    the signs that their skewness says, and ``starts`` - 1 more with signs drawn at random; the one with the least
    transport cost is refined as all methods are. The paper's authors train from pairs and sharpen by a prior; this is
    only a start.
    """

    name: ClassVar[str] = "prototype-transport"
    summary: ClassVar[str] = "rotation without pairs: rows shared out among the other space's prototypes"
    paper: ClassVar[str] = "Park, Lee & Sohn 2024, VLAP (arXiv 2404.09632), unpaired; Grave et al. 2019 for the turns"

    prototypes: int = 128
    nodes: int = 2000
    eps: float = 0.03
    turns: int = 30
    starts: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("prototypes", "nodes", "turns", "starts"):
            check_rank(f"{self.name}: {field}", getattr(self, field))
        check_number(f"{self.name}: eps", self.eps, 0, WARM, above=True)

    def start(self, clouds: Clouds, seed: int) -> Tensor:
        """The best of all starts, by the cost of its last plan; the known pairs are added to every Procrustes."""
        s = clouds.seeds
        x, y = (r[sampled_rows(len(r), self.nodes, seed, s[:0, 0])].double() for r in (clouds.x, clouds.y))
        v, shares = prototypes(y, min(self.prototypes, max(2, len(y) // 4)), seed)
        known = clouds.x[s[:, 0]].double().T @ clouds.y[s[:, 1]].double() * self.seed_weight / len(x)
        best, least = None, torch.inf
        for first in starts(x, y, self.starts, seed):
            weight = polar(first + known)
            for turn in range(self.turns):
                eps = WARM * (self.eps / WARM) ** (turn / max(1, self.turns - 1))
                cost = -(x @ weight) @ v.T
                plan = sinkhorn(cost, eps, b=shares, rounds=5000, tolerance=ROUGH)
                weight = polar(x.T @ plan @ v + known)
            price = float((plan * cost).sum())
            if price < least:
                best, least = weight, price
        assert best is not None  # there is always a start
        return best.float()


def starts(x: Tensor, y: Tensor, count: int, seed: int) -> list[Tensor]:
    """Rotations ``(p, q)`` that bring principal axes onto principal axes: signs by skewness first, then at random."""
    sides = []
    for rows in (x, y):
        axes = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)[2]
        skew = ((rows - rows.mean(0)) @ axes.T).pow(3).sum(0)
        sides.append(axes * torch.where(skew < 0, -1.0, 1.0)[:, None])
    few = min(len(side) for side in sides)
    a, b = sides[0][:few], sides[1][:few]
    g = torch.Generator().manual_seed(seed)
    signs = [torch.ones(few, dtype=x.dtype)]
    signs += [torch.randint(0, 2, (few,), generator=g).to(x.dtype) * 2 - 1 for _ in range(count - 1)]
    return [(a * sign[:, None]).T @ b for sign in signs]
