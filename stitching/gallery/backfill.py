"""Re-embedding a part: which rows first, and what a gallery of two kinds of rows finds, rank-merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...aligners.measures.retrieval import Ranking
from ...aligners.pairs import mix
from .inputs import Inputs
from .maps import Maps
from .scan import Advance, Segments, View, blocks_of, total

__all__ = ["LEVELS", "Filled", "filled", "orders", "segments_of"]

LEVELS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
NEIGHBOURS = 16


@dataclass(frozen=True, eq=False)
class Filled:
    """What a partly re-embedded gallery finds: ``top`` ``(m, 10)`` and ``rank`` ``(r,)``."""

    top: Tensor
    rank: Tensor | None


def orders(
    inputs: Inputs, maps: Maps, views: Mapping[str, View], traffic: Tensor | None, seed: int, advance: Advance
) -> dict[str, Tensor]:
    """Priority ``(count,)`` of each gallery row, highest first to be re-embedded, by several rules.

    "residual": the mean error of the 16 nearest pairs, each as a map left it that had not seen the pair; "norm": how
    short the mapped row is before it is made unit (maps shrink what they cannot tell); "random"; and "traffic" and
    "traffic x residual", where it is known how often each row is read.
    """
    anchors = normalize(maps.anchors, dim=1)
    residual, norm = torch.empty(inputs.gallery.count), torch.empty(inputs.gallery.count)
    for block in blocks_of(inputs, views):
        nearest = (block["old"] @ anchors.T).topk(min(NEIGHBOURS, len(anchors)), dim=1).indices
        residual[block.rows] = maps.residual[nearest].mean(1)
        norm[block.rows] = -torch.linalg.vector_norm(block["mapped"], dim=1)
        advance(len(block.rows))
    found = {"residual": residual, "norm": norm, "random": mix(torch.arange(inputs.gallery.count), seed).double()}
    if traffic is not None:
        found |= {"traffic": traffic.double(), "traffic x residual": traffic.double() * residual}
    return found


def segments_of(priority: Tensor) -> Segments:
    """The slices between two `LEVELS`, those of the highest priority first; ties go to the earlier row."""
    place = torch.empty(len(priority), dtype=torch.int64)
    place[priority.argsort(descending=True, stable=True)] = torch.arange(len(priority))
    bounds = torch.tensor([round(level * len(priority)) for level in LEVELS[1:-1]])
    return Segments(torch.searchsorted(bounds, place, right=True), len(LEVELS) - 1)


def filled(inputs: Inputs, segments: Segments, base: Sequence[Ranking], new: Sequence[Ranking], level: int) -> Filled:
    """The gallery at ``LEVELS[level]``: the first ``level`` segments by new vectors, the others as they are.

    Rows are ranked within each kind, and the j-th of n rows of a kind stands at (j - 1/2) / n: scores of two kinds
    cannot be compared, their quantiles can. Re-embedded rows go first on a tie.
    """
    share = [int((segments.of < level).sum()), int((segments.of >= level).sum())]
    parts = [total(new[:level]) if level else None, total(base[level:]) if level < segments.number else None]
    found = [None if part is None else part.result() for part in parts]
    keys, tops = [], []
    for kind, each in enumerate(found):
        if each is not None:
            place = (torch.arange(each.top.shape[1]) + 0.5) / share[kind] + kind * 1e-9
            keys.append(torch.where(each.top >= 0, place, torch.inf))
            tops.append(each.top)
    key, order = torch.cat(keys, 1).sort(dim=1, stable=True)
    top = torch.cat(tops, 1).gather(1, order).masked_fill(key == torch.inf, -1)[:, :10]
    if inputs.row is None:
        return Filled(top, None)
    rank = torch.empty(len(inputs.row), dtype=torch.int64)
    old = segments.of[inputs.row] >= level
    for kind, each in enumerate(found):
        mine = old if kind else ~old
        if each is not None and each.rank is not None:
            rank[mine] = merged(each.rank[mine], share[kind], share[1 - kind], first=kind == 0)
    return Filled(top, rank)


def merged(rank: Tensor, own: int, other: int, *, first: bool) -> Tensor:
    """The rank after the merge of what has ``rank`` among its ``own`` kind: rows of the ``other`` kind come between.

    Those j >= 1 with (2 j - 1) / other < (2 rank - 1) / own; or equal, unless the own kind goes ``first``.
    """
    scaled = (2 * rank - 1) * other
    before = -(-scaled // own) // 2 if first else (scaled // own + 1) // 2
    return rank + before.clamp(max=other)
