"""Whatever can find rows: an array, a faiss index, a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .checks import Floats, Rows, refuse, unit

__all__ = ["Finder", "finder"]

Finder = Callable[[Floats, int], tuple[Floats, Rows]]
BLOCK = 65536


def finder(index: Any, dim: int) -> Finder:
    """``(queries (m, dim), k) -> (scores (m, k), rows (m, k))``, best first, larger scores better, -1 for no row.

    An array ``(n, dim)`` is searched exactly, by cosine; anything with a ``search(queries, k)`` (faiss) or that can be
    called so is used as it is. Raises `RefusedError` on an index of another width.
    """
    if isinstance(index, np.ndarray):
        if index.ndim != 2 or index.shape[1] != dim:
            refuse(f"expected an index of rows of {dim} dims, got an array of shape {index.shape}.")
        return Exact(index)
    found = getattr(index, "d", dim)
    if found != dim:
        refuse(f"expected an index of {dim} dims, this one has {found}. Is it the gallery of the other encoder?")
    search = getattr(index, "search", index)
    if not callable(search):
        refuse(f"expected an array, an index with search(queries, k), or a function; got {type(index).__name__}.")
    return lambda queries, k: answered(search(queries, k), len(queries))


def answered(result: Any, queries: int) -> tuple[Floats, Rows]:
    """The answer of a foreign index as arrays. Raises `RefusedError` where it is none for these queries."""
    scores, rows = np.asarray(result[0], np.float32), np.asarray(result[1], np.int64)
    if scores.shape != rows.shape or scores.ndim != 2 or len(scores) != queries:
        refuse(f"expected scores and rows ({queries}, k) of the index, got shapes {scores.shape} and {rows.shape}.")
    return scores, rows


class Exact:
    """Exact search by cosine in an array ``(n, dim)``, block by block; ties go to the earlier row."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __call__(self, queries: Floats, k: int) -> tuple[Floats, Rows]:
        best_score = np.empty((len(queries), 0), np.float32)
        best_row = np.empty((len(queries), 0), np.int64)
        queries = unit(queries)
        for start in range(0, len(self._rows), BLOCK):
            block = unit(np.asarray(self._rows[start : start + BLOCK], np.float32))
            scores = queries @ block.T
            keep = min(k, scores.shape[1])
            some = np.argpartition(-scores, keep - 1, axis=1)[:, :keep]
            best_score = np.concatenate([best_score, np.take_along_axis(scores, some, 1)], axis=1)
            best_row = np.concatenate([best_row, some + start], axis=1)
            order = np.lexsort((best_row, -best_score), axis=1)[:, :k]
            best_score = np.take_along_axis(best_score, order, 1)
            best_row = np.take_along_axis(best_row, order, 1)
        return best_score, best_row
