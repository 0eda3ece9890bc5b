"""The held-out table of a map: what it scores on rows that it never saw, beside what needs no map at all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .aligner import Aligner
from .choose import NeighbourJudge, cross_fit, shuffled
from .measures.bootstrap import Bootstrap
from .measures.retrieval import Relevant, overlap, rank_metrics, search
from .survey import Survey

__all__ = ["held_out", "learning_curve"]

DEFINITION = (
    "{m} sampled pairs, each mapped by a map fitted without its fold of {folds}. 'metrics': the target's own row as "
    "query against all {m} mapped rows; 'query_side': the mapped row as query against all {m} target rows. ndcg, "
    "recall and mrr: the one right answer is the row's own mate (they flatter: a gallery of the real size is harder). "
    "overlap@10: share of the target's own ten nearest rows, mates left out. 95 % percentile bootstrap over rows."
)


def held_out(aligner: Aligner, survey: Survey) -> dict[str, Any]:
    """The table as plain JSON values: the map, and identity, mean predictor and shuffled pairs as baselines."""
    y, x = survey.sample.y, survey.sample.x
    own = torch.arange(len(y))
    truth = search(y, y, exclude=own).top
    mean = torch.empty_like(y)
    for k, rows in survey.folds():
        mean[rows] = survey.without_fold(k).mean_y.to(y)
    null = Survey.of(shuffled(survey.sample, survey.seed), blocks=aligner.blocks, seed=survey.seed, canaries=False)
    strategies: list[dict[str, Any]] = []
    for name, mapped in (
        ("map", cross_fit(aligner, survey)),
        ("identity", x if x.shape[1] == y.shape[1] else None),
        ("mean", mean),
        ("shuffled", cross_fit(aligner, null)),
    ):
        if mapped is None:
            reason = f"the spaces have {x.shape[1]} and {y.shape[1]} dims"
            strategies.append({"name": name, "metrics": None, "query_side": None, "reason": reason})
            continue
        columns = {f"metrics {k}": v for k, v in _side(y, mapped, truth, own).items()}
        columns |= {f"query_side {k}": v for k, v in _side(mapped, y, truth, own).items()}
        columns["cosine"] = torch.cosine_similarity(mapped.double(), y.double())
        columns["error"] = (mapped.double() - y.double()).square().sum(1)
        columns["spread"] = (mean.double() - y.double()).square().sum(1)
        boot = Bootstrap(columns, survey.sample.keys, seed=survey.seed)
        row: dict[str, Any] = {"name": name, "metrics": {}, "query_side": {}}
        for column in columns:
            side, _, metric = column.partition(" ")
            if metric:
                row[side][metric] = boot.mean(column).as_json()
        row["metrics"]["cosine"] = boot.mean("cosine").as_json()
        error = boot.ratio("error", "spread")
        row["metrics"]["r2"] = {"estimate": 1 - error.estimate, "low": 1 - error.high, "high": 1 - error.low}
        strategies.append(row)
    return {
        "rows": len(y),
        "folds": int(survey.fold.max()) + 1,
        "definition": DEFINITION.format(m=len(y), folds=int(survey.fold.max()) + 1),
        "strategies": strategies,
    }


def _side(queries: Tensor, gallery: Tensor, truth: Tensor, own: Tensor) -> dict[str, Tensor]:
    """Per-query metrics of ``queries`` against ``gallery``, row i of each being the same item."""
    found = search(queries, gallery, exclude=own, relevant=Relevant.mates(gallery))
    assert found.rank is not None  # asked for above
    return {**rank_metrics(found.rank, own, len(queries)), "overlap@10": overlap(found.top, truth)}


def learning_curve(aligner: Aligner, survey: Survey) -> list[dict[str, Any]]:
    """Overlap@10 from a quarter, half and all of the pairs, and what each doubling gained.

    ``[{"method", "pairs", "overlap@10": interval, "gain": interval or None}]``; fewer points where pairs are scarce.
    """
    judge = NeighbourJudge(survey)
    pairs = [sum(p.n for p in survey.parts[:k]) for k in range(1, len(survey.parts) + 1)]
    enough = [k for k in range(1, len(pairs) + 1) if pairs[k - 1] >= 40]
    # All pairs first: that cross-fit may be remembered.
    scores = {str(k): judge.rate(cross_fit(aligner, survey, k))["overlap@10"] for k in reversed(enough)}
    columns = dict(reversed(scores.items()))
    if not columns:
        return []
    boot = Bootstrap(columns, survey.sample.keys, seed=survey.seed)
    curve: list[dict[str, Any]] = []
    before: str | None = None
    for k in columns:
        gain = None if before is None else boot.difference(k, before).as_json()
        score = boot.mean(k).as_json()
        curve.append({"method": aligner.name, "pairs": int(pairs[int(k) - 1]), "overlap@10": score, "gain": gain})
        before = k
    return curve
