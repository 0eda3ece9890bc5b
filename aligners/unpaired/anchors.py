"""Anchors bootstrapped from a few pairs: the surest matches become anchors, round after round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..aligner import Needs
from ..linear.checks import check_rank
from ..polar import polar
from .base import UnpairedAligner
from .clouds import Clouds, sampled_rows
from .csls import csls, mutual_pairs
from .signatures import signatures

__all__ = ["AnchorBootstrap", "bootstrapped"]


@dataclass(frozen=True)
class AnchorBootstrap(UnpairedAligner):
    """Parallel anchors found from a few known pairs, then the rotation that they give, refined.

    In rounds, from the known pairs on: signatures of all rows relative to the anchors so far; mutual neighbours of
    signatures by CSLS; the ``step`` of them with the largest margin over the second best join the known pairs as the
    anchors of the next round, up to ``anchors``, all of a sample of ``pool`` rows a side. Discrete alternation in place
    of the authors' gradient on free anchors (Cannistraci et al. 2023). It needs rows that are the same items on both
    sides, at least many of them.
    """

    name: ClassVar[str] = "anchor-bootstrap"
    summary: ClassVar[str] = "rotation from anchors that a few known pairs find among the other rows"
    paper: ClassVar[str] = "Cannistraci et al. 2023, Bootstrapping parallel anchors for relative representations"
    needs: ClassVar[Needs] = "few pairs"
    fewest_seeds: ClassVar[int] = 5

    anchors: int = 300
    step: int = 40
    pool: int = 4000

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("anchors", "step", "pool"):
            check_rank(f"anchor-bootstrap: {field}", getattr(self, field))

    def start(self, clouds: Clouds, seed: int) -> Tensor:
        """Procrustes on all anchors."""
        pairs = bootstrapped(clouds, anchors=self.anchors, step=self.step, pool=self.pool, seed=seed)
        cross = clouds.x[pairs[:, 0]].T @ clouds.y[pairs[:, 1]]
        known = clouds.x[clouds.seeds[:, 0]].T @ clouds.y[clouds.seeds[:, 1]]
        return polar(cross + (self.seed_weight - 1) * known)


def bootstrapped(clouds: Clouds, *, anchors: int, step: int, pool: int, seed: int) -> Tensor:
    """Row numbers ``(k, 2)`` of the anchors: the seeds first, then those found among ``pool`` rows a side."""
    here = sampled_rows(len(clouds.x), pool, seed, clouds.seeds[:, 0])
    there = sampled_rows(len(clouds.y), pool, seed + 1, clouds.seeds[:, 1])
    pairs = clouds.seeds
    while len(pairs) < anchors:
        a = signatures(clouds.x[here], clouds.x[pairs[:, 0]])
        b = signatures(clouds.y[there], clouds.y[pairs[:, 1]])
        scores = csls(a, b)
        found = mutual_pairs(scores)
        named = torch.stack([here[found[:, 0]], there[found[:, 1]]], 1)
        free = ~torch.isin(named[:, 0], clouds.seeds[:, 0]) & ~torch.isin(named[:, 1], clouds.seeds[:, 1])
        two = scores[found[:, 0]].topk(2, dim=1).values
        surest = torch.where(free, two[:, 0] - two[:, 1], -torch.inf).argsort(descending=True, stable=True)
        more = min(anchors, len(pairs) + step) - len(clouds.seeds)
        kept = named[surest[: min(more, int(free.sum()))]]
        if len(clouds.seeds) + len(kept) <= len(pairs):
            break
        pairs = torch.cat([clouds.seeds, kept])
    return pairs
