"""Ridge shrunk to the identity, for spaces that have drifted a little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch

from ..aligner import LinearAligner
from ..maps import Affine
from ..moments import Block, Moments
from ..survey import Survey
from .checks import check_number, check_variance, require_equal_dims
from .rotation_ridge import STRENGTHS

__all__ = ["IdentityRidge"]


@dataclass(frozen=True)
class IdentityRidge(LinearAligner):
    """``min_D ||Xc (I + D) - Yc||^2 + mu ||D||^2``: ``D = (Xc'Xc + mu I)^-1 Xc'(Yc - Xc)`` ``(d, d)``, equal dims.

    For a new version of the same encoder. ``mu = strength * mean eigenvalue of Xc'Xc``; ``strength`` left open: the
    best of 10^-2 to 10^2 by kept@3 out of fold. ``blend`` t: ``x + t (f(x) - x)`` for the fitted f, from no change
    at all (0) to the whole correction, shift of the mean included (1).
    """

    name: ClassVar[str] = "identity-ridge"
    summary: ClassVar[str] = "ridge shrunk to the identity: for a small drift between equal dims"
    paper: ClassVar[str] = "closed form of the residual linear map of WiCLP (Zarei et al. 2024)"

    strength: float | None = None
    blend: float = 1.0

    @property
    def blocks(self) -> frozenset[Block]:
        """The moments that it needs with these hyper-parameters."""
        return frozenset(("xx", "xy", "y"))

    def __post_init__(self) -> None:
        check_number("identity-ridge: strength", self.strength, 0, above=True)
        check_number("identity-ridge: blend", self.blend, 0, 1)

    def variants(self, survey: Survey) -> Sequence[Self]:
        """One aligner for each strength of the grid, nearest to the identity first."""
        require_equal_dims(self.name, survey.moments)
        if self.strength is not None:
            return (self,)
        return tuple(replace(self, strength=k) for k in reversed(STRENGTHS))

    def solve(self, moments: Moments) -> Affine:
        """The closed form at one strength (1 if it is open: without held-out rows nothing better is known)."""
        require_equal_dims(self.name, moments)
        check_variance(self.name, moments)
        s, v = moments.eigen_x
        mu = (1.0 if self.strength is None else self.strength) * s.mean()
        change = v @ ((v.T @ (moments.block("xy") - moments.block("xx"))) / (s + mu)[:, None])
        eye = torch.eye(len(s), dtype=s.dtype, device=s.device)
        full = Affine.between(moments.mean_x, eye + change, moments.mean_y)
        return Affine(eye + self.blend * change, self.blend * full.bias)
