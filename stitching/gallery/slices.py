"""Where a strategy is worst: slices of the queries, each with its number, its interval and a shrunken estimate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...aligners.measures.bootstrap import Bootstrap

__all__ = ["clusters", "slices"]

Floats = NDArray[Any]
SMALLEST = 10  # queries; a slice of fewer is left out
MOST_CLUSTERS = 30


def clusters(vectors: Tensor, seed: int) -> list[str]:
    """k-means cells of the queries, k about sqrt(n / 50), at least 2 of several: named by number, the largest first."""
    from sklearn.cluster import KMeans

    k = min(len(vectors), max(2, min(MOST_CLUSTERS, round((len(vectors) / 50) ** 0.5))))
    cells = KMeans(k, n_init=4, random_state=seed).fit_predict(vectors.numpy())
    order = np.argsort(-np.bincount(cells, minlength=k), kind="stable")
    number = np.empty(k, int)
    number[order] = np.arange(k)
    return [f"cell {number[c] + 1}" for c in cells]


def slices(
    gain: Tensor,
    columns: Mapping[str, list[str]],
    groups: Tensor | None,
    *,
    level: float,
    seed: int,
) -> list[dict[str, Any]]:
    """``gain`` ``(m,)`` of a strategy over staying, by the values of each column; worst first by shrunken estimate.

    The shrunken estimate is empirical Bayes: each slice's mean drawn to the overall one by ``v / (v + t)``, v its
    sampling variance and t the variance between slices (DerSimonian & Laird 1986). Slices of a column share one
    variance within, pooled: that of ten gains, most of them zero, is hardly known, and 0 where they happen to be equal.
    """
    out = []
    for column, values in columns.items():
        labels, of = np.unique(np.array(values, object).astype(str), return_inverse=True)
        found = []
        for i, label in enumerate(labels):
            mine = torch.from_numpy(of == i) & ~gain.isnan()
            n = int(mine.sum())
            if n >= SMALLEST:
                some = None if groups is None else groups[mine]
                at = Bootstrap({"gain": gain[mine]}, some, seed=seed).mean("gain", level)
                found.append((str(label), n, at, float(gain[mine].var())))
        overall = float(gain.nanmean())
        counts, variances = np.array([f[1] for f in found]), np.array([f[3] for f in found])
        within = float(((counts - 1) * variances).sum() / max(1, (counts - 1).sum()))
        between = between_slices(np.array([f[2].estimate for f in found]), counts, within)
        for label, n, at, _ in found:
            weight = between / (between + within / n) if between > 0 else 0.0
            shrunken = overall + weight * (at.estimate - overall)
            row = {"column": column, "slice": label, "queries": n, "difference": at.as_json(), "shrunken": shrunken}
            out.append(row)
    return sorted(out, key=lambda row: float(row["shrunken"]))


def between_slices(means: Floats, counts: Floats, within: float) -> float:
    """The variance between slices beyond that of sampling, by the method of moments; never negative.

    ``means`` and ``counts`` ``(s,)`` of slices whose queries vary by ``within``.
    """
    if len(means) < 2:
        return 0.0
    total = counts.sum()
    spread = float((counts * (means - np.average(means, weights=counts)) ** 2).sum())
    return max(0.0, (spread - (len(means) - 1) * within) / float(total - (counts**2).sum() / total))
