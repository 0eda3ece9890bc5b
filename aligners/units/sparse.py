"""Sparse prediction of units: a LASSO for every target unit, by moments alone."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..aligner import LinearAligner
from ..errors import RefusedError
from ..linear.checks import check_number, check_variance
from ..maps import Affine
from ..moments import Block, Moments
from ..survey import Survey

__all__ = ["SparseUnits", "lasso"]

PENALTIES, WEAKEST = 30, 0.01
SEGMENT = 10  # penalties between two looks at the held-out error
JUDGED = 64  # target units by which a penalty is judged: all 768 of a wide space cost twelve times as much
SWEEPS = 10_000


@dataclass(frozen=True)
class SparseUnits(LinearAligner):
    """``min_W ||Yc - Xc W||^2 / 2n + penalty * sum |W|`` on standardised units, the penalty in units of correlation.

    At penalty 1 nothing is left; at 0 it is least squares. Coordinate descent (scikit-learn) on the correlations, each
    target unit by itself, from strong penalties to weak ones. ``penalty`` none: of 30 from the largest correlation to a
    hundredth of it, the strongest whose held-out squared error (of at most 64 target units, evenly spaced) is within
    one standard error of the least. The way down ends where that error has risen again: weak penalties take the time.
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
        from ..choose import require_held_out  # choose builds on aligners

        if self.penalty is not None:
            return self
        require_held_out(survey)
        check_variance(self.name, survey.moments)
        q = survey.moments.target_dim
        units = torch.linspace(0, q - 1, min(q, JUDGED)).round().long()
        folds = [(Standard(survey.without_fold(fold), units), rows) for fold, rows in survey.folds()]
        top = Standard(survey.moments).top
        path = penalties(top, WEAKEST * top, PENALTIES)
        starts = [torch.zeros_like(standard.cross) for standard, _ in folds]
        errors = torch.empty(0, len(survey.sample), dtype=torch.float64)
        for segment in torch.split(path, SEGMENT):
            part = torch.empty(len(segment), len(survey.sample), dtype=torch.float64)
            for i, (standard, rows) in enumerate(folds):
                x, y = survey.sample.x[rows].double(), survey.sample.y[rows][:, units].double()
                weights = lasso(standard.gram, standard.cross, segment, starts[i])
                starts[i] = weights[-1]
                for k, weight in enumerate(weights):
                    miss = (standard.mapping(weight)(x) - y) * standard.there
                    part[k, rows] = miss.square().mean(1)
            errors = torch.cat([errors, part])
            means = errors.mean(1)
            best = int(means.argmin())
            most = means[best] + errors[best].std() / errors.shape[1] ** 0.5
            if best < len(means) - len(part) or means[-1] > most:
                break
        return replace(self, penalty=float(path[int((means <= most).nonzero()[0])]))

    def solve(self, moments: Moments) -> Affine:
        """Raises `RefusedError` where the descent does not settle."""
        check_variance(self.name, moments)
        standard = Standard(moments)
        path = penalties(standard.top, self.penalty or WEAKEST * standard.top, SEGMENT)
        return standard.mapping(lasso(standard.gram, standard.cross, path)[-1])


class Standard:
    """Moments of units of variance 1: ``gram`` ``(p, p)`` and ``cross`` ``(p, q)`` are correlations, 0 of dead units.

    Of the target only the ``units`` asked for.
    """

    def __init__(self, moments: Moments, units: Tensor | slice = slice(None)) -> None:
        self.mean_x, self.mean_y = moments.mean_x, moments.mean_y[units]
        sd_x, self.sd_y = ((s / moments.n).sqrt() for s in (moments.square_x, moments.square_y[units]))
        self.here, self.there = (torch.where(sd > 0, 1 / sd.clamp(min=1e-300), 0.0) for sd in (sd_x, self.sd_y))
        self.gram = moments.block("xx") / moments.n * torch.outer(self.here, self.here)
        self.cross = moments.block("xy")[:, units] / moments.n * torch.outer(self.here, self.there)

    @property
    def top(self) -> float:
        """The penalty at which nothing is left: the largest correlation."""
        return max(float(self.cross.abs().max()), 1e-12)

    def mapping(self, weight: Tensor) -> Affine:
        """The map whose ``weight`` between standardised units this is."""
        return Affine.between(self.mean_x, weight * self.here[:, None] * self.sd_y, self.mean_y)


def penalties(first: float, last: float, count: int) -> Tensor:
    """``count`` penalties from ``first`` down to ``last``, evenly spaced by ratio."""
    return torch.from_numpy(np.geomspace(max(first, last), last, count))


def lasso(gram: Tensor, cross: Tensor, penalties: Tensor, start: Tensor | None = None) -> Tensor:
    """``argmin_W tr(W' G W) / 2 - tr(W' C) + penalty |W|_1`` for ``G`` ``(p, p)`` and ``C`` ``(p, q)``: ``(k, p, q)``.

    ``penalties`` ``(k,)`` fall; the first starts from ``start`` ``(p, q)``, each other one from the one before. Raises
    `RefusedError` where the descent does not settle.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lasso_path

    p, q = cross.shape
    values, vectors = torch.linalg.eigh(gram)
    values = values.clamp(min=max(float(values[-1]), 1e-12) * 1e-9)
    # Rows that have these moments: the library counts samples, and measures convergence against the target's length.
    x = np.asfortranarray(((p * values).sqrt() * vectors).T.numpy())
    y = ((p / values).sqrt() * vectors).T @ cross
    out = np.zeros((q, p, len(penalties)))
    rounded = np.ascontiguousarray(x.T @ x)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        for j in range(q):
            try:
                out[j] = lasso_path(
                    x,
                    y[:, j].contiguous().numpy(),
                    alphas=penalties.numpy(),
                    precompute=rounded,
                    Xy=(p * cross[:, j]).numpy(),
                    coef_init=None if start is None else start[:, j].contiguous().numpy(),
                    check_input=False,
                    max_iter=SWEEPS,
                )[1]
            except ConvergenceWarning as error:
                raise RefusedError(
                    f"sparse-units: target unit {j} did not settle in {SWEEPS} sweeps at penalties down to "
                    f"{float(penalties[-1]):.3g}: units are collinear. Give a stronger penalty (--set penalty=0.1)."
                ) from error
    return torch.from_numpy(out).permute(2, 1, 0).contiguous()
