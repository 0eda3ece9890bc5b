"""One pass over a gallery for many ways of scoring it: what they share is multiplied once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor

from ...aligners.measures.retrieval import TIE, Ranking
from .inputs import Gallery, Inputs, Pool

__all__ = ["Advance", "Block", "Channel", "Segments", "System", "View", "count_above", "scan"]

ENOUGH = 200_000  # gallery rows to choose weights on
CHUNK = 256  # queries at a time: 8 MB a product
Advance = Callable[[int], None]


class Block:
    """Some gallery rows: their numbers ``rows`` ``(n,)``, and by name what can be made of their vectors, once each.

    ``known`` ``(n,)``: positions of those whose new vector is in the pool; views on "new" have only these.
    """

    def __init__(self, rows: Tensor, old: Tensor, pool: Pool | None, views: Mapping[str, View]) -> None:
        self.rows, self.raw = rows, old
        self.known = rows.new_empty(0) if pool is None else (pool.weight[rows] > 0).nonzero()[:, 0]
        self._pool, self._views = pool, views
        self._made: dict[str, Tensor] = {}

    def fetch_new(self) -> Tensor:
        """The pool's vectors ``(len(known), q)``."""
        assert self._pool is not None
        return self._pool.rows(self.rows[self.known])

    def __getitem__(self, view: str) -> Tensor:
        if view not in self._made:
            self._made[view] = self._views[view](self)
        return self._made[view]


View = Callable[[Block], Tensor]


@dataclass(frozen=True, eq=False)
class Channel:
    """Inner products of ``queries`` ``(m, d)`` with one view ``(n, d)`` of the gallery."""

    queries: Tensor
    view: str


@dataclass(frozen=True, eq=False)
class System:
    """One way to score: a sum of channels, each times a number or one number a query ``(m, 1)``.

    ``on_new``: it scores only rows whose new vector is known. Scores must lie within +-3.
    """

    name: str
    terms: tuple[tuple[Channel, float | Tensor], ...]
    on_new: bool = False

    def score(self, products: dict[int, Tensor], first: int, last: int) -> Tensor:
        """The scores ``(last - first, n)`` from the ``products`` of the channels, by their id."""
        total: Tensor | None = None
        for channel, factor in self.terms:
            part = products[id(channel)] * (factor if isinstance(factor, float) else factor[first:last])
            total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def single(self, block: Block, query: Tensor) -> Tensor:
        """The score ``(r,)`` of each row of the block for the query beside it."""
        total = torch.zeros(len(query))
        for channel, factor in self.terms:
            part = torch.linalg.vecdot(channel.queries[query], block[channel.view])
            total += part * (factor if isinstance(factor, float) else factor[query, 0])
        return total


@dataclass(frozen=True, eq=False)
class Segments:
    """``of`` ``(count,)``: the segment, 0 to ``number`` - 1, of each gallery row. Each is ranked by itself.

    Rows beyond them are not ranked.
    """

    of: Tensor
    number: int


def blocks_of(inputs: Inputs, views: Mapping[str, View]) -> Iterator[Block]:
    """The gallery, block by block."""
    start = 0
    for old in inputs.gallery.blocks():
        yield Block(torch.arange(start, start + len(old)), old, inputs.pool, views)
        start += len(old)


def named_rows(gallery: Gallery, rows: Tensor, pool: Pool | None, views: Mapping[str, View]) -> Block:
    """A block of chosen rows."""
    return Block(rows, gallery.rows(rows), pool, views)


def products_of(block: Block, channels: Sequence[Channel], first: int, last: int) -> dict[int, Tensor]:
    """Each channel's products for some queries."""
    return {id(c): c.queries[first:last] @ block[c.view].T for c in channels}


def limits_of(inputs: Inputs, systems: Sequence[System], views: Mapping[str, View]) -> dict[str, Tensor]:
    """The scores ``(r,)`` of the right answers, by system."""
    assert inputs.query is not None
    assert inputs.row is not None
    parts: dict[str, list[Tensor]] = {s.name: [] for s in systems}
    for query, row in zip(torch.split(inputs.query, 4096), torch.split(inputs.row, 4096), strict=True):
        block = named_rows(inputs.gallery, row, inputs.pool, views)
        for system in systems:
            parts[system.name].append(system.single(block, query))
    return {name: torch.cat(values) for name, values in parts.items()}


