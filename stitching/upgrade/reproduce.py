"""The estimate, asked again: do its own queries find in the new gallery what it promised, within its interval?

A map that was turned round, permuted or exchanged on the way passes every count and checksum; it cannot pass this.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...aligners.alignment import Alignment
from ..dumps.arrays import Array
from ..dumps.ids import hash_ids
from ..gallery.probe import Probe
from .nearest import Nearest

if TYPE_CHECKING:
    from .plan import Plan

__all__ = ["ROW", "answers", "asked", "promised", "reproduced"]

ROW = {"map": "map", "dual": "dual-concat", "expanded": "expanded", "bridge": "bridge"}  # of the estimate's table
OTHER_SIZE = 0.05  # share by which a gallery may have grown or shrunk since the estimate
KNOWN = 0.9  # share of the right answers that must be in the gallery, by id


def answers(alignment: Alignment) -> Array:
    """Hashes of the ids that the estimate in a map file holds for right; none where it has no queries."""
    probe = Probe.carried(alignment)
    return np.empty(0, np.int64) if probe is None else np.unique(probe.key.numpy())


def promised(
    alignment: Alignment, strategy: str, rows: int, known: int, *, by: str
) -> tuple[dict[str, Any] | None, list[str]]:
    """What the estimate promises of ``strategy``, or why that cannot be checked: nothing where there is no estimate.

    ``rows``: of the gallery; ``known``: how many of the `answers` are in it; ``by``: what it is asked by.
    """
    facts = alignment.provenance.get("upgrade")
    if facts is None:
        return None, []
    probe, row, count = Probe.carried(alignment), ROW[strategy], facts["gallery_rows"]
    if probe is None:
        return None, ["the estimate's queries are not in the map file, so verify cannot ask them again"]
    if row not in probe.expected or (strategy == "dual" and (probe.old is None or probe.mixing is None)):
        return None, [f"the estimate did not measure {row}, so verify cannot reproduce it"]
    if by != "cosine":
        return None, [f"the estimate is of cosines, this gallery is asked by {by}, so verify cannot reproduce it"]
    if abs(rows - count) > OTHER_SIZE * count:
        return None, [f"the estimate is of {count} rows, this gallery has {rows}: estimate anew to have it reproduced"]
    if known < KNOWN * len(answers(alignment)):
        return None, [
            f"{known} of {len(answers(alignment))} right answers of the estimate are in this gallery by id, so verify "
            "cannot reproduce it; estimate with the ids of this gallery (--gallery-ids)"
        ]
    return {"strategy": row, "metric": probe.metric, "queries": len(probe.new), **probe.expected[row]}, []


def asked(plan: Plan, probe: Probe) -> Tensor:
    """The queries ``(m, d)`` as users ask them of the new gallery, or of the old one over the bridge."""
    if plan.strategy == "bridge":
        return plan.row_map.forward(probe.new)
    if plan.strategy != "dual":
        return probe.new
    assert probe.old is not None
    assert probe.mixing is not None
    pairs = zip((probe.old, probe.new), probe.mixing, strict=True)
    return torch.cat([factor * normalize(rows, dim=1) for rows, factor in pairs], dim=1)


def reproduced(plan: Plan, rows: Iterable[tuple[Array, Array]], probe: Probe) -> tuple[bool, str]:
    """Whether the metric lies within the estimate's interval, and what was found; ``rows``: ids and vectors."""
    promise = plan.estimate
    assert promise is not None
    nearest = Nearest(asked(plan, probe), plan.metric, probe.depth, None if probe.own is None else probe.own.numpy())
    for ids, vectors in rows:
        nearest.add(hash_ids(ids).view(np.int64), vectors)
    score = float(probe.score(torch.from_numpy(nearest.names.astype(np.int64))).nanmean())
    slack = 1 / len(probe.new)  # one query: ties and rounding
    return promise["low"] - slack <= score <= promise["high"] + slack, (
        f"{promise['metric']} of its {promise['queries']} queries {score:.3f}, estimated {promise['estimate']:.3f} "
        f"[{promise['low']:.3f}, {promise['high']:.3f}] for {promise['strategy']}"
    )
