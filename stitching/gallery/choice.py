"""The mixing weight of a dual, cross-fitted over labelled queries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...aligners.measures.retrieval import rank_metrics
from ...aligners.pairs import mix
from .scan import Advance, count_above
from .systems import GRID, HALF, Systems

__all__ = ["Mixing", "mixing"]

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
    if inputs.query is None or len(torch.unique(inputs.query)) < ENOUGH:
        return {name: Mixing(HALF, HALF, False) for name in duals}
    ranks = count_above(inputs, systems.views, {name: [made(a) for a in GRID] for name, made in duals.items()}, advance)
    keys = torch.arange(m) if inputs.queries.groups is None else inputs.queries.groups
    fold = torch.unique(mix(keys, seed), return_inverse=True)[1] % FOLDS
    grid = torch.tensor(GRID)
    out = {}
    for name, rank in ranks.items():
        gains = torch.stack([rank_metrics(r, inputs.query, m)["ndcg@10"] for r in rank])
        crossed = torch.empty(m, 1)
        for k in range(FOLDS):
            crossed[fold == k] = grid[best(gains[:, fold != k])]
        out[name] = Mixing(GRID[best(gains)], crossed, True)
    return out


def best(gains: Tensor) -> int:
    """The place of the highest mean of ``gains`` ``(grid, m)``; the one nearest a half on a tie, or without labels."""
    mean = gains.nanmean(1).nan_to_num(0.0)
    ties = (mean >= mean.max() - 1e-12).nonzero()[:, 0]
    return int(ties[(ties - len(GRID) // 2).abs().argmin()])
