"""Where a strategy is worst: slices of the queries, each with its number, its interval and a shrunken estimate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...aligners.measures.bootstrap import Bootstrap

__all__ = ["clusters", "slices"]

SMALLEST = 10  # queries; a slice of fewer is left out, and counted
MOST_CLUSTERS = 30


def clusters(vectors: Tensor, seed: int) -> list[str]:
    """k-means cells of the queries, k about sqrt(n / 50), at least 2: named by number, the largest first."""
    from sklearn.cluster import KMeans

    k = max(2, min(MOST_CLUSTERS, round((len(vectors) / 50) ** 0.5)))
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
    sampling variance and t the variance between slices (DerSimonian & Laird 1986).
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
                variance = float(gain[mine].var()) / n
                found.append((str(label), n, at, variance))
        overall = float(gain.nanmean())
        between = between_slices([f[2].estimate for f in found], [f[3] for f in found])
        for label, n, at, variance in found:
            weight = between / (between + variance) if between + variance > 0 else 0.0
            shrunken = overall + weight * (at.estimate - overall)
            row = {"column": column, "slice": label, "queries": n, "difference": at.as_json(), "shrunken": shrunken}
            out.append(row)
    return sorted(out, key=lambda row: float(row["shrunken"]))


def between_slices(means: list[float], variances: list[float]) -> float:
    """The variance between slices beyond that of sampling, by the method of moments; never negative."""
    if len(means) < 2 or min(variances) <= 0:
        return 0.0
    weight = 1 / np.array(variances)
    mean = np.average(means, weights=weight)
    excess = float((weight * (np.array(means) - mean) ** 2).sum()) - (len(means) - 1)
    return max(0.0, excess / float(weight.sum() - (weight**2).sum() / weight.sum()))
