"""Orthogonal Procrustes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..aligner import LinearAligner
from ..alignment import Alignment
from ..errors import UsageError
from ..maps import Affine
from ..moments import Block, Moments
from ..moments_builder import MomentsBuilder
from ..polar import polar
from ..survey import Survey
from .checks import check_choice, check_variance
from .derived import least_squares_scale, standardised, uncentred

__all__ = ["Procrustes"]

Robust = Literal["none", "l1", "huber", "tukey", "trimmed"]
ROBUST = ("none", "l1", "huber", "tukey", "trimmed")


@dataclass(frozen=True)
class Procrustes(LinearAligner):
    """``min_R ||(X - mean_x) R s - (Y - mean_y)||_F`` over orthogonal ``R``: ``R = U V'`` of ``Xc'Yc = U S V'``.

    Schonemann (1966), eq. 1.9. For unequal dims R is semi-orthogonal: an isometric embedding where p <= q, which is
    also the least-squares optimum; where p > q it maximises ``tr(R'Xc'Yc)`` and ``polish`` goes on to the least-squares
    optimum over the Stiefel manifold. Directions in which the pairs do not correlate at all (fewer pairs than dims) are
    completed to a rotation by the decomposition's own null vectors: an arbitrary choice, but always the same.

    ``centre``: subtract both means (a rotation cannot move a mean). ``scale``: s by least squares, ``sum(S) /
    ||Xc||_F^2`` for p <= q, for decoders that feel norms. ``rotation_only``: no reflection, det(R) = +1 (square maps).
    ``standardise``: unit deviation per dimension on both sides first, undone behind the map ("ortho" of Maiorca et al.
    2023). ``robust``: iteratively reweighted rows against wrong pairs, by residual: "l1", "huber", "tukey", or
    "trimmed" (the best 85 %).
    """

    name: ClassVar[str] = "procrustes"
    summary: ClassVar[str] = "rotation (isometric embedding for unequal dims) that brings the pairs closest"
    paper: ClassVar[str] = "Schonemann 1966, A generalized solution of the orthogonal Procrustes problem"
    rotates: ClassVar[bool] = True

    centre: bool = True
    scale: bool = False
    rotation_only: bool = False
    standardise: bool = False
    polish: bool = False
    robust: Robust = "none"

    @property
    def blocks(self) -> frozenset[Block]:
        """The moments that it needs with these hyper-parameters."""
        about: dict[Block, bool] = {
            "xx": self.polish or self.scale,
            "x": self.standardise,
            "y": self.standardise or self.scale or self.robust != "none",
        }
        return frozenset(("xy", *(name for name, needed in about.items() if needed)))

    def __post_init__(self) -> None:
        check_choice("procrustes: robust", self.robust, ROBUST)
        if self.standardise and not self.centre:
            raise UsageError("procrustes: standardised rows are centred; leave centre on, or standardise off.")
        if self.polish and self.rotation_only:
            raise UsageError("procrustes: polish is for p > q and rotation_only for p = q; choose one of them.")

    @property
    def reads_rows(self) -> bool:
        """A robust fit weighs the rows by their residuals."""
        return self.robust != "none"

    def solve(self, moments: Moments) -> Affine:
        """The closed form."""
        if self.standardise:
            scaled, sd_x, sd_y = standardised(moments)
            inner = replace(self, standardise=False).solve(scaled)
            return Affine.between(moments.mean_x, inner.weight / sd_x[:, None] * sd_y, moments.mean_y)
        if not self.centre:
            moments = uncentred(moments)
        weight = self._rotation(moments)
        if self.polish and moments.source_dim > moments.target_dim:
            weight = polished(weight, moments, scale=self.scale)
        if self.scale:
            check_variance("procrustes with scale", moments)
            weight = weight * least_squares_scale(weight, moments)
        return Affine.between(moments.mean_x, weight, moments.mean_y)

    def facts(self, moments: Moments) -> dict[str, Any]:
        """As the moments about the origin say where nothing is centred; no reflection settles one direction more."""
        found = super().facts(moments if self.centre else uncentred(moments))["rotation"]
        return {"rotation": {**found, "unique": found["rank"] >= found["dims"] - self.rotation_only}}

    def _rotation(self, moments: Moments) -> Tensor:
        if not self.rotation_only:
            return moments.rotation
        u, _, vt = moments.svd_xy
        if len(u) != vt.shape[1]:
            raise UsageError(
                f"procrustes: rotation_only is for equal dims, got {len(u)} and {vt.shape[1]}; leave it off."
            )
        # The reflection that costs least is that of the least correlated direction (Kabsch 1976).
        sign = torch.linalg.det(u @ vt).sign()
        return torch.cat([u[:, :-1], u[:, -1:] * sign], 1) @ vt

    def align(self, survey: Survey) -> Alignment:
        """The closed form, repeated with weights from the residuals where the fit is to be robust."""
        mapping = self.solve(survey.moments)
        facts = self.facts(survey.moments)
        if self.robust == "none":
            return Alignment.one_sided(mapping).with_provenance(**facts)
        change, rounds = torch.inf, 0
        # Residuals that no longer move the rotation by 1e-6 no longer move the weights either.
        while rounds < 30 and change > 1e-6 * float(torch.linalg.norm(mapping.weight)):
            previous, rounds = mapping.weight, rounds + 1
            mapping = self.solve(self._reweighted(survey, mapping))
            change = float(torch.linalg.norm(mapping.weight - previous))
        return Alignment.one_sided(mapping).with_provenance(robust_rounds=rounds, **facts)

    def _reweighted(self, survey: Survey, mapping: Affine) -> Moments:
        """Moments with each row weighted by its residual; the scale of residuals comes from the sample."""
        typical = residuals(mapping, survey.sample.x, survey.sample.y)
        # Pairs that fit but for rounding are all equally right: their residuals must not be told apart.
        rounding = torch.finfo(survey.moments.dtype).eps ** 0.5 * (survey.moments.square_y.sum() / survey.moments.n)
        spread = max(1.4826 * float(typical.median()), float(rounding.sqrt()))
        edge = max(float(typical.quantile(0.85)), spread * 1e-3)
        builder = MomentsBuilder(self.blocks)
        for x, y, _, given in survey.stream.blocks():
            r = residuals(mapping, x, y)
            weights = {
                "l1": lambda r: 1 / r.clamp(min=1e-3 * spread),
                "huber": lambda r: spread / r.clamp(min=spread),
                "tukey": lambda r: (1 - (r / (2 * spread)).square()).clamp(min=0).square(),
                "trimmed": lambda r: (r <= edge).to(r),
            }[self.robust](r)
            builder.add(x, y, weights if given is None else weights * given)
        return builder.moments()


def residuals(mapping: Affine, x: Tensor, y: Tensor) -> Tensor:
    """``||f(x_i) - y_i||`` per row ``(n,)``, float64: large means must not drown small residuals."""
    return torch.linalg.vector_norm(mapping.forward(x.double()) - y, dim=1)


def polished(
    weight: Tensor, moments: Moments, *, scale: bool = False, tolerance: float = 1e-4, rounds: int = 1000
) -> Tensor:
    """The least-squares optimum over ``W'W = I`` (p > q), jointly with s if ``scale``, from ``weight`` ``(p, q)`` on.

    The objective is ``s^2 tr(W'XX W) - 2 s tr(W'XY)``. With L the largest eigenvalue of XX, ``L I - XX`` is positive
    semi-definite, so the trace objective of each step bounds it from above and no step can increase it (majorisation;
    Kiers 1990): W <- polar(XY / s + (L I - XX) W). Steps start from W carried on by momentum (Nesterov 1983), which is
    dropped whenever the objective rises (O'Donoghue & Candes 2015). Ends where the tangent gradient is ``tolerance``
    of XY: at 1e-4 the objective of real embeddings moves in the fifth digit only. Slow: 768 to 384 dims took 617 steps.
    """
    xx, xy = moments.block("xx"), moments.block("xy")
    largest, size = torch.linalg.matrix_norm(xx, 2), torch.linalg.norm(xy)
    ahead, carried, lowest = weight, 0, torch.inf
    for _ in range(rounds):
        target = xy / least_squares_scale(weight, moments) if scale else xy
        previous, weight = weight, polar(target + largest * ahead - xx @ ahead)
        product = xx @ weight
        fit, energy = float((weight * xy).sum()), float((weight * product).sum())
        objective = -(fit**2) / energy if scale else energy - 2 * fit
        if carried and objective > lowest:
            weight, ahead, carried, lowest = previous, previous, 0, torch.inf
            continue
        gradient = weight.T @ (product - target)
        if float(torch.linalg.norm(product - target - weight @ (gradient + gradient.T) / 2)) <= tolerance * size:
            break
        carried, lowest = carried + 1, objective
        ahead = weight + carried / (carried + 3) * (weight - previous)
    return weight
