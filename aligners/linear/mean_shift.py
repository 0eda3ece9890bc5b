"""A shift by the difference of the means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..aligner import LinearAligner
from ..maps import Affine
from ..moments import Block, Moments
from .checks import check_number, require_equal_dims

__all__ = ["MeanShift"]


@dataclass(frozen=True)
class MeanShift(LinearAligner):
    """``x -> x + amount (mean_y - mean_x)``, equal dims: closes the gap of the centroids, turns nothing.

    ``amount``: how much of the gap, from 0 (nothing) to 1 (all).
    """

    name: ClassVar[str] = "mean-shift"
    summary: ClassVar[str] = "shift by the difference of the means: closes a modality gap, turns nothing"
    paper: ClassVar[str] = "Liang et al. 2022, Mind the gap (the gap vector)"

    amount: float = 1.0

    @property
    def blocks(self) -> frozenset[Block]:
        """The moments that it needs with these hyper-parameters."""
        return frozenset()

    def __post_init__(self) -> None:
        check_number("mean-shift: amount", self.amount, 0, 1)

    def solve(self, moments: Moments) -> Affine:
        """The closed form."""
        require_equal_dims(self.name, moments)
        eye = torch.eye(moments.source_dim, dtype=moments.mean_x.dtype, device=moments.mean_x.device)
        return Affine(eye, self.amount * (moments.mean_y - moments.mean_x))
