"""Exact search over a gallery that passes by in batches."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...aligners.arrays import as_tensor
from ..dumps.arrays import Array

__all__ = ["Nearest"]


class Nearest:
    """The ``k`` nearest rows of each of ``queries`` ``(m, d)`` by ``metric``; ``names`` ``(m, k)``, best first.

    ``own`` ``(m,)``: a name per query that is not to be found. Memory: the scores of one batch.
    """

    def __init__(self, queries: Tensor, metric: str, k: int, own: Array | None = None) -> None:
        self._queries = normalize(queries.float(), dim=1) if metric == "cosine" else queries.float()
        self._metric, self._k, self._own = metric, k, own
        self._scores: Tensor | None = None
        self.names: Array = np.empty((len(queries), 0), object)
        self.rows = 0

    def add(self, names: Array, vectors: Array) -> None:
        """Rows ``(n, d)`` with their names ``(n,)``."""
        if not len(names):
            return
        rows = as_tensor(np.ascontiguousarray(vectors)).float()
        if self._metric == "cosine":
            rows = normalize(rows, dim=1)
        scores = -torch.cdist(self._queries, rows) if self._metric == "l2" else self._queries @ rows.T
        if self._own is not None:
            scores.masked_fill_(torch.from_numpy(self._own[:, None] == names[None]), -torch.inf)
        held = self.names.shape[1]
        if self._scores is not None:
            scores = torch.cat([self._scores, scores], dim=1)
        self._scores, best = scores.topk(min(self._k, scores.shape[1]), dim=1)
        at = best.numpy()
        fresh = names[np.maximum(at - held, 0)]
        if held:
            kept = np.take_along_axis(self.names, np.minimum(at, held - 1), axis=1)
            fresh = np.where(at < held, kept, fresh)
        self.names, self.rows = fresh, self.rows + len(names)
