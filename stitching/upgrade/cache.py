"""Rows that the new model itself has embedded: kept for ever, in one sqlite file beside the plan.

A `Cascade` fills it while it serves, `backfill` in the background; either way a row is paid for once. What is in it
goes into the new gallery in place of the mapped row, and never comes out again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...aligners.errors import RefusedError
from ..dumps.arrays import Array
from ..dumps.join import storable
from ..stores.batch import Batch

if TYPE_CHECKING:
    from .plan import Plan

__all__ = ["Cache"]

AT_ONCE = 500


class Cache:
    """Vectors ``(dim,)`` of the new model, by id; durable when `put` returns. Use it as a context manager."""

    def __init__(self, path: Path, dim: int) -> None:
        self.dim = dim
        self._path = path
        self._db = sqlite3.connect(path, timeout=30) if path.exists() else None

    @classmethod
    def of(cls, plan: Plan) -> Cache:
        """That of a plan, in the width of the new model."""
        return cls(plan.state / "native.sqlite", plan.alignment.map_of("target").source_dim)

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        if self._db is not None:
            self._db.close()

    def __len__(self) -> int:
        return 0 if self._db is None else int(self._db.execute("SELECT COUNT(*) FROM native").fetchone()[0])

    def put(self, ids: Array, vectors: Array) -> None:
        """Keep rows; one that is there already is replaced. Raises `RefusedError` for another width or bad numbers."""
        vectors = self.checked(ids, vectors)
        if self._db is None:
            self._db = sqlite3.connect(self._path, timeout=30)
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("CREATE TABLE IF NOT EXISTS native (id PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID")
        with self._db:
            pairs = ((key, row.tobytes()) for key, row in zip(storable(ids), vectors, strict=True))
            self._db.executemany("INSERT OR REPLACE INTO native VALUES (?, ?)", pairs)

    def checked(self, ids: Array, vectors: Array) -> Array:
        """The vectors as float32. Raises `RefusedError` where they are not finite rows of the width, one an id."""
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.shape != (len(ids), self.dim):
            raise RefusedError(
                f"the embedder gave vectors of shape {vectors.shape} for {len(ids)} rows; the new model has {self.dim} "
                "dims. Is it the model that the map was fitted for?"
            )
        if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
            raise RefusedError("the embedder gave NaN, infinite or zero vectors; nothing of this batch is kept.")
        return vectors

    def get(self, ids: Array) -> Mapping[int, Array]:
        """The rows among ``ids`` that are kept: vector by position."""
        if self._db is None or not len(ids):
            return {}
        keys = storable(ids)
        found: dict[Any, bytes] = {}
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            marks = ",".join("?" * len(some))
            found.update(self._db.execute(f"SELECT id, vector FROM native WHERE id IN ({marks})", some))
        return {i: np.frombuffer(found[key], np.float32) for i, key in enumerate(keys) if key in found}

    def holds(self, ids: Array) -> Array:
        """Which of ``ids`` are kept ``(m,)``."""
        out = np.zeros(len(ids), bool)
        out[list(self.get(ids))] = True
        return out

    def forget(self, ids: Array) -> None:
        """Drop rows whose old vector changed: what was embedded is not what stands there now."""
        if self._db is not None and len(ids):
            with self._db:
                self._db.executemany("DELETE FROM native WHERE id = ?", [(key,) for key in storable(ids)])

    def into(self, batch: Batch, plan: Plan, where: Array | None = None) -> Batch:
        """The mapped rows of ``batch``, native ones in place of those that are kept, ``where`` ``(m,)`` is true."""
        found = {i: row for i, row in self.get(batch.ids).items() if where is None or where[i]}
        if not found:
            return batch
        vectors, stamps = batch.vectors.copy(), list(batch.stamps or [None] * len(batch))
        for i, row in found.items():
            vectors[i, -self.dim :] = native(row, plan)
            stamps[i] = plan.model
        return batch.with_vectors(vectors, stamps)


def native(row: Array, plan: Plan) -> Array:
    """A row of the new model, of length 1 where mapped rows are."""
    unit = plan.normalize == "l2" or plan.strategy in ("dual", "expanded")
    return row / np.linalg.norm(row) if unit else row
