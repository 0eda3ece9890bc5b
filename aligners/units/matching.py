"""Units of one space matched to units of the other by their correlations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..aligner import LinearAligner
from ..linear.checks import check_choice, check_variance
from ..maps import Affine
from ..moments import Block, Moments

__all__ = ["UnitMatching", "correlations", "matched_units"]


@dataclass(frozen=True)
class UnitMatching(LinearAligner):
    """Every target unit from the one source unit that it correlates with most: ``y_j = b_j x_m(j) + a_j``.

    ``kind`` "bipartite": one to one, the matching of the highest sum of correlations (Hungarian; of unequal dims some
    units stay alone, and their targets are the mean); "semi": each target unit takes its best, others may take it too.
    ``signed``: only positive correlations count; else a unit may be matched with its negative.
    """

    name: ClassVar[str] = "unit-matching"
    summary: ClassVar[str] = "each target unit from one source unit: bipartite (Hungarian) or semi-matching"
    paper: ClassVar[str] = "Li et al. 2016, Convergent learning (arXiv 1511.07543)"

    kind: Literal["bipartite", "semi"] = "bipartite"
    signed: bool = False

    def __post_init__(self) -> None:
        check_choice("unit-matching: kind", self.kind, ("bipartite", "semi"))

    @property
    def blocks(self) -> frozenset[Block]:
        """The cross moments and both diagonals."""
        return frozenset(("x", "y", "xy"))

    def solve(self, moments: Moments) -> Affine:
        """One number a column."""
        check_variance(self.name, moments)
        rows, columns = matched_units(correlations(moments), self.kind, signed=self.signed)
        weight = torch.zeros_like(moments.block("xy"))
        slope = moments.block("xy")[rows, columns] / moments.square_x[rows].clamp(min=1e-300)
        weight[rows, columns] = slope.clamp(min=0) if self.signed else slope
        return Affine.between(moments.mean_x, weight, moments.mean_y)


def correlations(moments: Moments) -> Tensor:
    """``(p, q)`` correlations of source with target units; 0 for units that never vary."""
    scale = torch.outer(moments.square_x, moments.square_y).sqrt()
    return torch.where(scale > 0, moments.block("xy") / scale.clamp(min=1e-300), 0.0)


def matched_units(correlation: Tensor, kind: str, *, signed: bool = False) -> tuple[Tensor, Tensor]:
    """Source units and the target units ``(k,)`` that they are matched with, target units ascending."""
    from scipy.optimize import linear_sum_assignment

    strength = correlation if signed else correlation.abs()
    if kind == "semi":
        return strength.argmax(0), torch.arange(strength.shape[1])
    rows, columns = (torch.from_numpy(i) for i in linear_sum_assignment(strength.numpy(), maximize=True))
    order = columns.argsort()
    return rows[order], columns[order]
