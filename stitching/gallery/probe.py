"""The queries of an estimate and what they should find, kept so that a gallery can be asked the same again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...aligners.alignment import Alignment
from ...aligners.measures.bootstrap import Bootstrap
from ...aligners.measures.retrieval import rank_metrics
from ...aligners.pairs import mix
from .table import LEVEL

if TYPE_CHECKING:
    from .estimate import Estimate

__all__ = ["Probe"]

MOST = 1000  # queries: 4 MB at 384 and 768 dims
ASKED = ("map", "bridge", "dual-concat", "expanded")  # strategies that an upgrade can carry out
ABSENT = 1 << 40  # the rank of what was not found


@dataclass(frozen=True, eq=False)
class Probe:
    """Queries by the ``new`` encoder ``(m, q)``, by the ``old`` one ``(m, p)`` where it was given, and right answers.

    Row ``key`` ``(r,)`` (a hash of its id) answers ``query`` ``(r,)`` and stands for ``weight`` ``(r,)`` rows. ``own``
    ``(m,)``: the row that a query is itself, which does not count. ``metric``: "ndcg@10" or "overlap@k";
    ``expected``: its interval on these queries, by strategy; ``mixing``: what a dual's products are multiplied with.
    """

    new: Tensor
    old: Tensor | None
    query: Tensor
    key: Tensor
    weight: Tensor
    own: Tensor | None
    metric: str
    expected: Mapping[str, Mapping[str, float]]
    mixing: tuple[float, float] | None

    @classmethod
    def of(cls, estimate: Estimate) -> Probe | None:
        """That of an estimate on the gallery itself; None where held-out pairs stood for it."""
        inputs, measured = estimate.inputs, estimate.measured
        if inputs.scope != "gallery" or inputs.gallery.keys is None:
            return None
        count, metric = len(inputs.queries.new), measured.metric
        chosen = mix(torch.arange(count)).argsort()[:MOST].sort().values
        place = torch.full((count,), -1)
        place[chosen] = torch.arange(len(chosen))
        if inputs.query is not None and inputs.row is not None:
            query, row, weight = inputs.query, inputs.row, torch.ones(len(inputs.row))
        else:
            assert measured.truth is not None
            query = torch.arange(count).repeat_interleave(measured.truth.rows.shape[1])
            row, weight = measured.truth.rows.flatten(), measured.truth.share.flatten().float()
        kept = (place[query] >= 0) & (weight > 0) & (row >= 0)
        own = inputs.queries.exclude
        if own is not None:
            own = torch.where(own >= 0, inputs.gallery.keys(own.clamp(min=0)), 0)[chosen]
        groups = inputs.queries.groups
        columns = {n: measured.judged(n)[chosen] for n in ASKED if metric in measured.metrics.get(n, {})}
        boot = Bootstrap(columns, None if groups is None else groups[chosen], seed=estimate.result["seed"])
        mixed = measured.mixing.get("dual-concat")
        return cls(
            inputs.queries.new[chosen],
            None if inputs.queries.old is None else inputs.queries.old[chosen],
            place[query[kept]],
            inputs.gallery.keys(row[kept]),
            weight[kept],
            own,
            metric,
            {name: boot.mean(name, LEVEL).as_json() for name in columns},
            None if mixed is None else estimate.systems.coefficients("dual-concat", mixed.served),
        )

    @classmethod
    def carried(cls, alignment: Alignment) -> Probe | None:
        """The one in a map file; None where there is none."""
        facts = alignment.provenance.get("upgrade", {}).get("probe")
        held = alignment.attached
        if facts is None or "new" not in held:
            return None
        tensors = (held["new"], held.get("old"), held["query"], held["key"], held["weight"], held.get("own"))
        mixing = facts["mixing"]
        return cls(*tensors, facts["metric"], facts["expected"], None if mixing is None else tuple(mixing))

    def tensors(self) -> dict[str, Tensor]:
        """What is attached to the map."""
        named = {name: getattr(self, name) for name in ("new", "old", "query", "key", "weight", "own")}
        return {name: value for name, value in named.items() if value is not None}

    def facts(self) -> dict[str, Any]:
        """What stands in its provenance."""
        mixing = None if self.mixing is None else list(self.mixing)
        return {"queries": len(self.new), "metric": self.metric, "expected": dict(self.expected), "mixing": mixing}

    @property
    def depth(self) -> int:
        """How many rows must be found for each query."""
        return max(10, int(self.metric.partition("@")[2]))

    def score(self, top: Tensor) -> Tensor:
        """The metric ``(m,)`` of what was found: keys ``(m, depth)``, best first."""
        hits = top[self.query] == self.key[:, None]
        if self.metric == "ndcg@10":
            rank = torch.where(hits.any(1), hits.double().argmax(1) + 1, ABSENT)
            return rank_metrics(rank, self.query, len(self.new))["ndcg@10"]
        k = int(self.metric.partition("@")[2])
        sums = torch.zeros((2, len(self.new)), dtype=torch.float64)
        weight = self.weight.double()
        sums.index_add_(1, self.query, torch.stack([weight * hits[:, :k].any(1), weight]))
        return sums[0] / sums[1]
