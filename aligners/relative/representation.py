"""Relative representations: both spaces into similarities to the same anchor items."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from ..aligner import Aligner
from ..alignment import Alignment
from ..errors import UsageError
from ..linear.checks import check_choice, check_number, check_rank, check_variance
from ..linear.ridge import Ridge
from ..map import Map
from ..maps import Affine
from ..moments_builder import MomentsBuilder
from ..pairs import Pairs
from ..survey import Survey
from .anchors import CHOICES, Choice, anchor_pairs
from .map import Quantised, Relative
from .similarity import SIMILARITIES, Similarity, relative_map

__all__ = ["RelativeRepresentation"]

GRAPH_ROWS = 1000
QUANTISED = ("none", "coordinates", "similarities", "smooth")


@dataclass(frozen=True)
class RelativeRepresentation(Aligner):
    """``r(x)_j = sim(x, a_j)`` for anchor items a_1 .. a_k that both spaces have: one shared space of k dims.

    ``similarity``, and what leaves it as it is: "cosine" (rotations, a scale per row), "inner" ``x.a_j / sqrt(p)``
    (rotations), "basis" (least-squares coefficients of x in the anchors: any invertible linear map if they span),
    "euclidean" (rotations, translations), "l1", "linf" (signed permutations, translations), "angular" ``arccos / pi``
    (as cosine), "geodesic" (shortest paths over a kNN graph: isometries), "whitened" ``(x - m)' S^-1 (a_j - m)`` with
    mean and covariance of all pairs (every invertible affine map; ``shrinkage`` above 0 gives that up for stability).
    ``centre``: subtract the anchors' mean first, without which cosine, inner, angular and basis feel translations.

    ``anchors`` is their number (left open: as many as the narrower space has dims), ``choice`` how they are chosen,
    from the source rows: "uniform", "top-k" (of the ``top`` first pairs, which should be the most frequent), "fps"
    (farthest points), "kmeans" or "stratified" (of every group of pairs alike). ``neighbours`` of the geodesic graph.
    ``quantised`` with its ``step``: see `Relative`; at step b a cosine costs log2(2 / b) bits. The smooth steps of the
    authors' code have the one period 1; here the period is the step. (Their clustering of similarity rows sizes its
    table of centres by d where it must be k; it is not taken over.) ``unit``: relative rows of length 1, as in their
    notebooks. The way back into either space is ridge (GCV) from the relative rows of both (ours): relative space ->
    target is a translation to be judged like any other.
    """

    name: ClassVar[str] = "relative"
    summary: ClassVar[str] = "both spaces as similarities to shared anchor items; nine similarities"
    paper: ClassVar[str] = "Moschella et al. 2023, Relative representations (arXiv 2209.15430)"

    anchors: int | None = None
    similarity: Similarity = "cosine"
    choice: Choice = "uniform"
    centre: bool = True
    unit: bool = False
    shrinkage: float = 0.0
    neighbours: int = 10
    quantised: Quantised = "none"
    step: float = 0.1
    top: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(f"{self.name}: similarity", self.similarity, SIMILARITIES)
        check_choice(f"{self.name}: choice", self.choice, CHOICES)
        check_choice(f"{self.name}: quantised", self.quantised, QUANTISED)
        check_number(f"{self.name}: shrinkage", self.shrinkage, 0, 1)
        check_number(f"{self.name}: step", self.step, 0, above=True)
        for what in ("anchors", "neighbours", "top"):
            check_rank(f"{self.name}: {what}", getattr(self, what))
        if self.anchors == 1:
            raise UsageError(f"{self.name}: expected at least 2 anchors, got 1.")

    def align(self, survey: Survey) -> Alignment:
        """The relative maps of both spaces, and a way back for each by one more pass."""
        check_variance(self.name, survey.moments)
        some = anchor_pairs(self.name, survey, self.count(survey), self.choice, top=self.top, seed=self.seed)
        maps: dict[str, Map] = {side: self.relative(survey, some, side) for side in ("source", "target")}
        return Alignment(maps, ways_back(maps, survey)).with_provenance(**self.facts(some))

    def count(self, survey: Survey) -> int:
        """The number of anchors; left open, that of the wider space's dims, and at most half of the sample."""
        if self.anchors is not None:
            return self.anchors
        return max(2, min(survey.source.dim, survey.target.dim, len(survey.sample) // 2))

    def relative(self, survey: Survey, anchors: Pairs, side: str) -> Relative:
        """The map of one ``side``."""
        m = survey.moments if side == "source" else survey.moments.reversed
        rows = survey.sample.x if side == "source" else survey.sample.y
        mapping = relative_map(
            self.similarity,
            anchors.x if side == "source" else anchors.y,
            centre=self.centre,
            moments=m,
            shrinkage=self.shrinkage,
            rows=rows[:GRAPH_ROWS].double(),
            neighbours=self.neighbours,
        )
        return replace(mapping, unit=self.unit, quantised=self.quantised, step=self.step).to(m.dtype)

    def facts(self, anchors: Pairs) -> dict[str, Any]:
        """How many anchors, and how far from collinear they are in each space (condition number, centred)."""
        condition = {}
        for side, rows in (("source", anchors.x), ("target", anchors.y)):
            s = torch.linalg.svdvals(rows - rows.mean(0))
            rank = min(len(rows) - 1, rows.shape[1])
            condition[side] = float((s[0] / s[rank - 1].clamp(min=torch.finfo(s.dtype).tiny)).clamp(max=1e300))
        return {"anchors": len(anchors), "condition": condition}


def ways_back(maps: dict[str, Map], survey: Survey) -> dict[str, Affine]:
    """Ridge (GCV) from the relative rows of both spaces to the rows of each, all pairs, one pass.

    From both: relative rows of one space determine its own rows exactly, by directions that the other does not share.
    """
    builders = {side: MomentsBuilder(("xx", "xy", "y")) for side in maps}
    for x, y, _, weights in survey.stream.blocks():
        for relative in (maps["source"].forward(x.double()), maps["target"].forward(y.double())):
            builders["source"].add(relative, x, weights)
            builders["target"].add(relative, y, weights)
    return {side: Ridge().solve(builder.moments()) for side, builder in builders.items()}
