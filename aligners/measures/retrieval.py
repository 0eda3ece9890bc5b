"""Exact retrieval by cosine over a gallery that is read block by block, and what it is worth.

Scores within 2^-20 of each other, that is by rounding, are a tie, and ties go to the earlier row: duplicates in a
gallery cost nobody a rank by chance, and results do not depend on the block size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import SutureError

__all__ = ["METRICS", "Relevant", "Search", "overlap", "rank_metrics", "search"]

METRICS = ("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr", "overlap@10")
TIE = 2.0**-20
GRID = 1 / TIE
QUERIES = 2048
SPARE = 16  # ties at the edge of the top k that can still be resolved in favour of the earlier row


@dataclass(frozen=True)
class Relevant:
    """The right answers: ``query`` ``(r,)`` and gallery ``row`` ``(r,)``, one entry a right answer, sorted by query.

    ``vectors`` ``(r, d)`` are the gallery's vectors of those rows.
    """

    query: Tensor
    row: Tensor
    vectors: Tensor

    def __post_init__(self) -> None:
        if not len(self.query) == len(self.row) == len(self.vectors):
            lengths = (len(self.query), len(self.row), len(self.vectors))
            raise SutureError(f"expected a query, a row and a vector for each right answer, got {lengths}.")
        if bool((self.query[1:] < self.query[:-1]).any()):
            raise SutureError("expected right answers sorted by query; sort them first.")

    @classmethod
    def mates(cls, gallery: Tensor) -> Relevant:
        """Row i of the gallery is the one right answer of query i."""
        rows = torch.arange(len(gallery))
        return cls(rows, rows, gallery)


@dataclass(frozen=True)
class Search:
    """``top`` ``(m, k)``: the gallery rows found, best first. ``rank`` ``(r,)``: that of each right answer, from 1.

    ``top`` has fewer columns where the gallery has fewer rows; -1 stands for a row that was excluded and not replaced.
    """

    top: Tensor
    rank: Tensor | None


def search(
    queries: Tensor,
    gallery: Iterable[Tensor] | Tensor,
    *,
    k: int = 10,
    relevant: Relevant | None = None,
    exclude: Tensor | None = None,
) -> Search:
    """Rank the rows of ``gallery`` ``(g, d)``, whole or in blocks, by cosine to each of ``queries`` ``(m, d)``.

    ``exclude`` ``(m,)`` is one gallery row per query that is not to be found (its own), or -1; the ranks of right
    answers count it all the same. Memory is one block of scores; cost m g d multiplications.
    """
    q = normalize(queries.float(), dim=1)
    if isinstance(gallery, Tensor):
        gallery = torch.split(gallery, 8192)
    best: Tensor | None = None
    counts = thresholds = None
    if relevant is not None:
        thresholds = torch.linalg.vecdot(q[relevant.query], normalize(relevant.vectors.float(), dim=1))
        counts = torch.zeros(len(relevant.row), dtype=torch.int64)
    start = 0
    for block in gallery:
        g = normalize(block.float(), dim=1)
        tops = []
        for first in range(0, max(len(q), 1), QUERIES):
            scores = q[first : first + QUERIES] @ g.T
            if relevant is not None and counts is not None and thresholds is not None:
                _count_above(counts, thresholds, relevant, scores, first, start)
            scores.mul_(GRID).round_()
            if exclude is not None:
                own = exclude[first : first + QUERIES] - start
                inside = (own >= 0) & (own < len(g))
                scores[inside.nonzero()[:, 0], own[inside]] = -2 * GRID
            tops.append(_best(scores, start, k))
        keys = torch.cat(tops) if best is None else torch.cat([best, torch.cat(tops)], dim=1)
        best = keys.topk(min(k, keys.shape[1]), dim=1).values
        start += len(g)
    if best is None:
        raise SutureError("expected a gallery of at least one row, got none.")
    score = (best + (1 << 40) - 1) >> 40
    top = ((score << 40) - best).masked_fill_(score == -2 * GRID, -1)
    return Search(top, None if counts is None else counts + 1)


def _best(scores: Tensor, start: int, k: int) -> Tensor:
    """The best k and a few of each row of a block, each as one integer: by score first, then by row (below 2^40)."""
    value, index = scores.topk(min(k + SPARE, scores.shape[1]), dim=1)
    keys = (value.long() << 40) - (index + start)
    if k + SPARE < scores.shape[1]:
        # Where the tie at the edge goes beyond the spare, topk has chosen among equals as it liked.
        for rows in torch.split((value[:, k - 1] == value[:, -1]).nonzero()[:, 0], 64):
            column = torch.arange(start, start + scores.shape[1])
            keys[rows] = ((scores[rows].long() << 40) - column).topk(k + SPARE, dim=1).values
    return keys


def _count_above(
    counts: Tensor, thresholds: Tensor, relevant: Relevant, scores: Tensor, first: int, start: int
) -> None:
    """Add to ``counts`` how many rows of this block come before each right answer of these queries."""
    lo, hi = torch.searchsorted(relevant.query, torch.tensor([first, first + len(scores)])).tolist()
    for a in range(lo, hi, QUERIES):
        part = slice(a, min(a + QUERIES, hi))
        query = relevant.query[part] - first
        one_each = len(query) == len(scores) and torch.equal(query, torch.arange(len(query)))
        rows = scores if one_each else scores[query]
        limit, own = thresholds[part], relevant.row[part] - start
        above = (rows > limit[:, None] + TIE).sum(1)
        tied = (rows >= limit[:, None] - TIE).sum(1) - above
        tied -= ((own >= 0) & (own < rows.shape[1])).long()  # a right answer ties with itself
        for i in (tied > 0).nonzero()[:, 0].tolist():
            before = rows[i, : max(int(own[i]), 0)]
            above[i] += ((before - limit[i]).abs() <= TIE).sum()
        counts[part] += above


def rank_metrics(rank: Tensor, query: Tensor, queries: int) -> dict[str, Tensor]:
    """Per-query metrics ``(queries,)`` from the ``rank`` ``(r,)`` of each right answer of ``query`` ``(r,)``.

    recall@k: share of a query's right answers among its first k; mrr: 1 / rank of the first of them; ndcg@10: binary
    gains, discount 1 / log2(1 + rank), divided by the best that its number of right answers allows (Jarvelin &
    Kekalainen 2002). A query without a right answer has nan.
    """
    rank = rank.double()
    number = torch.zeros(queries, dtype=torch.float64).index_add_(0, query, torch.ones_like(rank))
    number[number == 0] = torch.nan

    def total(values: Tensor) -> Tensor:
        return torch.zeros(queries, dtype=torch.float64).index_add_(0, query, values)

    discount = 1 / torch.log2(torch.arange(10, dtype=torch.float64) + 2)
    ideal = discount.cumsum(0)[number.clamp(max=10).nan_to_num(1.0).long() - 1]
    gain = torch.where(rank <= 10, 1 / torch.log2(1 + rank), 0.0)
    first = torch.full((queries,), torch.inf, dtype=torch.float64).scatter_reduce_(0, query, rank, "amin")
    metrics = {"ndcg@10": total(gain) / ideal}
    metrics |= {f"recall@{k}": total((rank <= k).double()) / number for k in (1, 5, 10)}
    metrics["mrr"] = 1 / first
    return {name: values.masked_fill(number.isnan(), torch.nan) for name, values in metrics.items()}


def overlap(found: Tensor, truth: Tensor) -> Tensor:
    """Share of ``truth`` ``(m, k)`` that is among ``found`` ``(m, k)``, per row: overlap@k."""
    known = truth >= 0
    hits = (found[:, :, None] == truth[:, None, :]).any(1) & known
    return hits.sum(1).double() / known.sum(1)
