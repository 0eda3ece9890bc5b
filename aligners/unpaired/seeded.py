"""Seeded alignment: a few known pairs and many rows that share no item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..aligner import Needs
from ..polar import polar
from .base import UnpairedAligner
from .clouds import Clouds

__all__ = ["Seeded"]


@dataclass(frozen=True)
class Seeded(UnpairedAligner):
    """A rotation from a few known pairs ("seeds") and unpaired rows of both spaces.

    1. Signature of a row: its cosines to the seeds of its own side, each standardised over the rows
       (``r_i = z(x_i . s_1), ..., z(x_i . s_k)``). Signatures of both sides can be compared.
    2. Soft pairs: each row with the mean of the ``neighbours`` rows of the other side whose signatures are most
       similar; orthogonal Procrustes on them.
    3. `refine`: ``rounds`` of pulling mapped rows to their nearest targets and solving again, the seeds kept in with
       ``seed_weight`` each, projected to the orthogonal group at the end.
    """

    name: ClassVar[str] = "seeded"
    summary: ClassVar[str] = "rotation from a few known pairs and many rows that share no item"
    paper: ClassVar[str] = (
        "relative representations (Moschella et al. 2023) as the start, refinement after mini-vec2vec (Dar 2025)"
    )
    needs: ClassVar[Needs] = "few pairs"
    fewest_seeds: ClassVar[int] = 5

    def start(self, clouds: Clouds, seed: int) -> Tensor:
        """Procrustes ``(p, q)`` on the soft pairs of the signatures, both directions, and on the seeds."""
        a, b = (signatures(rows, rows[clouds.seeds[:, i]]) for i, rows in enumerate((clouds.x, clouds.y)))
        known = clouds.x[clouds.seeds[:, 0]].T @ clouds.y[clouds.seeds[:, 1]]
        cross = soft_cross(a, b, clouds.x, clouds.y, self.neighbours)
        return polar(cross + soft_cross(b, a, clouds.y, clouds.x, self.neighbours).T + known * self.seed_weight)

    @property
    def advice(self) -> str:
        """What to try when the spaces could not be aligned."""
        return "Check the seed pairs, name more of them, or give more rows of both spaces."


def signatures(rows: Tensor, anchors: Tensor) -> Tensor:
    """Cosines ``(n, s)`` of ``rows`` to ``anchors``, standardised by anchor, then of unit length."""
    cosines = rows @ anchors.T
    spread = cosines.std(0)
    return normalize((cosines - cosines.mean(0)) / torch.where(spread > 0, spread, 1.0), dim=1)


def soft_cross(a: Tensor, b: Tensor, x: Tensor, y: Tensor, k: int) -> Tensor:
    """``sum_i x_i' mean(y of the k signatures b nearest to a_i)`` ``(p, q)``; a block of rows at a time."""
    k = max(1, min(k, len(b) // 100))
    total = x.new_zeros(x.shape[1], y.shape[1])
    for first in range(0, len(a), 2048):
        some = slice(first, first + 2048)
        total += x[some].T @ y[(a[some] @ b.T).topk(k, dim=1, sorted=False).indices].mean(1)
    return total
