"""The table of an estimate: every strategy with its intervals, its cost and what it changes for single queries."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ...aligners.measures.bootstrap import Bootstrap, Interval
from .backfill import LEVELS
from .costs import cost
from .measure import Measured, area
from .variants import FORMS
from .verdict import ORDER

__all__ = ["LEVEL", "MEANING", "METRICS", "NULLS", "QUANTITIES", "Table"]

LEVEL = 0.9
NULLS = {"shuffled": "map fitted on pairs handed round: chance", "random": "a random rotation: chance"}
MEANING = {
    "stay": "old queries on the old gallery",
    "bridge": "new queries mapped into the old space, on the old gallery",
    "map": "new queries on the mapped gallery",
    "dual": "one vector of both queries on the untouched old index",
    "dual-tuned": "that vector trained on labelled queries, none on its own answer",
    "dual-concat": "both queries on old and mapped rows side by side",
    "cascade@10": "recall 10, re-embed those, rank by the new model",
    "cascade@50": "recall 50, re-embed those, rank by the new model",
    "cascade@200": "recall 200, re-embed those, rank by the new model",
    "expanded": "new queries in the expanded orthogonal form, old rows padded, none re-embedded yet",
    "backfill@10": "10 % re-embedded in the best order, rank-merged with the rest",
    "backfill@25": "25 % re-embedded in the best order, rank-merged with the rest",
    "backfill@50": "50 % re-embedded in the best order, rank-merged with the rest",
    "re-embed": "new queries on the re-embedded gallery",
    **NULLS,
}
METRICS = ("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr")
FLIPS = ("negative_flips", "positive_flips")
QUANTITIES = ("retention", "gain", "update_gain", *FLIPS)


class Table:
    """The bootstrap over queries of everything that was measured; all numbers of an estimate share its draws."""

    def __init__(self, measured: Measured, itemsize: int, seed: int, price: float | None = None) -> None:
        self.measured, self.itemsize, self.price = measured, itemsize, price
        self.metric = measured.metric
        self.columns: dict[str, Tensor] = {}
        for name, metrics in measured.metrics.items():
            self.columns |= {f"{name} {metric}": values for metric, values in metrics.items()}
            for kind, values in flips(measured, name).items():
                self.columns[f"{name} {kind}"] = values
        if "re-embed" not in measured.metrics and self.metric.startswith("overlap"):
            # Measured from a pool it is what all others are compared with: it finds its own neighbours.
            self.columns[f"re-embed {self.metric}"] = torch.ones(len(measured.inputs.queries.new), dtype=torch.float64)
        for rows, found in measured.sizes.items():
            self.columns |= {f"{name} at {rows}": m[self.sized] for name, m in found.items() if self.sized in m}
        for (order, base), levels in measured.curve.items():
            self.columns |= {f"fill {order} {base} {p}": m[self.metric] for p, m in levels.items()}
        self.boot = Bootstrap(self.columns, measured.inputs.queries.groups, seed=seed)

    @property
    def sized(self) -> str:
        """The metric of the size curve."""
        return self.metric if self.metric == "ndcg@10" else "overlap@10"

    def mean(self, column: str) -> dict[str, float]:
        """The mean of one column with its interval."""
        return self.boot.mean(column, LEVEL).as_json()

    def rows(self) -> list[dict[str, Any]]:
        """One entry a strategy; those that could not be measured are null and say why."""
        names = [*ORDER, *NULLS, *(n for n in self.measured.metrics if n not in ORDER and n not in NULLS)]
        return [self.row(name) for name in names]

    def row(self, name: str) -> dict[str, Any]:
        """One strategy."""
        measured = self.measured
        out: dict[str, Any] = {"name": name, "what": meaning(name), "kind": kind(name)}
        if name not in measured.metrics:
            reason = measured.missing.get(name) or measured.missing.get(name.partition("@")[0], "could not be measured")
            return (
                out
                | {"metrics": None, "difference": None, "quantities": {}, "doubt": None, "reason": reason}
                | {"cost": None}
            )
        known = measured.metrics[name]
        wanted = [*METRICS, *([f"overlap@{measured.k}"] if measured.k else [])]
        metrics: dict[str, Any] = {m: self.mean(f"{name} {m}") if m in known else None for m in wanted}
        base = "stay" if "stay" in measured.metrics and name != "stay" else None
        shared = [m for m in known if base and m in measured.metrics["stay"]]
        difference = {m: self.boot.difference(f"{name} {m}", f"stay {m}", LEVEL).as_json() for m in shared}
        doubt = self.boot.doubt(f"{name} {self.metric}", f"stay {self.metric}") if self.metric in shared else None
        return out | {
            "metrics": metrics,
            "difference": difference or None,
            "quantities": self.quantities(name),
            "doubt": doubt,
            "reason": None,
            "cost": self.cost(name),
        }

    def cost(self, name: str) -> dict[str, Any] | None:
        """That of a strategy on the gallery; None of others, and where held-out pairs stand for the gallery."""
        inputs, measured = self.measured.inputs, self.measured
        if name not in ORDER or inputs.scope != "gallery":
            return None
        return cost(
            name,
            inputs.gallery.count,
            inputs.gallery.dim,
            inputs.queries.new.shape[1],
            self.itemsize,
            base=measured.order[1] if name.startswith("backfill@") else measured.base,
            distinct=measured.distinct.get(name),
            price=self.price,
        )

    def quantities(self, name: str) -> dict[str, Any]:
        """Retention, gain, update gain (share of the gap closed) and flips, each an interval or None."""
        own, stay, best = (f"{n} {self.metric}" for n in (name, "stay", "re-embed"))
        has = self.columns.keys()
        out: dict[str, Any] = dict.fromkeys(QUANTITIES)
        if own not in has:
            return out
        if best in has:
            out["retention"] = finite(self.boot.ratio(own, best, LEVEL))
        if stay in has:
            out["gain"] = finite(self.boot.ratio(own, stay, LEVEL))
        if name not in NULLS and best in has and stay in has and self.boot.difference(best, stay, LEVEL).low > 0:
            gap = self.boot.statistic(lambda s, o, b: (s - o) / (b - o), own, stay, best, level=LEVEL)
            out["update_gain"] = finite(gap)
        for flip in FLIPS:
            if name == "stay":
                out[flip] = {"estimate": 0.0, "low": 0.0, "high": 0.0}  # against itself
            elif f"{name} {flip}" in has:
                out[flip] = self.mean(f"{name} {flip}")
        return out

    def size_curve(self) -> list[dict[str, Any]]:
        """``[{"rows", "strategies": {name: interval}}]`` over nested samples of the gallery."""
        out = []
        for rows, found in self.measured.sizes.items():
            inside = {n: self.mean(f"{n} at {rows}") for n in found if f"{n} at {rows}" in self.columns}
            out.append({"rows": rows, "metric": self.sized, "strategies": inside})
        return out

    def backfill_curves(self) -> list[dict[str, Any]]:
        """One an order and base, the largest area first; ``violations``: how many of its steps go down."""
        out = []
        for order, base in self.measured.curve:
            points = [{"share": p, **self.mean(f"fill {order} {base} {p}")} for p in LEVELS]
            means = [float(p["estimate"]) for p in points]
            violations = sum(b < a for a, b in pairwise(means))
            size = float(area(self.measured, (order, base)).nanmean())
            relative = size / means[-1] if means[-1] else None
            out.append(
                {
                    "order": order,
                    "base": base,
                    "metric": self.metric,
                    "area": size,
                    "area_of_re_embed": relative,
                    "violations": violations,
                    "points": points,
                }
            )
        return sorted(out, key=lambda c: -float(c["area"]))


def finite(interval: Interval) -> dict[str, float] | None:
    """The interval, or None where it is not made of numbers."""
    values = interval.as_json()
    return values if all(abs(v) < float("inf") for v in values.values()) else None


def meaning(name: str) -> str:
    """What a row of the table is."""
    base, _, form = name.partition(" ")
    return f"{MEANING[base]}; rows: {FORMS[form]}" if form else MEANING[name]


def kind(name: str) -> str:
    """ "strategy", "null" or "variant"."""
    return "strategy" if name in ORDER else "null" if name in NULLS else "variant"


def flips(measured: Measured, name: str) -> dict[str, Tensor]:
    """Per query whether staying was right and this is wrong, and the other way round; nan where nothing is right.

    Right: a right answer among the first ten. Without labels: fewer, or more, of the new model's own neighbours.
    """
    if "stay" not in measured.metrics or name == "stay":
        return {}
    if "recall@10" in measured.metrics[name]:
        old, new = ((measured.metrics[n]["recall@10"]) for n in ("stay", name))
        lost, won = (old > 0) & ~(new > 0), (new > 0) & ~(old > 0)
    elif measured.metric in measured.metrics[name]:
        old, new = measured.judged("stay"), measured.judged(name)
        lost, won = new < old, new > old
    else:
        return {}
    return {
        flip: torch.where(old.isnan(), torch.nan, values.double())
        for flip, values in (("negative_flips", lost), ("positive_flips", won))
    }
