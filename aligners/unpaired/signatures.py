"""Signatures: rows of two spaces made comparable by their cosines to a few items that both hold."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..polar import polar
from .clouds import Clouds

__all__ = ["by_signatures", "signatures", "soft_cross"]


def by_signatures(clouds: Clouds, k: int, seed_weight: float) -> Tensor:
    """Procrustes ``(p, q)`` on the soft pairs of the signatures, both directions, and on the seeds."""
    a, b = (signatures(rows, rows[clouds.seeds[:, i]]) for i, rows in enumerate((clouds.x, clouds.y)))
    known = clouds.x[clouds.seeds[:, 0]].T @ clouds.y[clouds.seeds[:, 1]]
    cross = soft_cross(a, b, clouds.x, clouds.y, k)
    return polar(cross + soft_cross(b, a, clouds.y, clouds.x, k).T + known * seed_weight)


def signatures(rows: Tensor, anchors: Tensor) -> Tensor:
    """Cosines ``(n, s)`` of ``rows`` to ``anchors``, standardised by anchor, then of unit length."""
    cosines = rows @ anchors.T
    spread = cosines.std(0)
    return normalize((cosines - cosines.mean(0)) / torch.where(spread > 0, spread, 1.0), dim=1)


def soft_cross(a: Tensor, b: Tensor, x: Tensor, y: Tensor, k: int) -> Tensor:
    """``sum_i x_i' mean(y of the k signatures b nearest to a_i)`` ``(p, q)``; a block of rows at a time."""
    k = max(1, min(k, len(b) // 100))
    total = x.new_zeros(x.shape[1], y.shape[1])
    for first in range(0, len(a), 2048):
        some = slice(first, first + 2048)
        total += x[some].T @ y[(a[some] @ b.T).topk(k, dim=1, sorted=False).indices].mean(1)
    return total
