"""Whiten the source, rotate, colour like the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from ..alignment import Alignment
from ..moments import Moments
from ..survey import Survey
from .checks import check_number, check_variance, require_equal_dims
from .derived import inverse_where_positive
from .two_sided import TwoSided, two_sided

__all__ = ["Whitening"]

SHRINKAGES = (0.8, 0.4, 0.2, 0.1, 0.05, 0.02)
DEFAULT = 0.1


@dataclass(frozen=True)
class Whitening(TwoSided):
    """``y^ = mean_y + (x - mean_x) Cx^-1/2 R Cy^1/2`` with ``C = (1 - g) Sigma + g tr(Sigma)/d I`` for each side.

    Each side is whitened by the symmetric root (ZCA; Kessy, Lewin & Strimmer 2018) of its covariance, shrunk to a
    multiple of the identity (Ledoit & Wolf 2004) by ``shrinkage`` g: 0 is no shrinkage, where directions without
    variance are left out, and 1 is Procrustes with one scale. The shared space is the whitened target, and there is a
    way back to both sides. ``rotate``: R is the Procrustes solution between the whitened sides, which makes the map CCA
    with every correlation set to 1; off, R = I (equal dims). ``shrinkage`` left open: chosen by kept@3 out of fold.
    """

    name: ClassVar[str] = "whitening"
    summary: ClassVar[str] = "whiten the source, rotate, colour like the target"
    paper: ClassVar[str] = "Kessy, Lewin & Strimmer 2018, Optimal whitening and decorrelation"

    shrinkage: float | None = None
    rotate: bool = True

    def __post_init__(self) -> None:
        check_number("whitening: shrinkage", self.shrinkage, 0, 1)

    def variants(self, survey: Survey) -> Sequence[Self]:
        """One aligner for each shrinkage of the grid, strongest first."""
        if self.shrinkage is not None:
            return (self,)
        return tuple(replace(self, shrinkage=g) for g in SHRINKAGES)

    def align_moments(self, moments: Moments) -> Alignment:
        """The closed form at one shrinkage (0.1 if it is open)."""
        check_variance(self.name, moments)
        g = DEFAULT if self.shrinkage is None else self.shrinkage
        white_x, colour_x = roots(moments.eigen_x, g, moments.n)
        white_y, colour_y = roots(moments.eigen_y, g, moments.n)
        if self.rotate:
            u, _, vt = torch.linalg.svd(white_x @ moments.block("xy") @ white_y, full_matrices=False)
            rotation = u @ vt
        else:
            require_equal_dims("whitening without rotation", moments)
            rotation = torch.eye(moments.source_dim, dtype=white_x.dtype, device=white_x.device)
        return two_sided(moments, white_x @ rotation, white_y, out_y=colour_y, out_x=rotation.T @ colour_x)


def roots(eigen: tuple[Tensor, Tensor], shrinkage: float, n: float) -> tuple[Tensor, Tensor]:
    """``C^-1/2`` and ``C^1/2`` ``(d, d)`` of the shrunk covariance."""
    s, v = eigen
    root = (((1 - shrinkage) * s + shrinkage * s.mean()) / n).sqrt()
    return (v * inverse_where_positive(root)) @ v.T, (v * root) @ v.T
