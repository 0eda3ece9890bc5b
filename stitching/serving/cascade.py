"""Old vectors recall, new vectors rank: rows are embedded when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from .checks import Floats, Rows, checked, refuse, unit

__all__ = ["Cache", "Cascade", "Searcher"]


class Searcher(Protocol):
    """`Bridge`, `DualSearch` and `MixedSearch` are such; so is anything with this one method."""

    def search(self, new: Any, old: Any = None, k: int = 10) -> tuple[Floats, Rows]:
        """Scores and rows ``(m, k)``."""


class Cache(Protocol):
    """Where new vectors are kept; `suture.stitching.upgrade` has a durable one."""

    def get(self, ids: Rows) -> Mapping[int, Any]:
        """The vectors that are there, by position in ``ids``."""

    def put(self, ids: Rows, vectors: Floats) -> None:
        """Keep these."""


class Kept:
    """A cache in memory."""

    def __init__(self) -> None:
        self._vectors: dict[int, Floats] = {}

    def get(self, ids: Rows) -> Mapping[int, Floats]:
        """The vectors that are there, by position in ``ids``."""
        return {i: self._vectors[row] for i, row in enumerate(ids.tolist()) if row in self._vectors}

    def put(self, ids: Rows, vectors: Floats) -> None:
        """Keep these."""
        self._vectors.update(zip(ids.tolist(), vectors, strict=True))


class Cascade:
    """``recall`` finds ``depth`` rows, ``embed`` gives their new vectors, and these are ranked by the new query.

    ``embed``: ``rows (n,) -> (n, new_dim)``, called once for the rows of a search that are not in the ``cache``, each
    row once for ever. ``embedded`` counts them.
    """

    def __init__(
        self,
        recall: Searcher,
        embed: Callable[[Rows], Any],
        *,
        new_dim: int,
        depth: int = 50,
        cache: Cache | None = None,
    ) -> None:
        if depth < 1:
            refuse(f"expected a depth of at least 1, got {depth}.")
        self.recall, self.embed, self.new_dim, self.depth = recall, embed, new_dim, depth
        self.cache: Cache = Kept() if cache is None else cache
        self.embedded = 0

    def search(self, new: Any, old: Any = None, k: int = 10) -> tuple[Floats, Rows]:
        """Scores (cosines of new vectors) and rows ``(m, k)``; -1 where fewer were recalled."""
        queries = unit(checked(new, self.new_dim, "new query"))
        _, found = self.recall.search(new, old, max(self.depth, k))
        found = np.asarray(found)[:, : max(self.depth, k)]
        rows = np.unique(found[found >= 0])
        scores = np.full(found.shape, -np.inf, np.float32)
        if len(rows):
            vectors = unit(self._vectors(rows))
            at = np.searchsorted(rows, np.maximum(found, rows[0]))
            # Only the candidates of each query are multiplied with it.
            scores = np.einsum("md,mkd->mk", queries, vectors[np.minimum(at, len(rows) - 1)]).astype(np.float32)
            scores[found < 0] = -np.inf
        order = np.lexsort((found, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)

    def _vectors(self, rows: Rows) -> Floats:
        """New vectors of distinct rows, embedding those that are not kept yet."""
        kept = self.cache.get(rows)
        out = np.empty((len(rows), self.new_dim), np.float32)
        for i, vector in kept.items():
            out[i] = vector
        missing = np.setdiff1d(np.arange(len(rows)), np.fromiter(kept, np.int64, len(kept)))
        if len(missing):
            fresh = checked(self.embed(rows[missing]), self.new_dim, "the embedder")
            if len(fresh) != len(missing):
                refuse(f"the embedder gave {len(fresh)} vectors for {len(missing)} rows; nothing of them is kept.")
            self.cache.put(rows[missing], fresh)
            out[missing] = fresh
            self.embedded += len(missing)
        return out
