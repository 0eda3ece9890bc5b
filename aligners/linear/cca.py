"""Canonical correlation analysis, regularised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..alignment import Alignment
from ..errors import UsageError
from ..moments import Moments
from ..survey import Survey
from .checks import check_number, check_rank, check_rank_fits, check_variance
from .two_sided import TwoSided, two_sided

__all__ = ["CCA", "Canonical", "canonical", "canonical_correlations"]

EPS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
DEFAULT = 0.1
UNCORRELATED = 1e-7  # square root of rounding in float64: a variate below it says nothing of its mate


@dataclass(frozen=True)
class CCA(TwoSided):
    """Variates ``a = (x - mean_x) A``, ``b = (y - mean_y) B`` with ``A = Cx^-1/2 U``, ``B = Cy^-1/2 V``.

    ``Cx^-1/2 Sxy Cy^-1/2 = U diag(rho) V'`` with ``Cx = Sxx + eps tr(Sxx)/p I``, and Cy likewise (Hotelling 1936; Vinod
    1976 for the ridge). ``eps`` left open: chosen by kept@3 out of fold. ``rank``: at most so many variates (all by
    default; rho already weighs them). ``variance``: PCA first, the components that hold this share of each side's
    variance ("SVCCA"; Raghu et al. 2017).

    Source goes to ``a rho^power``, target to ``b``: ``power`` weighs the variates where the two meet, in the shared
    space, as in retrieval. It does not touch translation, which is always the regression through the variates, ``y^ =
    mean_y + (x - mean_x) A diag(rho) V' Cy^1/2``; its mirror image leads back to the source. At full rank that is ridge
    with ``alpha = eps``. Variates of no correlation are dropped.
    """

    name: ClassVar[str] = "cca"
    summary: ClassVar[str] = "the most correlated directions of both sides as a shared space"
    paper: ClassVar[str] = "Hotelling 1936; Vinod 1976, canonical ridge; Raghu et al. 2017, SVCCA (variance)"

    eps: float | None = None
    rank: int | None = None
    power: float = 1.0
    variance: float | None = None

    def __post_init__(self) -> None:
        check_number("cca: eps", self.eps, 0)
        check_rank("cca: rank", self.rank)
        check_number("cca: power", self.power, 0)
        check_number("cca: variance", self.variance, 0, 1, above=True)

    def variants(self, survey: Survey) -> Sequence[Self]:
        """One aligner for each eps of the grid, strongest first."""
        return (self,) if self.eps is not None else tuple(replace(self, eps=eps) for eps in EPS)

    def align_moments(self, moments: Moments) -> Alignment:
        """The closed form at one eps (0.1 if it is open)."""
        check_rank_fits("cca: rank", self.rank, moments.source_dim, moments.target_dim)
        found = canonical(moments, DEFAULT if self.eps is None else self.eps, self.variance)
        k = max(1, int((found.rho > UNCORRELATED).sum()))
        a, rho, b, a_back, b_back = found.first(k if self.rank is None else min(self.rank, k))
        weight = rho.clamp(min=UNCORRELATED) ** self.power
        return two_sided(moments, a * weight, b, out_y=(rho / weight)[:, None] * b_back, out_x=rho[:, None] * a_back)


class Canonical(NamedTuple):
    """``a`` ``(p, k)``, correlations ``rho`` ``(k,)``, ``b`` ``(q, k)``, and the inverses of a and b on their spans."""

    a: Tensor
    rho: Tensor
    b: Tensor
    a_back: Tensor
    b_back: Tensor

    def first(self, k: int) -> Canonical:
        """The ``k`` most correlated variates."""
        return Canonical(self.a[:, :k], self.rho[:k], self.b[:, :k], self.a_back[:k], self.b_back[:k])


def canonical(moments: Moments, eps: float, variance: float | None = None) -> Canonical:
    """All canonical variates, of unit (regularised) variance. Raises `UsageError` where every rho would be 1."""
    check_variance("cca", moments)
    (white_x, colour_x), (white_y, colour_y) = (_roots(e, eps, variance, moments.n) for e in _eigen(moments))
    directions = max(white_x.shape[1], white_y.shape[1])
    # n centred rows span n - 1 directions, in which any two sets of rows are perfectly correlated.
    if eps == 0 and directions > moments.n - 1.5:
        raise UsageError(
            f"cca: without regularisation {moments.n:g} pairs in {directions} directions correlate perfectly whatever "
            "they are; set eps above 0, keep a smaller share of the variance, or bring more pairs."
        )
    u, rho, vt = torch.linalg.svd(white_x.T @ (moments.block("xy") / moments.n) @ white_y, full_matrices=False)
    return Canonical(white_x @ u, rho.clamp(max=1.0), white_y @ vt.T, u.T @ colour_x, vt @ colour_y)


def canonical_correlations(moments: Moments, eps: float = 0.0, variance: float | None = None) -> Tensor:
    """The canonical correlations, largest first; PCA first where a share of ``variance`` is given."""
    return canonical(moments, eps, variance).rho


def _eigen(moments: Moments) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return moments.eigen_x, moments.eigen_y


def _roots(eigen: tuple[Tensor, Tensor], eps: float, variance: float | None, n: float) -> tuple[Tensor, Tensor]:
    """``v c^-1/2`` ``(d, k)`` and ``c^1/2 v'`` ``(k, d)`` of the k directions that are kept, c their variances."""
    s, v = eigen
    keep = int((s > 0).sum()) if eps == 0 else len(s)
    if variance is not None:
        reached = s.cumsum(0) >= variance * s.sum() * (1 - 1e-12)
        keep = min(keep, 1 + int((~reached).sum()))
    s, v = s[:keep], v[:, :keep]
    root = ((s + eps * s.mean()) / n).sqrt()
    return v / root, root[:, None] * v.T
