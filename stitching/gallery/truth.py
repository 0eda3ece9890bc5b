"""What the new model itself would find, known for all rows or estimated from a pool."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...aligners.measures.retrieval import Search
from .inputs import Pool

__all__ = ["Truth"]


@dataclass(frozen=True, eq=False)
class Truth:
    """The ``k`` rows that the new model would find for each query: ``rows`` ``(m, t)`` with ``share`` ``(m, t)``.

    A pooled row stands for ``weight`` rows of the gallery (Horvitz & Thompson 1952): the true neighbours are taken from
    the best pooled rows until they stand for ``k``, the last one in part. With a full pool these are the best k.
    """

    rows: Tensor
    share: Tensor
    k: int

    @classmethod
    def of(cls, found: Search, pool: Pool, k: int) -> Truth:
        """From the best pooled rows of each query, by the new model."""
        weight = torch.where(found.top >= 0, pool.weight[found.top.clamp(min=0)], 0.0).double()
        before = weight.cumsum(1) - weight
        share = torch.minimum(weight, (k - before).clamp(min=0))
        return cls(found.top, share, k)

    def overlap(self, top: Tensor) -> Tensor:
        """overlap@k ``(m,)``: the share of the true neighbours that is among the first k of ``top`` ``(m, ...)``."""
        found = torch.zeros_like(self.share)
        for part in torch.split(torch.arange(min(self.k, top.shape[1])), 16):  # a 16th of the memory of all at once
            found += (self.rows[:, :, None] == top[:, None, part]).any(2)
        hit = (found > 0) & (self.rows >= 0)
        return (self.share * hit).sum(1) / self.share.sum(1)
