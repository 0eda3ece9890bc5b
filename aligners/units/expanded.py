"""The expanded orthogonal form: new vectors turned so that their first dims lie in the old space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..aligner import LinearAligner
from ..alignment import Alignment
from ..linear.checks import check_variance
from ..maps import Affine
from ..moments import Block, Moments

__all__ = ["ExpandOrthogonal"]


@dataclass(frozen=True)
class ExpandOrthogonal(LinearAligner):
    """``z' = (z - mean_z) Q`` with Q orthogonal ``(q, q)``: the first p dims are the old space, all distances stay.

    The source is the new space (q dims), the target the old one (p dims, at most q for anything to be new). The first p
    columns of Q are the Procrustes rotation onto the old rows, the others its complement, in the order of what new rows
    vary along them, so that z' can be cut off anywhere after p. Old rows are centred and padded with zeros. Score new
    queries against an old gallery on the first p dims, new against new on all.
    """

    name: ClassVar[str] = "expand-orthogonal"
    summary: ClassVar[str] = "new space turned, isometric: first dims are the old space, the rest what is new"
    paper: ClassVar[str] = "closed form of OCA (Biondi et al. 2023, orthogonal compatible alignment) on frozen dumps"

    @property
    def blocks(self) -> frozenset[Block]:
        """Of the target its diagonal only."""
        return frozenset(("y", "xx", "xy"))

    def solve(self, moments: Moments) -> Affine:
        """The map onto the old space alone: the first p dims."""
        turned = self.expanded(moments)[:, : moments.target_dim]
        return Affine.between(moments.mean_x, turned, moments.mean_y)

    def expanded(self, moments: Moments) -> torch.Tensor:
        """Q ``(q, max(p, q))``; of a new space narrower than the old one, the rotation alone."""
        check_variance(self.name, moments)
        p, old = moments.target_dim, moments.rotation
        if moments.source_dim <= p:
            return old
        rest = torch.linalg.qr(old, mode="complete")[0][:, p:]
        spread = torch.linalg.eigh(rest.T @ moments.block("xx") @ rest)
        return torch.cat([old, rest @ spread.eigenvectors.flip(1)], 1)

    def align_moments(self, moments: Moments) -> Alignment:
        """The expanded space as the shared one; its way back to the old space cuts off the rest."""
        turn, p = self.expanded(moments), moments.target_dim
        q = turn.shape[1]
        pad = torch.eye(p, q, dtype=turn.dtype)
        zero = torch.zeros(q, dtype=turn.dtype)
        maps = {
            "source": Affine.between(moments.mean_x, turn, zero),
            "target": Affine.between(moments.mean_y, pad, zero),
        }
        return Alignment(maps, {"target": Affine.between(zero, pad.T, moments.mean_y)})
