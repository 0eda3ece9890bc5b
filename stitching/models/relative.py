"""Relative decoders: trained once on similarities to anchor items, then served by any encoder of these, with no map."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ...aligners.arrays import Array, as_matrix
from ...aligners.errors import RefusedError, UsageError
from ...aligners.linear.checks import check_choice, check_number, check_rank
from ...aligners.maps import Map
from ...aligners.moments import Moments
from ...aligners.relative.similarity import SIMILARITIES, Similarity, relative_map

__all__ = ["RelativeSpace"]


@dataclass(frozen=True)
class RelativeSpace:
    """The space of similarities to ``anchors`` items (Moschella et al. 2023, arXiv 2209.15430).

        space = RelativeSpace(anchors=300)
        decoder.fit(space.of(old_anchors)(old_rows), labels)            # once
        stitch(new_encoder, space.of(new_anchors), decoder.predict)     # for every encoder to come, nothing fitted

    Anchor i is the same item for every encoder, always in the same order. ``similarity``, ``centre`` and ``unit`` as in
    `suture.aligners.RelativeRepresentation`: centred cosine does not feel rotation, translation and scale.
    """

    anchors: int
    similarity: Similarity = "cosine"
    centre: bool = True
    unit: bool = False
    neighbours: int = 10
    shrinkage: float = 0.1

    def __post_init__(self) -> None:
        check_choice("similarity", self.similarity, SIMILARITIES)
        check_rank("anchors", self.anchors, least=2)
        check_rank("neighbours", self.neighbours)
        check_number("shrinkage", self.shrinkage, 0, 1)
        if self.anchors is None or self.neighbours is None or self.shrinkage is None:
            raise UsageError("anchors, neighbours and shrinkage: expected numbers, got None.")

    def of(self, anchors: Array, rows: Array | None = None) -> Map:
        """The map of an encoder whose vectors of the anchor items are ``anchors`` ``(k, p)``: ``(n, p)`` to ``(n, k)``.

        ``rows`` ``(m, p)``: more rows of that encoder, for the covariance of "whitened" and the graph of "geodesic";
        the anchors themselves where they are left out. Raises `RefusedError` for another number of anchors, or anchors
        that are not finite.
        """
        points = as_matrix(anchors, "anchors").double()
        more = points if rows is None else as_matrix(rows, "rows").double()
        if len(points) != self.anchors or more.shape[1] != points.shape[1]:
            raise RefusedError(
                f"expected {self.anchors} anchors of as many dims as the rows, got {tuple(points.shape)} and rows "
                f"{tuple(more.shape)}; every encoder must embed the very same anchor items, in the same order."
            )
        if not bool(torch.isfinite(points).all() and torch.isfinite(more).all()):
            raise RefusedError("expected finite anchors and rows, got NaN or infinity; embed those items again.")
        made = relative_map(
            self.similarity,
            points,
            centre=self.centre,
            moments=Moments.of(more, more) if self.similarity == "whitened" else None,
            shrinkage=self.shrinkage,
            rows=more,
            neighbours=self.neighbours,
        )
        return replace(made, unit=self.unit).to(torch.float32)
