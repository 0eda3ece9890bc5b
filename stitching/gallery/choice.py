"""Choices that queries make, cross-fitted: no query is scored by what it helped to choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...aligners.measures.retrieval import rank_metrics
from ...aligners.pairs import mix
from .inputs import Queries
from .scan import Advance, count_above
from .systems import GRID, HALF, Systems

__all__ = ["Mixing", "close", "crossed", "folds_of", "highest", "mixing"]

FOLDS = 5
ENOUGH = 50  # labelled queries; with fewer the choice is noise, and a half serves


@dataclass(frozen=True, eq=False)
class Mixing:
    """``served``: the weight ``a`` that all labelled queries choose; ``crossed`` ``(m, 1)``: each query's, chosen
    without its own fold. ``chosen``: whether labels chose, or a half was taken.
    """

    served: float
    crossed: float | Tensor
    chosen: bool

    @property
    def how(self) -> str:
        """In words."""
        return f"cross-fitted over labelled queries, {FOLDS} folds" if self.chosen else "not tuned"


def mixing(systems: Systems, *, seed: int, advance: Advance) -> dict[str, Mixing]:
    """The weight of each dual: from a grid by nDCG@10 on labelled queries of other folds, else a half."""
    inputs, duals = systems.inputs, systems.duals()
    m = len(inputs.queries.new)
    if not duals or inputs.query is None or len(torch.unique(inputs.query)) < ENOUGH:
        return {name: Mixing(HALF, HALF, False) for name in duals}
    ranks = count_above(inputs, systems.views, {name: [made(a) for a in GRID] for name, made in duals.items()}, advance)
    fold, grid = folds_of(inputs.queries, seed), torch.tensor(GRID)
    out = {}
    for name, rank in ranks.items():
        gains = torch.stack([rank_metrics(r, inputs.query, m)["ndcg@10"] for r in rank])
        out[name] = Mixing(GRID[nearest_half(gains)], grid[crossed(gains, fold, nearest_half)][:, None], True)
    return out


def folds_of(queries: Queries, seed: int) -> Tensor:
    """The fold ``(m,)``, 0 to 4, of each query; groups stay together."""
    keys = torch.arange(len(queries.new)) if queries.groups is None else queries.groups
    return torch.unique(mix(keys, seed), return_inverse=True)[1] % FOLDS


def crossed(gains: Tensor, fold: Tensor, choose: Callable[[Tensor], int]) -> Tensor:
    """Which of c things each query ``(m,)`` gets: what ``choose`` takes by the ``gains`` ``(c, m)`` of other folds."""
    out = torch.empty(len(fold), dtype=torch.int64)
    for k in range(FOLDS):
        out[fold == k] = choose(gains[:, fold != k])
    return out


def highest(gains: Tensor) -> int:
    """The place of the highest mean of ``gains`` ``(c, m)``; the first on a tie, or where there are none."""
    return int(gains.nanmean(1).nan_to_num(0.0).argmax())


def close(gains: Tensor) -> Tensor:
    """The places whose mean of ``gains`` ``(c, m)`` is within one standard error of the best, in their order.

    The error is that of the paired difference (the one-standard-error rule; Breiman et al. 1984).
    """
    behind = gains[highest(gains)] - gains
    known = (~behind.isnan()).sum(1).clamp(min=2)
    mean = behind.nanmean(1).nan_to_num(0.0)
    error = ((behind - mean[:, None]).square().nansum(1) / (known - 1) / known).sqrt()
    return (mean <= error).nonzero()[:, 0]


def nearest_half(gains: Tensor) -> int:
    """The weight nearest a half among those of the grid ``(grid, m)`` that are `close` to the best.

    A half was near the best on every pair tried, and labels overrule it only where they can tell. The best itself flips
    between folds by chance, which cost .01 to .02 of the gap between staying and re-embedding.
    """
    near = close(gains)
    return int(near[(near - len(GRID) // 2).abs().argmin()])