def scan(
    inputs: Inputs,
    views: Mapping[str, View],
    jobs: Sequence[tuple[System, int, Segments | None]],
    advance: Advance,
) -> list[list[Ranking]]:
    """Rank the whole gallery by each job: a system, how deep, and by which segments. One ranking a segment.

    Where there are right answers, their ranks are counted too, for systems that know all rows.
    """
    m = len(inputs.queries.new)
    systems = list({system.name: system for system, _, _ in jobs}.values())
    labelled = [] if inputs.query is None else [s for s in systems if not s.on_new or inputs.full_pool]
    limits = limits_of(inputs, labelled, views) if labelled else {}

    def ranking(system: System, depth: int) -> Ranking:
        if system.name not in limits:
            return Ranking(m, depth, exclude=inputs.queries.exclude)
        return Ranking(
            m,
            depth,
            query=inputs.query,
            row=inputs.row,
            limits=limits[system.name],
            exclude=inputs.queries.exclude,
        )

    out = [
        [ranking(s, depth) for _ in range(1 if segments is None else segments.number)] for s, depth, segments in jobs
    ]
    channels = list({id(c): c for s in systems for c, _ in s.terms}.values())
    for block in blocks_of(inputs, views):
        places: dict[int, list[Tensor]] = {}
        for first in range(0, m, CHUNK):
            last = min(first + CHUNK, m)
            products = products_of(block, channels, first, last)
            for (system, _, segments), rankings in zip(jobs, out, strict=True):
                rows = block.rows[block.known] if system.on_new else block.rows
                scores = system.score(products, first, last)
                if segments is None:
                    rankings[0].add(scores, rows, first)
                    continue
                key = id(segments) * 2 + system.on_new
                if key not in places:
                    places[key] = [(segments.of[rows] == s).nonzero()[:, 0] for s in range(segments.number)]
                for at, each in zip(places[key], rankings, strict=True):
                    each.add(scores[:, at], rows[at], first)
        advance(len(block.rows))
    return out


def total(rankings: Sequence[Ranking]) -> Ranking:
    """The ranking of all segments together."""
    return reduce(add, rankings)


def count_above(
    inputs: Inputs,
    views: Mapping[str, View],
    families: Mapping[str, Sequence[System]],
    advance: Advance,
) -> dict[str, Tensor]:
    """The rank ``(variants, r)`` of each right answer by each system of each family, ties in its favour.

    It is a rank among at most about 200,000 rows: of a larger gallery only some blocks are read. Factors are positive
    numbers, so a row that beats the right answer in a sum of channels beats it in one of them: only such rows, often
    few, are given to all systems.
    """
    assert inputs.query is not None
    assert inputs.row is not None
    flat = [system for family in families.values() for system in family]
    channels = list({id(c): c for s in flat for c, _ in s.terms}.values())
    factors = torch.zeros(len(channels), len(flat))
    for j, system in enumerate(flat):
        for channel, factor in system.terms:
            factors[channels.index(channel), j] = factor
    alone = {str(i): System(str(i), ((c, 1.0),)) for i, c in enumerate(channels)}
    limits = limits_of(inputs, list(alone.values()), views)
    above = torch.zeros((len(flat), len(inputs.query)), dtype=torch.int64)
    step = max(1, inputs.gallery.count // ENOUGH)
    for i, block in enumerate(blocks_of(inputs, views)):
        advance(len(block.rows))
        for first in range(0, len(inputs.queries.new), CHUNK) if i % step == 0 else ():
            last = min(first + CHUNK, len(inputs.queries.new))
            lo, hi = torch.searchsorted(inputs.query, torch.tensor([first, last])).tolist()
            products = list(products_of(block, channels, first, last).values())
            for a in range(lo, hi, CHUNK):
                part = slice(a, min(a + CHUNK, hi))
                query = inputs.query[part] - first
                ahead = [p[query].sub_(limits[str(c)][part, None]) for c, p in enumerate(products)]
                answer, row = reduce(torch.logical_or, [each > 0 for each in ahead]).nonzero(as_tuple=True)
                leads = torch.stack([each[answer, row] for each in ahead], dim=1)
                for j in range(len(flat)):
                    won = answer[leads @ factors[:, j] > TIE]
                    above[j, part] += torch.bincount(won, minlength=len(query))
    sizes = [len(family) for family in families.values()]
    return dict(zip(families, torch.split(above + 1, sizes), strict=True))
