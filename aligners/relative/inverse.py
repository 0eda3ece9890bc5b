"""Inverse relative projection: into similarities to anchors, and out again in the other space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..aligner import Aligner
from ..alignment import Alignment
from ..errors import RefusedError, UsageError
from ..linear.checks import check_number, check_rank, check_variance
from ..maps import Affine
from ..moments import Block
from ..survey import Survey

__all__ = ["InverseRelative"]

MOST = 1000
MAX_CONDITION = 1e7


@dataclass(frozen=True)
class InverseRelative(Aligner):
    """``y = mean_y + c (x - mean_x) S_X' (S_Y')^+``: similarities to the anchors of X, solved for Y's coordinates.

    S_X, S_Y ``(k, p)``, ``(k, q)``: the centred anchor rows at unit length; ``(S_Y')^+ = (S_Y S_Y' + e I)^-1 S_Y`` with
    e = ``eps`` times the mean squared singular value of S_Y; c: the anchors' mean length in Y by that in X. Exact (eps
    0) where the spaces are related by a rotation, a scale and a translation and the anchors span. The published version
    also normalises the rows that it maps and leaves their length to the decoder; here they keep it, which makes the
    whole an affine map through the anchors. An e of 1e-4, as in an implementation at hand, blows up what two encoders
    do not share: 2,000 pairs of minilm-l6 -> mpnet-base gave nDCG@10 .134 with it and .186 with e = 1 (1,900 anchors).

    Anchors: farthest-point sampling by ``1 - |cos|`` on the sampled source rows, until the farthest is nearer than
    ``prune`` or there are ``anchors`` of them (left open: at most 1,000; as many as dims is the worst number); the mean
    of the maps from ``starts`` random first anchors. Condition numbers of S_Y in the provenance.
    """

    name: ClassVar[str] = "inverse-relative"
    summary: ClassVar[str] = "affine map through similarities to anchors and back out in the other space"
    paper: ClassVar[str] = "Maiorca et al. 2024, inverse relative projection (arXiv 2406.15057)"
    affine: ClassVar[bool] = True
    blocks: ClassVar[frozenset[Block]] = frozenset(("x", "y"))

    anchors: int | None = None
    prune: float = 0.0
    eps: float = 0.5
    starts: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        check_rank("inverse-relative: anchors", self.anchors)
        check_rank("inverse-relative: starts", self.starts)
        check_number("inverse-relative: prune", self.prune, 0, 1)
        check_number("inverse-relative: eps", self.eps, 0)

    def align(self, survey: Survey) -> Alignment:
        """The mean of the maps of all starts."""
        moments, n = survey.moments, len(survey.sample)
        check_variance(self.name, moments)
        most = min(MOST, n) if self.anchors is None else self.anchors
        if most > n:
            raise UsageError(f"inverse-relative: expected at most the {n} sampled pairs as anchors, got {most}.")
        x, y = survey.sample.x.double() - moments.mean_x, survey.sample.y.double() - moments.mean_y
        first = torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))[: self.starts].tolist()
        weights, counts, conditions = [], [], []
        for start in first:
            chosen = pruned_points(normalize(x, dim=1), most, start, self.prune)
            weight, condition = self._through(x[chosen], y[chosen])
            weights.append(weight)
            counts.append(len(chosen))
            conditions.append(condition)
        mapping = Affine.between(moments.mean_x, torch.stack(weights).mean(0), moments.mean_y)
        return Alignment.one_sided(mapping).with_provenance(anchors=counts, condition=conditions)

    def _through(self, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        """The weight through these anchors, and the condition number of their targets."""
        lengths = torch.linalg.vector_norm(x, dim=1).mean(), torch.linalg.vector_norm(y, dim=1).mean()
        u, s, vt = torch.linalg.svd(normalize(y, dim=1), full_matrices=False)
        condition = float((s[0] / s[-1].clamp(min=torch.finfo(s.dtype).tiny)).clamp(max=1e300))
        if self.eps == 0 and not condition < MAX_CONDITION:
            raise RefusedError(
                f"inverse-relative: expected anchors that are not collinear in the target, got condition number "
                f"{condition:.1e}; ask for fewer anchors, prune more, or give an eps above 0."
            )
        solved = (u * (s / (s.square() + self.eps * s.square().mean()))) @ vt
        return lengths[1] / lengths[0] * normalize(x, dim=1).T @ solved, condition


def pruned_points(rows: Tensor, most: int, first: int, prune: float) -> Tensor:
    """Rows of unit length, each the farthest by ``1 - |cos|`` from those before, until that is less than ``prune``."""
    chosen = [first]
    away = 1 - (rows @ rows[first]).abs()
    while len(chosen) < most:
        away[chosen[-1]] = -1  # never twice
        farthest = int(away.argmax())
        if away[farthest] < prune:
            break
        chosen.append(farthest)
        away = torch.minimum(away, 1 - (rows @ rows[farthest]).abs())
    return torch.tensor(chosen)
