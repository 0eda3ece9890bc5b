"""Exact search over a gallery that passes by in batches."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...aligners.arrays import as_tensor
from ..dumps.arrays import Array
from ..stores import Store
from .evidence import Check

__all__ = ["AskedIndex", "Nearest"]

ANN_K = 10
ANN_QUERIES = 64
LOWEST = 0.8
LOSS = 0.15  # what a new index of the same kind may find less


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


class AskedIndex:
    """A store's own search, beside the ``exact`` one that is filled while the gallery passes by."""

    def __init__(self, store: Store, metric: str, queries: Tensor) -> None:
        self.store, self.queries = store, queries[:ANN_QUERIES].float()
        self.exact = Nearest(self.queries, metric, ANN_K)

    def check(self, other: AskedIndex | None) -> Check:
        """It must find nearly what exact search finds, or nearly as much of it as the ``other`` index does."""
        recall, old = self.recall(), 1.0 if other is None else other.recall()
        told = "" if other is None else f", the old index for old queries {old:.3f}"
        lowest = min(LOWEST, old - LOSS)
        return Check("index", recall >= lowest, f"recall@{ANN_K} against exact search {recall:.3f}{told}")

    def recall(self) -> float:
        """Share of the exact nearest that the store finds."""
        found = self.store.search(self.queries.numpy(), ANN_K)
        exact = self.exact.names.tolist()
        return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(exact, found, strict=True)]))
