"""Measuring every strategy: two passes over the gallery, one to rank by all of them, one to fill it up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...aligners.measures.retrieval import Ranking, rank_metrics
from ...aligners.pairs import mix
from .backfill import LEVELS, Filled, filled, orders, segments_of
from .cascade import DEPTHS, Cascaded, cascades
from .choice import Mixing, close, crossed, folds_of, highest, mixing
from .inputs import DEPTH, Inputs
from .scan import Advance, Channel, Segments, System, scan, total
from .systems import Systems
from .truth import Truth
from .tuning import TRAINING_STEPS, Tuned, tune, untaught
from .variants import variants

__all__ = ["BASES", "Measured", "Progress", "measure"]

BASES = ("stay", "bridge", "dual", "dual-tuned", "map", "dual-concat")  # what can recall for a cascade, cheapest first
SIZES = 5
SMALLEST_SIZE = 250  # gallery rows at the small end of the size curve
Progress = Callable[[int, str], AbstractContextManager[Advance]]
Metrics = dict[str, Tensor]


@dataclass(eq=False)
class Measured:
    """Per-query metrics ``(m,)`` of each strategy, of each gallery size and of each backfilled share.

    ``k``: the k of overlap@k, None without it. ``metric``: what is judged by. ``base``: the strategy that recalls and
    that fills what is not yet re-embedded, ``order`` by which rule and with what. ``score`` ``(m, 10)`` of the
    first ten by strategy.
    """

    inputs: Inputs
    mixing: dict[str, Mixing]
    tuned: Tuned | None
    k: int | None
    metrics: dict[str, Metrics] = field(default_factory=dict)
    sizes: dict[int, dict[str, Metrics]] = field(default_factory=dict)
    curve: dict[tuple[str, str], dict[float, Metrics]] = field(default_factory=dict)
    score: dict[str, Tensor] = field(default_factory=dict)
    top: dict[str, Tensor] = field(default_factory=dict)
    distinct: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    base: str = ""
    order: tuple[str, str] = ("", "")
    truth: Truth | None = None

    @property
    def metric(self) -> str:
        """What is judged by."""
        return "ndcg@10" if self.inputs.query is not None else f"overlap@{self.k}"

    def judged(self, name: str) -> Tensor:
        """That metric ``(m,)`` of a strategy."""
        return self.metrics[name][self.metric]

    def of(self, top: Tensor, rank: Tensor | None, truth: Truth | None) -> Metrics:
        """All metrics per query of what was found."""
        out: Metrics = {}
        if rank is not None and self.inputs.query is not None:
            out |= rank_metrics(rank, self.inputs.query, len(self.inputs.queries.new))
        if truth is not None:
            out[f"overlap@{truth.k}"] = truth.overlap(top)
        return out


def measure(
    systems: Systems,
    *,
    traffic: Tensor | None,
    smaller: bool = True,
    like: Measured | None = None,
    seed: int,
    progress: Progress,
) -> Measured:
    """Measure all that the inputs allow. Memory is a few blocks and, for each query, the best 200 rows a strategy.

    ``smaller``: measure cut and quantised rows too. ``like``: what was chosen there (weights, what recalls, the order
    to fill up in) is kept, as it would serve other queries.
    """
    jobs: list[tuple[System, int, Segments | None]]
    inputs = systems.inputs
    count = inputs.gallery.count
    pool = inputs.pool
    lacking = untaught(systems, seed)
    if like is None:
        with progress(count if inputs.query is not None else 0, "choosing weights") as advance:
            chosen = mixing(systems, seed=seed, advance=advance)
        with progress(0 if lacking else TRAINING_STEPS, "training on labels") as advance:
            tuned = None if lacking else tune(systems, seed=seed, advance=advance)
    else:
        chosen = {name: Mixing(m.served, m.served, m.chosen) for name, m in like.mixing.items()}
        tuned = like.tuned if systems.both is None or like.tuned is None else like.tuned.serving(systems.both)
    out = Measured(inputs, chosen, tuned, None if pool is None else pool.neighbours, missing=dict(systems.missing))
    made = systems.simple() | {name: way(chosen[name].crossed) for name, way in systems.duals().items()}
    made = {name: System(name, each.terms) for name, each in made.items()}
    if tuned is None:
        out.missing["dual-tuned"] = lacking or "was not trained"
    else:
        made["dual-tuned"] = System("dual-tuned", ((Channel(tuned.crossed, "old"), 1.0),))
    made |= variants(systems) if smaller else {}
    oracle = systems.oracle()
    if pool is not None and (out.k is not None or pool.full):
        made["re-embed"] = oracle
    size = size_segments(count, seed)
    with progress(count, "ranking") as advance:
        # Of a part of the gallery a thin pool knows nothing: without labels there is no curve.
        whole = (*BASES, "re-embed") if inputs.full_pool else BASES if inputs.query is not None else ()
        curved = [name for name in made if name in whole] if size.number else []
        depths = {name: DEPTH if name in (*BASES, "re-embed") else max(10, out.k or 10) for name in made}
        jobs = [(system, depths[name], None) for name, system in made.items()]
        jobs += [(made[name], 10, size) for name in curved]
        # Thresholds are put to what one weight serves, which is ranked apart where metrics are of cross-fitted ones.
        served = {name: way(chosen[name].served) for name, way in systems.duals().items()}
        apart = [name for name in served if isinstance(chosen[name].crossed, Tensor)]
        jobs += [(served[name], 10, None) for name in apart]
        rankings = iter(scan(inputs, systems.views, jobs, advance))
    wholes = {name: next(rankings)[0].result() for name in made}
    sized = {name: next(rankings) for name in curved}
    scores = {name: next(rankings)[0].result().score for name in apart}
    truth = Truth.of(wholes["re-embed"], pool, out.k) if pool is not None and out.k is not None else None
    out.truth = truth
    for name, found in wholes.items():
        if name == "re-embed" and not inputs.full_pool:
            continue
        out.metrics[name] = out.of(found.top, found.rank, truth)
        out.top[name], out.score[name] = found.top[:, :10], found.score[:, :10]
    for name, system in served.items():
        out.score[name] = scores.get(name, out.score[name]) * systems.scale(system)
    bases = [name for name in BASES if name in out.metrics]
    # The first of those that are close to the best is the cheapest: a tie buys no new index.
    out.base = bases[int(close(torch.stack([out.judged(name) for name in bases]))[0])] if like is None else like.base
    size_curve(out, sized, size)
    if inputs.full_pool:
        for depth, cascaded in cascades(inputs, wholes[out.base]).items():
            add(out, f"cascade@{depth}", cascaded, truth)
        with progress(2 * count, "filling up") as advance:
            backfills(systems, out, made, truth, traffic, None if like is None else like.order, seed, advance)
    else:
        reason = systems.missing["re-embed"]
        out.missing |= dict.fromkeys(("cascade", "backfill"), reason)
        if truth is not None:
            pooled_cascades(out, wholes[out.base].top, truth)
            for depth in DEPTHS:
                if depth < truth.k:
                    out.missing[f"cascade@{depth}"] = f"overlap@{truth.k}, all that this pool can tell, needs more rows"
    if "cascade" not in out.missing or truth is not None:
        for depth in DEPTHS:
            if depth > count:
                out.missing[f"cascade@{depth}"] = f"needs a gallery of at least {depth} rows, this has {count}"
    return out


def add(out: Measured, name: str, found: Cascaded, truth: Truth | None) -> None:
    """Take in what a cascade found."""
    out.metrics[name] = out.of(found.top, found.rank, truth)
    out.distinct[name], out.top[name], out.score[name] = found.distinct, found.top, found.score


def pooled_cascades(out: Measured, recalled: Tensor, truth: Truth) -> None:
    """Cascades from a thin pool: a true neighbour that is recalled is found, its new vector ranks it first."""
    for depth in DEPTHS:
        if truth.k <= depth <= recalled.shape[1]:
            wide = Truth(truth.rows, truth.share, depth)
            out.metrics[f"cascade@{depth}"] = {f"overlap@{truth.k}": wide.overlap(recalled)}
            out.distinct[f"cascade@{depth}"] = int((torch.unique(recalled[:, :depth]) >= 0).sum())


def size_segments(count: int, seed: int) -> Segments:
    """Rows drawn for galleries of 1/16, 1/8, ... 1/2: each row's segment is the smallest that has it, if one has."""
    levels = [count >> j for j in range(SIZES - 1, -1, -1) if count >> j >= SMALLEST_SIZE] or [count]
    place = torch.empty(count, dtype=torch.int64)
    place[mix(torch.arange(count), seed + 11).argsort()] = torch.arange(count)
    return Segments(torch.searchsorted(torch.tensor(levels[:-1]), place, right=True), len(levels) - 1)


