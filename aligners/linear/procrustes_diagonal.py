"""Orthogonal Procrustes followed by a scale for every target dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..aligner import LinearAligner
from ..maps import Affine
from ..moments import Block, Moments
from .derived import inverse_where_positive

__all__ = ["ProcrustesDiagonal"]


@dataclass(frozen=True)
class ProcrustesDiagonal(LinearAligner):
    """``R diag(d)``: the Procrustes rotation, then ``d_j = <(Xc R)_j, Yc_j> / ||(Xc R)_j||^2``, least squares per dim.

    R = U V' of ``Xc'Yc = U S V'``, ``(p, q)``; d ``(q,)``, 0 for a dimension that R leaves without variance.
    """

    name: ClassVar[str] = "procrustes-diagonal"
    summary: ClassVar[str] = "Procrustes rotation, then a scale for every target dimension"
    paper: ClassVar[str] = "Drift-Adapter (2025), orthogonal Procrustes with a diagonal scaling matrix"
    rotates: ClassVar[bool] = True

    @property
    def blocks(self) -> frozenset[Block]:
        """The moments that it needs with these hyper-parameters."""
        return frozenset(("xx", "xy", "y"))

    def solve(self, moments: Moments) -> Affine:
        """The closed form."""
        rotation = moments.rotation
        explained = (rotation * moments.block("xy")).sum(0)
        energy = (rotation * (moments.block("xx") @ rotation)).sum(0)
        return Affine.between(moments.mean_x, rotation * (explained * inverse_where_positive(energy)), moments.mean_y)
