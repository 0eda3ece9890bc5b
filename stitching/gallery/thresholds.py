"""Where a fixed score threshold goes when scores change their scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["translated"]

# What `suture.stitching.serving` gives a score for: a gallery of two kinds of rows is merged by ranks.
SERVED = ("stay", "bridge", "map", "dual", "dual-tuned", "dual-concat", "re-embed", "cascade")
OLD = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
FEWEST = 20  # results on either side of a threshold; with fewer it cannot be placed
DRAWS = 200


def translated(scores: Mapping[str, Tensor], level: float, seed: int) -> list[dict[str, Any]]:
    """For thresholds on the cosine of ``stay``, those that pass the same share of the first ten results elsewhere.

    ``scores`` ``(m, 10)`` of each strategy on the scale that it is served on: all are cosines.
    ``[{"old", "passes", "new": {strategy: interval}}]``: quantile matching, with percentile bootstrap intervals over
    queries (200 draws). Thresholds that pass or fail almost all are left out, and strategies that serve no score.
    """
    if "stay" not in scores:
        return []
    generator = torch.Generator().manual_seed(seed)
    m = len(scores["stay"])
    drawn = torch.randint(m, (DRAWS, m), generator=generator)
    out = []
    for old in OLD:
        passing = scores["stay"] >= old
        if not FEWEST <= int(passing.sum()) <= passing.numel() - FEWEST:
            continue
        new = {}
        for name, score in scores.items():
            if name != "stay" and name.split("@")[0] in SERVED:
                values = torch.tensor([matched(scores["stay"][d], score[d], old) for d in drawn], dtype=torch.float64)
                low, high = torch.quantile(values, values.new_tensor([(1 - level) / 2, (1 + level) / 2])).tolist()
                new[name] = {"estimate": matched(scores["stay"], score, old), "low": low, "high": high}
        out.append({"old": old, "passes": float(passing.double().mean()), "new": new})
    return out


def matched(old: Tensor, new: Tensor, threshold: float) -> float:
    """The quantile of ``new`` that as many results pass as pass ``threshold`` in ``old``."""
    passing = int((old >= threshold).sum())
    flat = new.flatten()
    place = min(max(round(passing * len(flat) / old.numel()), 1), len(flat))
    return float(flat.kthvalue(len(flat) - place + 1).values)