def size_curve(out: Measured, ranked: dict[str, list[Ranking]], size: Segments) -> None:
    """Metrics at each size, which is known of all rows; a right answer not drawn is ranked among those that were."""
    for level in range(1, size.number + 1) if ranked else ():
        rows = int((size.of < level).sum())
        found = {name: total(parts[:level]).result() for name, parts in ranked.items()}
        truth = Truth.of(found["re-embed"], out.inputs.pool, 10) if out.inputs.full_pool and out.inputs.pool else None
        out.sizes[rows] = {name: out.of(each.top, each.rank, truth) for name, each in found.items()}
    if out.sizes:
        out.sizes[len(size.of)] = {n: {m: out.metrics[n][m] for m in known} for n, known in out.sizes[rows].items()}


def backfills(
    systems: Systems,
    out: Measured,
    made: dict[str, System],
    truth: Truth | None,
    traffic: Tensor | None,
    order: tuple[str, str] | None,
    seed: int,
    advance: Advance,
) -> None:
    """The curve of every order and base, and ``backfill@p`` by those with the largest area, cross-fitted.

    Chosen on the queries that it is measured on, the best of six curves looks half a standard error too good.
    """
    inputs = systems.inputs
    ways = {
        name: segments_of(priority)
        for name, priority in orders(inputs, systems.maps, systems.views, traffic, seed, advance).items()
    }
    bases = [out.base, "expanded"] if out.base != "expanded" else ["expanded"]
    jobs = [(made[name], 10, way) for way in ways.values() for name in (*bases, "re-embed")]
    rankings = iter(scan(inputs, systems.views, jobs, advance))
    points: dict[tuple[str, str], dict[float, Filled]] = {}
    for rule, way in ways.items():
        *olds, new = [next(rankings) for _ in range(len(bases) + 1)]
        for name, old in zip(bases, olds, strict=True):
            points[rule, name] = {p: filled(inputs, way, old, new, i) for i, p in enumerate(LEVELS)}
    for key, levels in points.items():
        out.curve[key] = {p: out.of(each.top, each.rank, truth) for p, each in levels.items()}
    keys = list(out.curve)
    areas = torch.stack([area(out, key) for key in keys])
    if order is None:
        out.order, chosen = keys[highest(areas)], crossed(areas, folds_of(inputs.queries, seed), highest)
    else:
        out.order, chosen = order, torch.full((areas.shape[1],), keys.index(order))
    own = torch.arange(areas.shape[1])
    for p in (0.1, 0.25, 0.5):
        name = f"backfill@{p:.0%}".rstrip("%")
        curves = [out.curve[key][p] for key in keys]
        out.metrics[name] = {m: torch.stack([c[m] for c in curves])[chosen, own] for m in curves[0]}
        out.top[name] = torch.stack([points[key][p].top for key in keys])[chosen, own]
        out.distinct[name] = round(p * inputs.gallery.count)


def area(out: Measured, key: tuple[str, str]) -> Tensor:
    """The mean ``(m,)`` of the metric over all shares between nothing and all re-embedded, by trapezoids."""
    return torch.trapezoid(
        torch.stack([out.curve[key][p][out.metric] for p in LEVELS]), torch.tensor(LEVELS, dtype=torch.float64), dim=0
    )
