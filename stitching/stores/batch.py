"""Rows on their way from one gallery to another: ids, vectors, payload and stamps side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..dumps.arrays import Array
from ..dumps.extras import need

__all__ = ["Batch", "Payload", "canonical", "joined", "records", "resized", "same_payload", "table"]

Payload = Any  # pyarrow.Table, a list of dicts, or None


@dataclass(frozen=True, eq=False)
class Batch:
    """``ids`` ``(m,)`` int64, uint64 or object of str; ``vectors`` ``(m, dim)``; ``payload`` of m rows, or None.

    ``stamps`` says which model made each row; None where the store keeps none.
    """

    ids: Array
    vectors: Array
    payload: Payload = None
    stamps: list[str | None] | None = None

    def __post_init__(self) -> None:
        if not self.vectors.flags.writeable:  # as Arrow lends them; torch takes no such array
            object.__setattr__(self, "vectors", self.vectors.copy())

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Array) -> Batch:
        """The rows with these numbers, in that order."""
        payload = self.payload
        if isinstance(payload, list):
            payload = [payload[i] for i in rows.tolist()]
        elif payload is not None:
            payload = payload.take(rows)
        stamps = None if self.stamps is None else [self.stamps[i] for i in rows.tolist()]
        return Batch(self.ids[rows], self.vectors[rows], payload, stamps)

    def slice(self, start: int, stop: int) -> Batch:
        """The rows from ``start`` to ``stop``, without a copy."""
        payload = self.payload
        if isinstance(payload, list):
            payload = payload[start:stop]
        elif payload is not None:
            payload = payload.slice(start, stop - start)
        stamps = None if self.stamps is None else self.stamps[start:stop]
        return Batch(self.ids[start:stop], self.vectors[start:stop], payload, stamps)

    def keep(self, mask: Array | None) -> Batch:
        """The rows where ``mask`` ``(m,)`` is true; all for None."""
        return self if mask is None else self.take(np.flatnonzero(mask))

    def with_vectors(self, vectors: Array, stamps: list[str | None] | None) -> Batch:
        """The same rows with other vectors."""
        return replace(self, vectors=vectors, stamps=stamps)


def records(payload: Payload, count: int) -> list[dict[str, Any]]:
    """A payload as one dict a row."""
    if payload is None:
        return [{} for _ in range(count)]
    return payload if isinstance(payload, list) else payload.to_pylist()


def table(payload: Payload, count: int) -> Any:
    """A payload as an Arrow table: its own columns, or JSON texts in one column ``payload`` where it has none."""
    pa = need("pyarrow", "arrow")
    if payload is None:
        return None
    if isinstance(payload, list):
        return pa.table({"payload": pa.array([canonical(row) for row in payload], pa.string())})
    return payload


def canonical(row: Any) -> str:
    """JSON with sorted keys: equal payloads have equal texts."""
    return json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)


def same_payload(a: Payload, b: Payload, count: int) -> Array:
    """Which of ``count`` rows ``(m,)`` have equal payloads, bit for bit."""
    tables = not (a is None or b is None or isinstance(a, list) or isinstance(b, list))
    if (a is None and b is None) or (tables and a.equals(b)):
        return np.ones(count, bool)
    pairs = zip(records(a, count), records(b, count), strict=True)
    return np.array([canonical(x) == canonical(y) for x, y in pairs], bool)


def joined(batches: Sequence[Batch]) -> Batch:
    """The rows of several batches, one after the other."""
    if len(batches) == 1:
        return batches[0]
    payload: Payload = None
    if isinstance(batches[0].payload, list):
        payload = [row for batch in batches for row in batch.payload]
    elif batches[0].payload is not None:
        payload = need("pyarrow", "arrow").concat_tables([batch.payload for batch in batches])
    stamps = None if batches[0].stamps is None else [s for batch in batches for s in batch.stamps or ()]
    ids = [batch.ids for batch in batches]
    return Batch(np.concatenate(ids), np.concatenate([batch.vectors for batch in batches]), payload, stamps)


def resized(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The same rows in batches of exactly ``size``, but the last: what is multiplied must not depend on the reader."""
    held: list[Batch] = []
    count = 0
    for batch in batches:
        while len(batch):
            part = batch.slice(0, size - count)
            held.append(part)
            count += len(part)
            batch = batch.slice(len(part), len(batch))
            if count == size:
                yield joined(held)
                held, count = [], 0
    if held:
        yield joined(held)
