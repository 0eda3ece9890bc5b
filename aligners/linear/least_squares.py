"""Plain least squares, and the published translators that are variants of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..aligner import LinearAligner
from ..maps import Affine
from ..moments import Block, Moments
from .derived import inverse_where_positive, standardised, uncentred

__all__ = ["LeastSquares"]


@dataclass(frozen=True)
class LeastSquares(LinearAligner):
    """``min_W ||Xc W - Yc||^2``: ``W = pinv(Xc'Xc) Xc'Yc``, of least norm where the source rows lack rank.

    ``bias`` off: ``min_W ||X W - Y||^2`` about the origin, ``x -> x W``. ``standardise``: unit deviation per dimension
    on both sides first, undone behind the map (the rows then have mean 0, so that ``bias`` changes nothing).
    ``orthogonalise``: U V' of ``W = U S V'`` in its stead.

    The translators of Maiorca et al. (2023) are variants: "linear" is ``standardise``, "l-ortho" is ``standardise,
    orthogonalise``, "ortho" is `Procrustes` with ``standardise``, and "affine", a linear layer trained by gradient
    descent, tends to the plain solution, for which `Ridge` is the better estimate.
    """

    name: ClassVar[str] = "least-squares"
    summary: ClassVar[str] = "plain least squares, with the published linear and l-ortho translators as variants"
    paper: ClassVar[str] = "Maiorca et al. 2023, Latent space translation via semantic alignment (arXiv 2311.00664)"

    bias: bool = True
    standardise: bool = False
    orthogonalise: bool = False

    @property
    def blocks(self) -> frozenset[Block]:
        """The moments that it needs with these hyper-parameters."""
        return frozenset(("xx", "xy", "y"))

    def solve(self, moments: Moments) -> Affine:
        """The closed form by the eigenvectors of ``Xc'Xc``; eigenvalues within rounding of 0 are left out."""
        if self.standardise:
            scaled, sd_x, sd_y = standardised(moments)
            scaled_map = LeastSquares(orthogonalise=self.orthogonalise).solve(scaled)
            return Affine.between(moments.mean_x, scaled_map.weight / sd_x[:, None] * sd_y, moments.mean_y)
        if not self.bias:
            moments = uncentred(moments)
        s, v = moments.eigen_x
        weight = v @ (inverse_where_positive(s)[:, None] * (v.T @ moments.block("xy")))
        if self.orthogonalise:
            u, _, vt = torch.linalg.svd(weight, full_matrices=False)
            weight = u @ vt
        return Affine.between(moments.mean_x, weight, moments.mean_y)
