"""Cascades: an old index recalls candidates, and real new vectors rank them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...aligners.measures.retrieval import TIE, Search
from .inputs import Inputs

__all__ = ["DEPTHS", "Cascaded", "cascades"]

DEPTHS = (10, 50, 200)
SOME = 64  # queries at a time: 13,000 candidates


@dataclass(frozen=True, eq=False)
class Cascaded:
    """What a cascade finds: ``top`` ``(m, 10)``, ``rank`` ``(r,)`` and how many ``distinct`` rows it embedded."""

    top: Tensor
    score: Tensor
    rank: Tensor | None
    distinct: int


def cascades(inputs: Inputs, recalled: Search) -> dict[int, Cascaded]:
    """One for each depth. A right answer that was not recalled keeps its rank in the recall.

    Needs the new vectors of every candidate, so a full pool.
    """
    assert inputs.pool is not None
    new = normalize(inputs.queries.new, dim=1)
    depths = [k for k in DEPTHS if k <= recalled.top.shape[1]]
    found: dict[int, list[tuple[Tensor, Tensor]]] = {k: [] for k in depths}
    ranks = {k: None if recalled.rank is None else recalled.rank.clone() for k in depths}
    for first in range(0, len(new), SOME):
        top = recalled.top[first : first + SOME]
        rows, at = torch.unique(top.clamp(min=0), return_inverse=True)
        vectors = normalize(inputs.pool.rows(rows), dim=1)
        score = (new[first : first + SOME] @ vectors.T).gather(1, at)
        score = ((score / TIE).round() * TIE).masked_fill(top < 0, -4)
        for k in depths:
            value, place = ordered(score[:, :k], top[:, :k])
            found[k].append((top.gather(1, place)[:, :10], value[:, :10]))
            rank = ranks[k]
            if rank is not None:
                reranked(inputs, rank, top.gather(1, place), first)
    out = {}
    for k, parts in found.items():
        tops, scores = (torch.cat(each) for each in zip(*parts, strict=True))
        distinct = torch.unique(recalled.top[:, :k])
        out[k] = Cascaded(tops, scores, ranks[k], int((distinct >= 0).sum()))
    return out


def ordered(score: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Scores, best first, and their places; ties go to the earlier gallery row."""
    by_row = rows.argsort(dim=1)
    value, order = score.gather(1, by_row).sort(dim=1, descending=True, stable=True)
    return value, by_row.gather(1, order)


def reranked(inputs: Inputs, rank: Tensor, order: Tensor, first: int) -> None:
    """Put the place among ``order`` ``(some, k)`` of every right answer of these queries into ``rank``, in place."""
    assert inputs.query is not None
    assert inputs.row is not None
    lo, hi = torch.searchsorted(inputs.query, torch.tensor([first, first + len(order)])).tolist()
    if lo == hi:
        return
    hit = order[inputs.query[lo:hi] - first] == inputs.row[lo:hi, None]
    rank[lo:hi] = torch.where(hit.any(1), hit.long().argmax(1) + 1, rank[lo:hi])
