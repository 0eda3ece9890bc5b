"""Kernel regression on landmarks, on top of an affine map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from ..aligner import Aligner, LinearAligner
from ..alignment import Alignment
from ..errors import UsageError
from ..linear.checks import check_choice, check_number, check_rank, check_variance
from ..linear.procrustes import Procrustes
from ..linear.ridge import Ridge
from ..linear.rotation_ridge import RotationRidge
from ..moments import descending_eigh
from ..moments_builder import MomentsBuilder
from ..survey import Survey
from .kinds import Landmark, gaussian, squared_distances

__all__ = ["LandmarkKernel"]

BaseName = Literal["procrustes", "rotation-ridge", "ridge"]
BASES: dict[BaseName, LinearAligner] = {
    "procrustes": Procrustes(scale=True),
    "rotation-ridge": RotationRidge(strength=1.0, scale=True),
    "ridge": Ridge(),
}
MOST = 512


@dataclass(frozen=True)
class LandmarkKernel(Aligner):
    """``f(x) = x W + b + k(x) C``: an affine map and Gaussian bumps ``k_j(x) = exp(-g ||x - l_j||^2)`` at landmarks.

    C by ridge (GCV) of the residuals ``y - x W - b`` on the Nystrom features ``k(x) K^-1/2``, K the landmarks' own
    kernel matrix: kernel ridge regression restricted to the landmarks, in closed form from the moments of one more
    pass. ``g = 1 / (width^2 median ||l_i - l_j||^2)``: ``width`` above 1 makes bumps wider.
    ``alpha``: the penalty on C, as in `Ridge`. Landmarks are sampled source rows: ``landmarks`` of them, or 512
    and at most a quarter of the sample. ``base``: the affine map ("procrustes" with a scale, "rotation-ridge" of
    strength 1 or "ridge"); left open, the one with the best kept@3 out of fold, landmarks and all.
    """

    name: ClassVar[str] = "landmark"
    summary: ClassVar[str] = "an affine map and kernel features at landmarks, in closed form"
    paper: ClassVar[str] = "Williams & Seeger 2001, Using the Nystrom method to speed up kernel machines"

    base: BaseName | None = None
    landmarks: int | None = None
    width: float = 1.0
    alpha: float | None = None

    def __post_init__(self) -> None:
        if self.base is not None:
            check_choice("landmark: base", self.base, tuple(BASES))
        check_rank("landmark: landmarks", self.landmarks)
        check_number("landmark: width", self.width, 0, above=True)
        check_number("landmark: alpha", self.alpha, 0)

    def variants(self, survey: Survey) -> Sequence[Self]:
        """One aligner for each base."""
        if self.base is not None:
            return (self,)
        return tuple(replace(self, base=base) for base in BASES)

    def align(self, survey: Survey) -> Alignment:
        """The base by the moments, the features by one more pass."""
        moments = survey.moments
        check_variance(self.name, moments)
        affine = BASES[self.base or "ridge"].solve(moments)
        points, gamma = self._landmarks(survey)
        values, vectors = descending_eigh(gaussian(points, points, gamma), torch.float64)
        useful = values > 1e-8 * values[0]  # what is below is rounding, and would be blown up by its square root
        root = vectors[:, useful] / values[useful].sqrt()
        builder = MomentsBuilder(("xx", "xy", "y"))
        for x, y, _, weights in survey.stream.blocks():
            rows = x.double()
            features = gaussian(rows - moments.mean_x, points, gamma) @ root
            builder.add(features, y - affine.forward(rows), weights)
        bumps = Ridge(alpha=self.alpha).align_moments(builder.moments())
        more = bumps.translate().tensors()
        mapping = Landmark(
            weight=affine.weight.to(moments.dtype),
            bias=(affine.bias + more["bias"]).to(moments.dtype),
            centre=moments.mean_x.to(moments.dtype),
            landmarks=points.to(moments.dtype),
            outer=(root @ more["weight"]).to(moments.dtype),
            gamma=gamma,
        )
        facts = {
            "landmarks": len(points),
            "features": int(useful.sum()),
            "gamma": gamma,
            "bumps": dict(bumps.provenance),
        }
        return Alignment.one_sided(mapping).with_provenance(**facts)

    def _landmarks(self, survey: Survey) -> tuple[Tensor, float]:
        """The first rows of the sample, which is sorted by dice, centred; and how narrow the bumps are."""
        n = len(survey.sample)
        count = max(1, min(MOST, n // 4)) if self.landmarks is None else self.landmarks
        if count > n:
            raise UsageError(
                f"landmark: expected at most the {n} sampled pairs as landmarks, got {count}; ask for less."
            )
        points = survey.sample.x[:count].double() - survey.moments.mean_x
        some = survey.sample.x[: max(count, min(n, 64))].double() - survey.moments.mean_x
        away = squared_distances(some, some)[~torch.eye(len(some), dtype=torch.bool)]
        typical = float(away.median())
        if not typical > 0:
            raise UsageError(
                "landmark: expected rows that differ, got more than half of the sample alike; drop doubles."
            )
        return points, 1 / (self.width**2 * typical)
