"""A mixture of local rotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from ..aligner import Aligner
from ..alignment import Alignment
from ..errors import UsageError
from ..linear.checks import check_number, check_rank, check_variance
from ..linear.derived import least_squares_scale
from ..moments import Block, Moments
from ..moments_builder import MomentsBuilder
from ..survey import Survey
from .kinds import Mixture, soft_cells, squared_distances

__all__ = ["Local"]

CELLS = (2, 4, 8)


@dataclass(frozen=True)
class Local(Aligner):
    """``f(x) = sum_k g_k(x) (mean_yk + (x - mean_xk) R_k)``: a rotation a cell, softly joined.

    Cells: k-means of the sampled source rows; gates ``g_k(x) = softmax_k(-||x - c_k||^2 / (softness * gap))``, gap the
    median over rows of how much farther the second nearest centre is than the nearest. Each R_k is the orthogonal
    Procrustes solution of the pairs weighted by g_k, with ``blend`` times the moments of all pairs (at the cell's share
    of the rows) added: 0 is every cell for itself, a large blend the one rotation of all. ``scale``: a least-squares
    scale a cell. ``softness``: how far cells reach into each other. ``cells`` left open: 2, 4 or 8 by kept@3 out of
    fold.
    """

    name: ClassVar[str] = "local"
    summary: ClassVar[str] = "a rotation of its own for every region of the source space, softly joined"
    paper: ClassVar[str] = "weighted orthogonal Procrustes (Schonemann 1966) per k-means cell"

    cells: int | None = None
    softness: float = 0.2
    blend: float = 1.0
    scale: bool = True
    seed: int = 0

    @property
    def blocks(self) -> frozenset[Block]:
        """The moments that it needs with these hyper-parameters."""
        return frozenset(("xx", "xy", "y"))

    def __post_init__(self) -> None:
        check_rank("local: cells", self.cells)
        check_number("local: softness", self.softness, 0, above=True)
        check_number("local: blend", self.blend, 0)

    def variants(self, survey: Survey) -> Sequence[Self]:
        """One aligner for each number of cells, fewest first."""
        if self.cells is not None:
            return (self,)
        return tuple(replace(self, cells=k) for k in CELLS)

    def align(self, survey: Survey) -> Alignment:
        """Cells from the sample, then one pass for the moments of each."""
        total = survey.moments
        check_variance(self.name, total)
        centres, sharpness = self._cells(survey)
        builders = [MomentsBuilder(self.blocks) for _ in centres]
        for x, y, _, given in survey.stream.blocks():
            gates = soft_cells(x.double(), centres, sharpness)
            for gate, builder in zip(gates.T, builders, strict=True):
                builder.add(x, y, gate if given is None else gate * given)
        parts = [builder.moments() for builder in builders]
        weight = torch.stack([self._rotation(part, total) for part in parts])
        bias = torch.stack([p.mean_y - p.mean_x @ w for p, w in zip(parts, weight, strict=True)])
        mapping = Mixture(
            weight=weight.to(total.dtype),
            bias=bias.to(total.dtype),
            centres=centres.to(total.dtype),
            sharpness=sharpness,
        )
        rows = [part.n for part in parts]
        return Alignment.one_sided(mapping).with_provenance(cell_rows=rows, sharpness=sharpness)

    def _rotation(self, part: Moments, total: Moments) -> Tensor:
        share = self.blend * part.n / total.n
        both = replace(
            part,
            xx=part.block("xx") + share * total.block("xx"),
            xy=part.block("xy") + share * total.block("xy"),
        )
        return both.rotation * least_squares_scale(both.rotation, both) if self.scale else both.rotation

    def _cells(self, survey: Survey) -> tuple[Tensor, float]:
        """Centres ``(k, p)`` of k-means on the sample, and the sharpness of the gates."""
        x = survey.sample.x.double()
        k = CELLS[0] if self.cells is None else self.cells
        if 2 * k > len(x):
            raise UsageError(f"local: expected at least two sampled pairs a cell, got {len(x)} for {k}; ask for less.")
        if k == 1:
            return x.mean(0, keepdim=True), 1.0
        means = KMeans(k, n_init=4, random_state=self.seed).fit((x - survey.moments.mean_x).numpy())
        centres = torch.from_numpy(means.cluster_centers_).double() + survey.moments.mean_x
        away = squared_distances(x - survey.moments.mean_x, centres - survey.moments.mean_x)
        nearest = away.topk(2, dim=1, largest=False).values
        gap = float((nearest[:, 1] - nearest[:, 0]).median())
        if not gap > 0:
            raise UsageError(f"local: expected rows in at least {k} places, got fewer; ask for fewer cells.")
        return centres, 1 / (self.softness * gap)
