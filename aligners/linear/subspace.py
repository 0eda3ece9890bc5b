"""Alignment inside a subspace of each side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from torch import Tensor

from ..alignment import Alignment
from ..moments import Moments
from ..survey import Survey
from .cca import canonical
from .checks import check_choice, check_number, check_rank, check_rank_fits, check_variance, ranks
from .derived import projected, remembered
from .procrustes import Procrustes
from .ridge import Ridge
from .two_sided import TwoSided, two_sided

__all__ = ["Subspace"]

KINDS = ("pca", "cca", "pls")
INNER = ("procrustes", "ridge")

variates = remembered(canonical)


@dataclass(frozen=True)
class Subspace(TwoSided):
    """``x -> (x - mean_x) A M``, ``y -> (y - mean_y) B``: a map M ``(k, k)`` between k directions of each side.

    ``kind``: the directions A ``(p, k)`` and B ``(q, k)`` are principal components ("pca"), canonical variates ("cca",
    with ``eps`` as in `CCA`) or the singular vectors of ``Xc'Yc`` ("pls"). ``inner``: M is the Procrustes rotation or
    ridge with alpha by GCV. Back to the target by B' or, for cca, by B's inverse on its span, ``V' Cy^1/2``. Rows of
    cca and pls are matched one to one already, so that Procrustes finds M = I there.

    Escaping Plato's Cave (Hadgi et al. 2025) is cca of 50 directions with an affine map inside (inner="ridge"); pca of
    the same rank is the control that it must beat. ``rank``: at most so many directions; left open: by kept@3
    out of fold.
    """

    name: ClassVar[str] = "subspace"
    summary: ClassVar[str] = "a map between a few shared directions (PCA, CCA or PLS) of each side"
    paper: ClassVar[str] = "Hadgi et al. 2025, Escaping Plato's Cave (arXiv 2503.05283)"

    rank: int | None = None
    kind: Literal["pca", "cca", "pls"] = "cca"
    inner: Literal["procrustes", "ridge"] = "ridge"
    eps: float = 0.1

    def __post_init__(self) -> None:
        check_rank("subspace: rank", self.rank)
        check_choice("subspace: kind", self.kind, KINDS)
        check_choice("subspace: inner", self.inner, INNER)
        check_number("subspace: eps", self.eps, 0)

    def variants(self, survey: Survey) -> Sequence[Self]:
        """One aligner for each rank of the grid below the dims and for the full one, smallest first."""
        return (self,) if self.rank is not None else tuple(replace(self, rank=k) for k in ranks(survey.moments))

    def align_moments(self, moments: Moments) -> Alignment:
        """The closed form at one rank (50, or what the dims and the pairs allow, if it is open)."""
        check_variance(self.name, moments)
        check_rank_fits("subspace: rank", self.rank, moments.source_dim, moments.target_dim)
        rank = min(50, ranks(moments)[-1]) if self.rank is None else self.rank
        a, b, back = self._directions(moments, rank)
        inside = projected(moments, a, b)
        inner = Procrustes() if self.inner == "procrustes" else Ridge()
        return two_sided(moments, a @ inner.solve(inside).weight, b, out_y=back)

    def _directions(self, moments: Moments, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """``A`` ``(p, k)``, ``B`` ``(q, k)`` and the way back from the target's directions ``(k, q)``."""
        if self.kind == "cca":
            found = variates(moments, self.eps).first(rank)
            return found.a, found.b, found.b_back
        if self.kind == "pca":
            a, b = (eigen[1][:, :rank] for eigen in (moments.eigen_x, moments.eigen_y))
        else:
            a, b = moments.svd_xy[0][:, :rank], moments.svd_xy[2][:rank].T
        return a, b, b.T
