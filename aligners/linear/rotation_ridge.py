"""Ridge shrunk to the rotation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from ..aligner import LinearAligner
from ..maps import Affine
from ..moments import Block, Moments
from ..survey import Survey
from .checks import check_number, check_variance
from .derived import least_squares_scale

__all__ = ["RotationRidge"]

STRENGTHS = tuple(float(f"{10**e:.4g}") for e in (-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2))


@dataclass(frozen=True)
class RotationRidge(LinearAligner):
    """``min_W ||Xc W - Yc||^2 + mu ||W - s R||^2``: ``W = (Xc'Xc + mu I)^-1 (Xc'Yc + mu s R)``.

    One knob from least squares (strength 0) to orthogonal Procrustes (strength infinite); R is the (semi-)orthogonal
    Procrustes solution and ``mu = strength * mean eigenvalue of Xc'Xc``. The closed form of lambda-orthogonality (Ricci
    et al. 2025, which learns the same trade-off by gradient descent). ``strength`` left open: the best of 10^-2 to 10^2
    by kept@3 out of fold. ``scale``: s by least squares, ``sum(S) / ||Xc||^2`` for p <= q, instead of 1; left open
    it is 1 where the rows of both spaces have unit length, else chosen too.
    """

    name: ClassVar[str] = "rotation-ridge"
    summary: ClassVar[str] = "ridge shrunk to the Procrustes rotation: one knob between the two"
    paper: ClassVar[str] = "closed form of Ricci et al. 2025, lambda-orthogonality (arXiv 2509.16664)"
    rotates: ClassVar[bool] = True

    strength: float | None = None
    scale: bool | None = None

    @property
    def blocks(self) -> frozenset[Block]:
        """The moments that it needs with these hyper-parameters."""
        return frozenset(("xx", "xy", "y"))

    def __post_init__(self) -> None:
        check_number("rotation-ridge: strength", self.strength, 0, above=True)

    def variants(self, survey: Survey) -> Sequence[Self]:
        """One aligner for each strength of the grid and each scale, nearest to the plain rotation first."""
        strengths = STRENGTHS[::-1] if self.strength is None else (self.strength,)
        unit = survey.source.unit and survey.target.unit
        scales = [self.scale] if self.scale is not None else [False] if unit else [False, True]
        return tuple(replace(self, strength=k, scale=s) for k in strengths for s in scales)

    def solve(self, moments: Moments) -> Affine:
        """The closed form at one strength (1 where it is open) and one scale (1 where it is open)."""
        check_variance(self.name, moments)
        s, v = moments.eigen_x
        mu = (1.0 if self.strength is None else self.strength) * s.mean()
        rotation = moments.rotation
        if self.scale:
            rotation = rotation * least_squares_scale(rotation, moments)
        weight = v @ ((v.T @ (moments.block("xy") + mu * rotation)) / (s + mu)[:, None])
        return Affine.between(moments.mean_x, weight, moments.mean_y)
