"""The product of invariances: several similarities to the same anchors, side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..alignment import Alignment
from ..errors import UsageError
from ..linear.checks import check_choice, check_variance
from ..map import Map
from ..survey import Survey
from .anchors import anchor_pairs
from .map import Product, Relative
from .representation import RelativeRepresentation, ways_back
from .similarity import SIMILARITIES, Similarity

__all__ = ["ProductOfInvariances"]

DISTANCES = ("euclidean", "l1", "linf", "angular", "geodesic")


@dataclass(frozen=True)
class ProductOfInvariances(RelativeRepresentation):
    """Relative representations by several ``similarities`` (with commas) to the same anchors, joined.

    Each block: distances turned to similarities by their sign, every column standardised on the anchors' own relative
    rows, rows to unit length, times the block's weight. ``join``: side by side ("concat") or their mean ("average").
    ``weighting``: "equal", or "cka", the linear CKA of the block between the two spaces on the sampled pairs (blocks on
    which the spaces do not agree count less). The published version learns its branches together with a head; this is
    what of it can be had from frozen dumps (ours). ``similarity`` is not used.
    """

    name: ClassVar[str] = "relative-product"
    summary: ClassVar[str] = "relative representations by several similarities at once"
    paper: ClassVar[str] = "Cannistraci et al. 2024, From bricks to bridges: product of invariances (arXiv 2310.01211)"

    similarities: str = "cosine,euclidean,l1,linf"
    join: Literal["concat", "average"] = "concat"
    weighting: Literal["equal", "cka"] = "equal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("relative-product: join", self.join, ("concat", "average"))
        check_choice("relative-product: weighting", self.weighting, ("equal", "cka"))
        for each in self._parts:
            check_choice("relative-product: similarities", each, SIMILARITIES)
        if len(set(self._parts)) < len(self._parts):
            raise UsageError(f"relative-product: expected similarities that differ, got {self.similarities}.")

    @property
    def _parts(self) -> list[Similarity]:
        return [each.strip() for each in self.similarities.split(",")]  # type: ignore[misc]  # checked above

    def align(self, survey: Survey) -> Alignment:
        """The product of both spaces, and a way back for each."""
        check_variance(self.name, survey.moments)
        some = anchor_pairs(self.name, survey, self.count(survey), self.choice, top=self.top, seed=self.seed)
        sides: dict[str, list[Relative]] = {"source": [], "target": []}
        weights = []
        for similarity in self._parts:
            block = replace(self, similarity=similarity)
            pair = [
                _standardised(block.relative(survey, some, side), rows, similarity in DISTANCES)
                for side, rows in (("source", some.x), ("target", some.y))
            ]
            weight = 1.0
            if self.weighting == "cka":
                weight = linear_cka(
                    pair[0].forward(survey.sample.x.double()), pair[1].forward(survey.sample.y.double())
                )
            weights.append(weight)
            for side, mapping in zip(sides, pair, strict=True):
                sides[side].append(replace(mapping, weight=weight))
        maps: dict[str, Map] = {
            side: Product(tuple(parts), average=self.join == "average") for side, parts in sides.items()
        }
        facts = {"block_weights": weights, **self.facts(some)}
        return Alignment(maps, ways_back(maps, survey)).with_provenance(**facts)


def _standardised(mapping: Relative, anchors: Tensor, distance: bool) -> Relative:
    """The same map with columns of mean 0 and deviation 1 over the anchors, nearer being more, and rows of length 1."""
    own = mapping.forward(anchors)
    deviation = own.std(0, correction=0)
    gain = torch.where(deviation > 0, 1 / deviation.clamp(min=1e-300), 0.0)  # a column that never varies says nothing
    gain = (-gain if distance else gain).to(mapping.gain)
    return replace(mapping, unit=True, shift=own.mean(0).to(mapping.shift), gain=gain)


def linear_cka(a: Tensor, b: Tensor) -> float:
    """``||A'B||^2 / (||A'A|| ||B'B||)`` of centred rows (Kornblith et al. 2019, eq. 6)."""
    a, b = a - a.mean(0), b - b.mean(0)
    norms = torch.linalg.norm(a.T @ a) * torch.linalg.norm(b.T @ b)
    return float((a.T @ b).square().sum() / norms)
