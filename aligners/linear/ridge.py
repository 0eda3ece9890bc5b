"""Ridge regression with its penalty chosen in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..aligner import LinearAligner
from ..alignment import Alignment
from ..errors import UsageError
from ..maps import Affine
from ..moments import Block, Moments
from ..survey import Survey
from .checks import check_choice, check_number, check_variance
from .derived import inverse_where_positive

__all__ = ["Ridge"]

GRID, LEAST, MOST = 40, 1e-6, 1e2  # number of penalties, and their ends as multiples of the largest eigenvalue


@dataclass(frozen=True)
class Ridge(LinearAligner):
    """``min_W ||Xc W - Yc||^2 + lam ||W||^2``: ``W = (Xc'Xc + lam I)^-1 Xc'Yc``, means added back, never penalised.

    ``lam = alpha * mean eigenvalue of Xc'Xc``, so that alpha means the same whatever the number of rows. Where
    ``alpha`` is left open it minimises, over 40 log-spaced values and 0, GCV ``= (RSS/n) / (1 - df/n)^2`` (Golub, Heath
    & Wahba 1979, eq. 1.4) or the exact leave-one-out error ``mean ||r_i / (1 - h_i)||^2`` (``criterion`` "loo", which
    reads the rows once more). ``per_target``: a penalty of its own for every target dimension.
    """

    name: ClassVar[str] = "ridge"
    summary: ClassVar[str] = "least squares with a penalty on the map, chosen by GCV or leave-one-out"
    paper: ClassVar[str] = "Hoerl & Kennard 1970, Ridge regression; Golub, Heath & Wahba 1979, GCV"

    alpha: float | None = None
    criterion: Literal["gcv", "loo"] = "gcv"
    per_target: bool = False

    @property
    def blocks(self) -> frozenset[Block]:
        """The moments that it needs with these hyper-parameters."""
        return frozenset(("xx", "xy", "y"))

    def __post_init__(self) -> None:
        check_number("ridge: alpha", self.alpha, 0)
        check_choice("ridge: criterion", self.criterion, ("gcv", "loo"))
        if self.per_target and (self.criterion == "loo" or self.alpha is not None):
            raise UsageError("ridge: per_target goes with the criterion gcv and an alpha left open.")

    @property
    def reads_rows(self) -> bool:
        """Leave-one-out needs each row's leverage."""
        return self.alpha is None and self.criterion == "loo"

    def solve(self, moments: Moments) -> Affine:
        """The closed form, at the given alpha or at the one with the least GCV."""
        return self._solved(moments, self.penalty(moments))

    def align_moments(self, moments: Moments) -> Alignment:
        """`solve`, with the chosen alpha on record."""
        penalty = self.penalty(moments)
        return Alignment.one_sided(self._solved(moments, penalty)).with_provenance(**self._record(moments, penalty))

    def align(self, survey: Survey) -> Alignment:
        """By the moments; with criterion="loo", after one more pass for the leverages."""
        if not self.reads_rows:
            return super().align(survey)
        moments, grid = survey.moments, penalties(survey.moments)
        penalty = grid[leave_one_out(survey, grid).argmin()]
        return Alignment.one_sided(self._solved(moments, penalty)).with_provenance(**self._record(moments, penalty))

    def penalty(self, moments: Moments) -> Tensor:
        """The penalty lam: a number, or ``(q,)`` with one for every target dimension."""
        if self.alpha is not None:
            check_variance("ridge", moments)
            return self.alpha * moments.eigen_x[0].mean()
        grid = penalties(moments)
        return grid[gcv(moments, grid, per_target=self.per_target).argmin(0)]

    def _solved(self, moments: Moments, penalty: Tensor) -> Affine:
        s, v = moments.eigen_x
        weight = v @ (shrunk(s, penalty) * (v.T @ moments.block("xy")))
        return Affine.between(moments.mean_x, weight, moments.mean_y)

    def _record(self, moments: Moments, penalty: Tensor) -> dict[str, Any]:
        """The chosen alpha (the median of them, per target), and whether it lies at an end of the grid."""
        if self.alpha is not None:
            return {}
        s, _ = moments.eigen_x
        at_edge = (penalty <= LEAST * s[0]) | (penalty >= MOST * s[0])
        return {"alpha": float((penalty / s.mean()).median()), "alpha_at_edge": bool(at_edge.any())}


def penalties(moments: Moments) -> Tensor:
    """The grid ``(g,)`` of penalties: 1e-6 to 1e2 times the largest eigenvalue, and 0 where it means something."""
    check_variance("ridge", moments)
    s, _ = moments.eigen_x
    grid = s[0] * torch.logspace(math.log10(LEAST), math.log10(MOST), GRID, dtype=s.dtype, device=s.device)
    if moments.n > len(s) + 1 and float(s[-1]) > 0:
        return torch.cat([grid.new_zeros(1), grid])
    return grid


def shrunk(s: Tensor, penalty: Tensor) -> Tensor:
    """``1 / (s + penalty)`` ``(p, 1)``, or ``(p, q)`` for a penalty per target; 0 in directions without variance."""
    return torch.where(s[:, None] > 0, inverse_where_positive(s[:, None] + penalty), 0.0)


def gcv(moments: Moments, grid: Tensor, *, per_target: bool = False) -> Tensor:
    """Generalised cross-validation score of each penalty, ``(g,)`` or ``(g, q)``, from moments alone.

    With ``t = V'Xc'Yc`` and r directions of variance: RSS = (||Yc||^2 - sum_j t_j^2 / s_j) + sum_j t_j^2 lam^2 /
    (s_j (s_j + lam)^2), and n - df = (n - 1 - r) + sum_j lam / (s_j + lam), the 1 for the mean, which is not penalised.
    In this form no small difference of large numbers decides between penalties, even where n < p.
    """
    s, v = moments.eigen_x
    s, v = s[s > 0], v[:, s > 0]
    if len(s) > moments.n - 0.5:
        raise UsageError(
            f"ridge: expected weights that count rows (1 on average), got a sum of {moments.n:g} for rows that span "
            f"{len(s)} directions: GCV needs the number of rows; rescale the weights, or give alpha."
        )
    explained = (v.T @ moments.block("xy")).square() / s[:, None]
    total = moments.square_y
    if not per_target:
        explained, total = explained.sum(1, keepdim=True), total.sum()[None]
    left_out = grid[:, None] / (s + grid[:, None])
    # n rows that span n - 1 directions leave no residual: what would be subtracted here is rounding.
    rest = (total - explained.sum(0)).clamp(min=0) if len(s) < moments.n - 1.5 else torch.zeros_like(total)
    rss = rest + left_out.square() @ explained
    freedom = (moments.n - 1 - len(s)) + left_out.sum(1, keepdim=True)
    score = rss / moments.n / (freedom.clamp(min=1e-9) / moments.n).square()
    return score if per_target else score[:, 0]


def leave_one_out(survey: Survey, grid: Tensor) -> Tensor:
    """Exact mean squared leave-one-out error ``(g,)`` of each penalty: ``e_i = r_i / (1 - h_i)``.

    ``h_i = w_i (1/n + sum_k z_ik^2 / (s_k + lam))`` for ``z_i = (x_i - mean_x) V`` and the row's weight w_i (1 if there
    are none), by which its error is weighted, too. Cost n p (p + g q), one pass.
    """
    moments = survey.moments
    s, v = moments.eigen_x
    t = v.T @ moments.block("xy")
    errors = torch.zeros(len(grid), dtype=torch.float64)
    for x, y, _, given in survey.stream.blocks():
        z, yc = (x.double() - moments.mean_x) @ v, y.double() - moments.mean_y
        w = torch.ones(len(z), dtype=z.dtype, device=z.device) if given is None else given.to(z)
        for i, penalty in enumerate(grid):
            factor = shrunk(s, penalty)
            leverage = w * (1 / moments.n + z.square() @ factor[:, 0])
            residual = torch.linalg.vector_norm(yc - (z * factor[:, 0]) @ t, dim=1)
            errors[i] += float((w * (residual / (1 - leverage).clamp(min=1e-12)).square()).sum())
    return errors / moments.n
