"""Exact retrieval by cosine over a gallery that is read block by block, and what it is worth.

Scores within 2^-20 of each other, that is by rounding, are a tie, and ties go to the earlier row: duplicates in a
gallery cost nobody a rank by chance, and results do not depend on the block size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import SutureError

__all__ = ["METRICS", "Ranking", "Relevant", "Search", "counted", "overlap", "rank_metrics", "search"]

METRICS = ("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr", "overlap@10")
TIE = 2.0**-20
GRID = 1 / TIE
QUERIES = 1024
EXCLUDED = -4  # below every score
NOTHING = -(1 << 63)  # the key of no row
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
    """``top`` ``(m, k)``: the gallery rows found, best first, and their ``score`` ``(m, k)``.

    ``rank`` ``(r,)`` is that of each right answer, from 1. ``top`` has fewer columns where the gallery has fewer rows;
    -1 stands for a row that was excluded and not replaced.
    """

    top: Tensor
    score: Tensor
    rank: Tensor | None


class Ranking:
    """The rows of a gallery that come first for each of ``queries`` queries, from scores that arrive in blocks.

    ``limits`` ``(r,)`` are the scores of the right answers, which are ``row`` ``(r,)`` of ``query`` ``(r,)``, sorted
    by query. Rankings of the same queries over disjoint rows of one gallery add up (``+``): scores must lie within
    +-3, and be of one kind.
    """

    def __init__(
        self,
        queries: int,
        k: int,
        *,
        query: Tensor | None = None,
        row: Tensor | None = None,
        limits: Tensor | None = None,
        exclude: Tensor | None = None,
    ) -> None:
        self._k = k
        self._keys = torch.full((queries, k), NOTHING, dtype=torch.int64)
        self._rows = 0
        self._query, self._row, self._limits, self._exclude = query, row, limits, exclude
        self._above = None if query is None else torch.zeros(len(query), dtype=torch.int64)

    def add(self, scores: Tensor, rows: Tensor, first: int = 0) -> None:
        """Take in ``scores`` ``(some, n)`` of the queries from ``first`` on with the gallery's ``rows`` ``(n,)``.

        ``rows`` ascend. ``scores`` are overwritten. Every query must be given every row.
        """
        if not len(rows) or not len(scores):
            self._rows += len(rows) * (first == 0)
            return
        if self._above is not None:
            self._count_above(scores, rows, first)
        scores.mul_(GRID).round_()
        if self._exclude is not None:
            own = self._exclude[first : first + len(scores)]
            at = torch.searchsorted(rows, own).clamp(max=len(rows) - 1)
            inside = (rows[at] == own).nonzero()[:, 0]
            scores[inside, at[inside]] = EXCLUDED * GRID
        if first == 0:
            self._rows += len(rows)
        mine = self._keys[first : first + len(scores)]
        # Deep in a gallery few rows of a block still count: a look for them is cheaper than many of the block's best.
        last = (mine[:, -1:] + (1 << 40) - 1) >> 40
        wanted = min(self._k, int(counted(scores >= last).max()))
        if wanted:
            keys = torch.cat([mine, _best(scores, rows, wanted)], dim=1)
            self._keys[first : first + len(scores)] = keys.topk(self._k, dim=1).values

    def __add__(self, other: Ranking) -> Ranking:
        both = Ranking(len(self._keys), self._k, query=self._query, row=self._row, limits=self._limits)
        both._exclude = self._exclude
        both._rows = self._rows + other._rows
        both._keys = torch.cat([self._keys, other._keys], dim=1).topk(self._k, dim=1).values
        if self._above is not None and other._above is not None:
            both._above = self._above + other._above
        return both

    def result(self) -> Search:
        """What was found. Raises `SutureError` if no row was ever added."""
        if not self._rows:
            raise SutureError("expected a gallery of at least one row, got none.")
        keys = self._keys[:, : min(self._k, self._rows)]
        score = (keys + (1 << 40) - 1) >> 40
        top = ((score << 40) - keys).masked_fill_((score == EXCLUDED * GRID) | (keys == NOTHING), -1)
        return Search(top, (score / GRID).float(), None if self._above is None else self._above + 1)

    def _count_above(self, scores: Tensor, rows: Tensor, first: int) -> None:
        """Count how many of these rows come before each right answer of these queries."""
        assert self._query is not None
        assert self._row is not None
        assert self._limits is not None
        assert self._above is not None
        lo, hi = torch.searchsorted(self._query, torch.tensor([first, first + len(scores)])).tolist()
        for a in range(lo, hi, QUERIES):
            part = slice(a, min(a + QUERIES, hi))
            query = self._query[part] - first
            one_each = len(query) == len(scores) and torch.equal(query, torch.arange(len(query)))
            mine = scores if one_each else scores[query]
            limit, own = self._limits[part], self._row[part]
            above = counted(mine > limit[:, None] + TIE)
            tied = counted(mine >= limit[:, None] - TIE) - above
            before = torch.searchsorted(rows, own)
            tied -= (rows[before.clamp(max=len(rows) - 1)] == own).long()  # a right answer ties with itself
            for i in (tied > 0).nonzero()[:, 0].tolist():
                above[i] += ((mine[i, : int(before[i])] - limit[i]).abs() <= TIE).sum()
            self._above[part] += above


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
    ranking = Ranking(len(q), k, exclude=exclude)
    if relevant is not None:
        limits = torch.linalg.vecdot(q[relevant.query], normalize(relevant.vectors.float(), dim=1))
        ranking = Ranking(len(q), k, query=relevant.query, row=relevant.row, limits=limits, exclude=exclude)
    start = 0
    for block in torch.split(gallery, 8192) if isinstance(gallery, Tensor) else gallery:
        g = normalize(block.float(), dim=1)
        rows = torch.arange(start, start + len(g))
        for first in range(0, max(len(q), 1), QUERIES):
            ranking.add(q[first : first + QUERIES] @ g.T, rows, first)
        start += len(g)
    return ranking.result()


def counted(marks: Tensor) -> Tensor:
    """How many of each row of bools ``(m, n)`` are true; a sum first makes integers of them, for ten times the time."""
    return torch.tensor([int(np.count_nonzero(row)) for row in marks.numpy()], dtype=torch.int64)


def _best(scores: Tensor, rows: Tensor, k: int) -> Tensor:
    """The best k and a few of each row of a block, each as one integer: by score first, then by row (below 2^40)."""
    value, index = scores.topk(min(k + SPARE, scores.shape[1]), dim=1)
    keys = (value.long() << 40) - rows[index]
    if k + SPARE < scores.shape[1]:
        # Where the tie at the edge goes beyond the spare, topk has chosen among equals as it liked.
        for some in torch.split((value[:, k - 1] == value[:, -1]).nonzero()[:, 0], 64):
            keys[some] = ((scores[some].long() << 40) - rows).topk(k + SPARE, dim=1).values
    return keys


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
