"""Halfway between the rotation and ridge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..aligner import LinearAligner
from ..maps import Affine
from ..moments import Block, Moments
from .checks import check_number
from .derived import inverse_where_positive, least_squares_scale
from .ridge import Ridge

__all__ = ["Blend"]


@dataclass(frozen=True)
class Blend(LinearAligner):
    """``W = s ((1 - share) R / ||Xc R|| + share B / ||Xc B||)``: the mean of two maps whose errors differ.

    R is the orthogonal Procrustes solution, which keeps all that the source knows and its noise, B is `Ridge` with its
    penalty by GCV, which damps what it cannot predict; both are brought to the same spread, and s is by least squares.
    ``share`` is that of ridge; half, as in a combination of forecasts whose errors nobody knows: estimated shares
    seldom do better (Bates & Granger 1969; Stock & Watson 2004). It is not on the path between the two that
    `RotationRidge` walks, which trades them direction by direction: with 500 pairs the mean finds more than either end,
    and that path does not.
    """

    name: ClassVar[str] = "blend"
    summary: ClassVar[str] = "the mean of the Procrustes rotation and of ridge"
    paper: ClassVar[str] = "Bates & Granger 1969, The combination of forecasts"
    rotates: ClassVar[bool] = True

    share: float = 0.5

    @property
    def blocks(self) -> frozenset[Block]:
        """The moments that it needs with these hyper-parameters."""
        return frozenset(("xx", "xy", "y"))

    def __post_init__(self) -> None:
        check_number("blend: share", self.share, 0, 1)

    def solve(self, moments: Moments) -> Affine:
        """The closed form."""

        def of_spread_1(weight: Tensor) -> Tensor:
            return weight * inverse_where_positive((weight * (moments.block("xx") @ weight)).sum().sqrt())

        rotation, ridge = of_spread_1(moments.rotation), of_spread_1(Ridge().solve(moments).weight)
        weight = (1 - self.share) * rotation + self.share * ridge
        return Affine.between(moments.mean_x, weight * least_squares_scale(weight, moments), moments.mean_y)
