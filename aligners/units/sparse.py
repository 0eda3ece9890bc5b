"""Sparse prediction of units: a LASSO for every target unit, by moments alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..aligner import LinearAligner
from ..errors import RefusedError
from ..linear.checks import check_number, check_variance
from ..maps import Affine
from ..moments import Block, Moments
from ..survey import Survey

__all__ = ["SparseUnits"]

PATH = tuple(10 ** (-e / 4) for e in range(1, 9))
TOLERANCE = 0.01
MOST = 1000
LOOK = 20


@dataclass(frozen=True)
class SparseUnits(LinearAligner):
    """``min_W ||Yc - Xc W||^2 / 2n + penalty * sum |W|`` on standardised units, the penalty in units of correlation.

    At penalty 1 nothing is left; at 0 it is least squares. Solved for all target units at once by FISTA (Beck &
    Teboulle 2009) on the moments, from the strongest penalty down. ``penalty`` none: of eight from .56 to .01, the
    strongest whose held-out overlap@10 is within one standard error of the best.
    Between 384 and 768 dims that choice takes longer than four minutes on one core: set the penalty there.
    """

    name: ClassVar[str] = "sparse-units"
    summary: ClassVar[str] = "each target unit from a few source units (LASSO)"
    paper: ClassVar[str] = "Li et al. 2016, Convergent learning; Tibshirani 1996, LASSO"

    penalty: float | None = None

    def __post_init__(self) -> None:
        check_number("sparse-units: penalty", self.penalty, 0, 1, above=True)

    @property
    def blocks(self) -> frozenset[Block]:
        """Of the target its diagonal only."""
        return frozenset(("y", "xx", "xy"))

    def settle(self, survey: Survey) -> SparseUnits:
        """The sparsest within one standard error of the best."""
        from ..choose import NeighbourJudge  # choose builds on aligners

        if self.penalty is not None:
            return self
        judge = NeighbourJudge(survey)
        mapped: dict[float, list[Tensor]] = {}
        for fold, rows in survey.folds():
            for penalty, mapping in self.path(survey.without_fold(fold)):
                mapped.setdefault(penalty, []).append(
                    torch.cat([rows[:, None].double(), mapping(survey.sample.x[rows]).double()], 1)
                )
        whole = {p: torch.cat(parts) for p, parts in mapped.items() if sum(map(len, parts)) == len(survey.sample)}
        scores = {p: judge.rate(r[r[:, 0].argsort(), 1:])["overlap@10"] for p, r in whole.items()}
        best = max(scores.values(), key=lambda s: float(s.mean()))
        least = float(best.mean()) - float(best.std()) / len(best) ** 0.5
        return replace(self, penalty=next(p for p, score in scores.items() if float(score.mean()) >= least))

    def solve(self, moments: Moments) -> Affine:
        """Raises `RefusedError` where the descent does not settle."""
        penalty = PATH[-1] if self.penalty is None else self.penalty
        *_, (reached, mapping) = self.path(moments, penalty)
        if reached != penalty:
            raise RefusedError(
                f"sparse-units: no convergence in {MOST} steps below penalty {reached:.3g}: units are collinear. "
                f"Give a stronger penalty (--set penalty={reached:.3g})."
            )
        return mapping

    def path(self, moments: Moments, last: float = PATH[-1]) -> Iterator[tuple[float, Affine]]:
        """The map at every penalty down to ``last``, as far as the descent settles."""
        check_variance(self.name, moments)
        sd_x, sd_y = ((s / moments.n).sqrt() for s in (moments.square_x, moments.square_y))
        here, there = (torch.where(sd > 0, 1 / sd.clamp(min=1e-300), 0.0) for sd in (sd_x, sd_y))
        gram = moments.block("xx") / moments.n * torch.outer(here, here)
        cross = moments.block("xy") / moments.n * torch.outer(here, there)
        weight: Tensor | None = torch.zeros_like(cross)
        for penalty in (*(v for v in PATH if v > last), last):  # each starts from the one before
            assert weight is not None
            weight = lasso(gram, cross, penalty, weight)
            if weight is None:
                return
            yield penalty, Affine.between(moments.mean_x, weight * here[:, None] * sd_y, moments.mean_y)


def lasso(gram: Tensor, cross: Tensor, penalty: float, start: Tensor) -> Tensor | None:
    """``argmin_W tr(W' G W) / 2 - tr(W' C) + penalty |W|_1`` for ``G`` ``(p, p)`` and ``C`` ``(p, q)``.

    None where the subgradient conditions do not hold to a hundredth of the penalty within 1,000 steps.
    """
    step = 1 / float(torch.linalg.matrix_norm(gram, 2))
    weight, ahead, t = start, start, 1.0
    for turn in range(MOST + 1):
        if turn % LOOK == 0:
            slope = cross - gram @ weight
            off = torch.where(
                weight == 0, (slope.abs() - penalty).clamp(min=0), (slope - penalty * weight.sign()).abs()
            )
            if float(off.max()) <= TOLERANCE * penalty:
                return weight
        towards = ahead - step * (gram @ ahead - cross)
        found = towards.sign() * (towards.abs() - step * penalty).clamp(min=0)
        # Restarted where it overshoots (O'Donoghue & Candes 2015): momentum would circle round the optimum.
        t = 1.0 if float(((ahead - found) * (found - weight)).sum()) > 0 else t
        later = (1 + (1 + 4 * t * t) ** 0.5) / 2
        ahead = found + (t - 1) / later * (found - weight)
        weight, t = found, later
    return None
