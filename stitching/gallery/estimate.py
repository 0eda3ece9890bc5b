"""Estimating what each strategy is worth on the user's own gallery, before anything is moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...aligners.aligner import Aligner
from ..evaluate import Track, untracked
from .examples import examples
from .gates import Gate, doubted, judge_gates, require_overlap, require_strategy, too_few
from .inputs import Inputs
from .maps import Maps, fit_maps
from .measure import Measured, Progress, measure
from .sides import require_sides
from .slices import clusters, slices
from .systems import Systems
from .table import LEVEL, Table
from .thresholds import translated
from .verdict import Verdict, verdict

__all__ = ["DEFINITIONS", "Estimate", "estimate"]

DEFINITIONS = {
    "ndcg@10": "binary gains, discount 1/log2(1+rank), over the best possible",
    "recall@k": "share of a query's right rows among its first k",
    "mrr": "1 / rank of the first right row",
    "overlap@k": "share of the k rows that the new model's own queries find among its own vectors of the gallery; from "
    "a pool that is not full, each pooled row stands for one over the chance that it was drawn",
    "retention": "the metric judged by, over that of re-embed",
    "gain": "the metric judged by, over that of stay",
    "update_gain": "share of the gap between stay and re-embed that is closed; only where re-embed is clearly better",
    "negative_flips": "share of queries with a right row among the first ten under stay, and none now; without labels, "
    "share of queries with fewer of the new model's own neighbours than under stay",
    "positive_flips": "the other way round",
    "compatible": "new queries (bridged, or on the mapped gallery) beat old ones on the old gallery (Shen et al. 2020)",
    "interval": "90 % percentile bootstrap over queries (over groups of them where given), 2000 draws, paired",
    "doubt": "share of draws in which the strategy does not beat stay",
    "shrunken": "empirical Bayes: a slice's mean drawn to the overall one by its sampling variance",
}


CIRCULAR = (
    "Without labels a way is judged by how near it comes to the new model: overlap with the new model's own neighbours "
    "cannot tell whether the new model is better. The verdict presupposes that you have decided to move; right answers "
    "(--relevant) tell whether to."
)
FEW = 200_000  # gallery rows of which smaller forms are measured unasked


class Estimate:
    """What was measured: ``result``, plain JSON values, and the ``maps`` and weights it was measured with."""

    def __init__(
        self, inputs: Inputs, maps: Maps, systems: Systems, measured: Measured, result: dict[str, Any]
    ) -> None:
        self.inputs, self.maps, self.systems, self.measured, self.result = inputs, maps, systems, measured, result


def estimate(
    inputs: Inputs,
    *,
    aligners: Sequence[Aligner] | None = None,
    gates: Sequence[Gate] = (),
    gated: str | None = None,
    segments: Mapping[str, list[str]] | None = None,
    traffic: Tensor | None = None,
    smaller: bool | None = None,
    familiar: bool = True,
    query_texts: Sequence[Any] | None = None,
    gallery_texts: Sequence[Any] | None = None,
    itemsize: int = 2,
    price: float | None = None,
    seed: int = 0,
    track: Track[Any] = untracked,
    progress: Progress,
) -> Estimate:
    """Fit the maps, rank the whole gallery by every strategy, and come to a verdict.

    ``gates`` are judged on the strategy ``gated``, by default that of the verdict. ``segments``: columns with one value
    a query. ``traffic`` ``(count,)``: how often each gallery row is read. ``smaller``: measure cut and quantised rows
    too, which more than doubles the products; None: of galleries of up to 200,000 rows. ``itemsize``: bytes a number of
    the index. ``price``: of a thousand embeddings. ``familiar``: refuse rows that do not behave as those of the pairs.
    """
    require_overlap(gates, None if inputs.pool is None else inputs.pool.neighbours)
    if gated is not None:
        require_strategy(gated)
    maps = fit_maps(inputs.pairs, aligners, seed=seed, track=track)
    require_sides(inputs, maps, familiar=familiar)
    systems = Systems(inputs, maps)
    notes = [*inputs.notes, *doubts(maps)]
    if inputs.scope == "held-out pairs" and (traffic is not None or gallery_texts is not None):
        notes.append("Traffic and gallery texts are of your gallery: not used here, where held-out pairs are judged.")
        traffic = None
    if smaller is None:
        smaller = inputs.gallery.count <= FEW
        if not smaller:
            notes.append(f"Cut and quantised rows are measured of galleries of up to {FEW} rows, or by --variants.")
    measured = measure(systems, traffic=traffic, smaller=smaller, seed=seed, progress=progress)
    table = Table(measured, itemsize, seed, price)
    rows = table.rows()
    metric, count = measured.metric, len(inputs.queries.new)
    answered = ~measured.judged(measured.base).isnan()
    known = int(answered.sum())
    groups = groups_of(inputs, answered)
    said = verdict(
        rows,
        metric,
        queries=count,
        answered=known,
        gallery_rows=inputs.gallery.count,
        base=measured.base,
        pairing=maps.pairing["verdict"],
        scope=inputs.scope,
    )
    few = too_few(known if groups is None else groups, grouped=groups is not None)
    doubt = doubted(said.name, gated, scope=inputs.scope, few=few)
    if few is not None:
        notes.append(f"{few[0].upper()}{few[1:]}.")
    if inputs.query is None and inputs.scope == "gallery":
        notes.append(CIRCULAR)
    shown = compared(measured, said)
    facts = maps.alignment.provenance
    result: dict[str, Any] = {
        "queries": count,
        "queries_with_answers": None if inputs.query is None else len(torch.unique(inputs.query)),
        "groups": groups,
        "gallery_rows": inputs.gallery.count,
        "gallery": inputs.gallery.name,
        "pool_rows": None if inputs.pool is None else inputs.pool.size,
        "pairs": facts["rows"],
        "evidence": inputs.evidence,
        "scope": inputs.scope,
        "metric": metric,
        "level": LEVEL,
        "strategies": rows,
        "verdict": said.name,
        "strategy": said.strategy,
        "more_queries": said.more_queries,
        "conclusion": said.sentence,
        "gates": judge_gates(gates, rows, gated or said.strategy, doubt=doubt),
        "recall_by": measured.base,
        "backfill_by": dict(zip(("order", "base"), measured.order, strict=True)) if measured.order[0] else None,
        "mixing": {n: {"a": m.served, "how": m.how} for n, m in measured.mixing.items()},
        "compatible": compatible(rows, metric, inputs.scope),
        "size_curve": table.size_curve(),
        "backfill_curves": table.backfill_curves(),
        "examples": examples(measured, shown, query_texts, gallery_texts),
        "examples_of": shown,
        "slices": worst(measured, shown, segments or {}, seed),
        "thresholds": translated(measured.score, LEVEL, seed),
        "map": {k: facts.get(k) for k in ("method", "params", "rows", "bridge", "audit", "judged_by")},
        "notes": notes,
        "definitions": DEFINITIONS,
        "query_hash": inputs.query_hash(),
        "seed": seed,
    }
    return Estimate(inputs, maps, systems, measured, result)


def doubts(maps: Maps) -> list[str]:
    """What the audit of the pairs has against them."""
    if maps.pairing["verdict"] != "mispaired":
        return []
    share = maps.pairing["suspect_share"]
    return [
        f"{share:.1%} of the pairs look like wrong pairs, so every map is worse than it could be; see `suture fit`."
    ]


def groups_of(inputs: Inputs, answered: Tensor) -> int | None:
    """Of how many groups the ``answered`` ``(m,)`` queries are; None where each stands for itself."""
    groups = inputs.queries.groups
    if groups is None or len(torch.unique(groups)) == len(groups):
        return None
    return len(torch.unique(groups[answered]))


def compatible(rows: Sequence[Mapping[str, Any]], metric: str, scope: str) -> dict[str, Any]:
    """The criterion of backward compatibility for the two ways of using new queries alone: True, False or None.

    Held-out pairs cannot tell: None.
    """
    out: dict[str, Any] = {}
    for row in rows:
        if row["name"] in ("bridge", "map"):
            d = None if scope != "gallery" else (row["difference"] or {}).get(metric)
            out[row["name"]] = None if d is None or d["low"] <= 0 < d["high"] else d["low"] > 0
    return out


def compared(measured: Measured, said: Verdict) -> str:
    """The strategy whose single queries are shown beside staying: the verdict's, or the best that embeds nothing."""
    name = said.strategy if said.strategy in measured.metrics else measured.base
    others = (n for n in ("dual", "map", "bridge") if n in measured.metrics)
    return name if name is not None and name != "stay" else next(others)


def worst(measured: Measured, name: str, segments: Mapping[str, list[str]], seed: int) -> list[dict[str, Any]]:
    """The slices of a strategy against staying."""
    if "stay" not in measured.metrics:
        return []
    queries = measured.inputs.queries
    columns = {**segments, "automatic": clusters(queries.new, seed)}
    gain = measured.judged(name) - measured.judged("stay")
    return [{"strategy": name, **s} for s in slices(gain, columns, queries.groups, level=LEVEL, seed=seed)]
