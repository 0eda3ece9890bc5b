"""Reduced-rank ridge regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from ..aligner import LinearAligner
from ..maps import Affine
from ..moments import Block, Moments
from ..survey import Survey
from .checks import check_number, check_rank, check_rank_fits, ranks
from .derived import remembered
from .ridge import Ridge, shrunk

__all__ = ["ReducedRank"]


@dataclass(frozen=True)
class ReducedRank(LinearAligner):
    """``min ||Xc W - Yc||^2 + lam ||W||^2`` over W of rank at most k: ``W = W_ridge Q Q'`` ``(p, q)``.

    Q ``(q, k)`` are the leading right singular vectors of the fitted values of the augmented problem, that is the
    eigenvectors of ``W_ridge' (Xc'Xc + lam I) W_ridge`` (Mukherjee & Zhu 2011; at lam = 0 Izenman 1975). To cut
    the singular values of W itself, without regard to the rows, is another and worse thing.

    ``alpha``: as in `Ridge`, by GCV where it is left open. ``rank`` left open: chosen by kept@3 out of fold.
    """

    name: ClassVar[str] = "reduced-rank"
    summary: ClassVar[str] = "ridge through a bottleneck: the best map of a given rank"
    paper: ClassVar[str] = "Izenman 1975, Reduced-rank regression; Mukherjee & Zhu 2011, Reduced rank ridge regression"

    rank: int | None = None
    alpha: float | None = None

    @property
    def blocks(self) -> frozenset[Block]:
        """The moments that it needs with these hyper-parameters."""
        return frozenset(("xx", "xy", "y"))

    def __post_init__(self) -> None:
        check_rank("reduced-rank: rank", self.rank)
        check_number("reduced-rank: alpha", self.alpha, 0)

    def variants(self, survey: Survey) -> Sequence[Self]:
        """One aligner for each rank of the grid below the dims and for the full one, smallest first."""
        return (self,) if self.rank is not None else tuple(replace(self, rank=k) for k in ranks(survey.moments))

    def solve(self, moments: Moments) -> Affine:
        """The closed form at one rank (the full one if it is open)."""
        check_rank_fits("reduced-rank: rank", self.rank, moments.source_dim, moments.target_dim)
        weight, directions = fitted(moments, self.alpha)
        directions = directions[: self.rank]
        return Affine.between(moments.mean_x, (weight @ directions.T) @ directions, moments.mean_y)


@remembered
def fitted(moments: Moments, alpha: float | None) -> tuple[Tensor, Tensor]:
    """The ridge weight ``(p, q)`` and the directions ``(min(p, q), q)`` of its fitted values, strongest first."""
    s, v = moments.eigen_x
    factor = shrunk(s, Ridge(alpha=alpha).penalty(moments))
    t = v.T @ moments.block("xy")
    # The fitted values are U (s + lam)^-1/2 t for orthonormal U, so their right singular vectors are those of the rest.
    _, _, directions = torch.linalg.svd(factor.sqrt() * t, full_matrices=False)
    return v @ (factor * t), directions
