"""CSLS: cosine corrected for hubs, rows that are near to everything."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["crowding", "csls", "mutual_pairs", "nearest"]


def crowding(scores: Tensor, k: int = 10, dim: int = 1) -> Tensor:
    """``r``: the mean of the ``k`` highest ``scores`` along ``dim``."""
    return scores.topk(min(k, scores.shape[dim]), dim=dim).values.mean(dim)


def csls(x: Tensor, y: Tensor, k: int = 10) -> Tensor:
    """``CSLS(x, y) = 2 cos(x, y) - r_Y(x) - r_X(y)`` ``(n, m)`` of rows ``(n, d)`` and ``(m, d)``.

    ``r_Y(x)`` is the mean cosine of x to its k nearest rows of y, ``r_X(y)`` that of y to its k nearest rows of x
    (Conneau et al. 2018, arXiv 1710.04087, eq. 3). Holds two n by m matrices.
    """
    cosine = normalize(x, dim=1) @ normalize(y, dim=1).T
    near, far = crowding(cosine, k, 1), crowding(cosine, k, 0)
    return cosine.mul_(2).sub_(near[:, None]).sub_(far)


def mutual_pairs(scores: Tensor) -> Tensor:
    """Pairs ``(k, 2)`` of rows and columns of which each is the other's best."""
    best = scores.argmax(1)
    rows = torch.arange(len(scores))
    mutual = scores.argmax(0)[best] == rows
    return torch.stack([rows[mutual], best[mutual]], 1)


def nearest(x: Tensor, y: Tensor, k: int, *, hubs: int = 10, sample: int | None = None) -> Tensor:
    """The ``k`` best rows ``(n, k)`` of ``y`` for each of ``x``, both of unit length, by CSLS.

    For one query its own crowding is a constant: ``cos - r_X(y) / 2`` ranks alike. ``r_X(y)`` is of the ``hubs``
    nearest of the first ``sample`` rows of x: 3 of 500 are as far as 10 of 2,000, in a fraction of the time.
    """
    cosine = x @ y.T
    return (cosine - crowding(cosine[:sample], hubs, 0) / 2).topk(min(k, len(y)), dim=1, sorted=False).indices
