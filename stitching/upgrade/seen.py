"""What was seen of the old gallery's rows: a hash of each, by which those that changed are told."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..dumps.arrays import Array
from ..stores import Batch
from ..stores.batch import canonical, records

__all__ = ["Seen", "changes"]


class Seen:
    """Ids and digests of the rows of one fragment."""

    def __init__(self) -> None:
        self._ids: list[Array] = []
        self._digests: list[Array] = []

    def add(self, batch: Batch) -> None:
        """Take a batch of the old gallery."""
        self._ids.append(batch.ids)
        self._digests.append(digests(batch))

    def arrays(self) -> tuple[Array, Array]:
        """Ids and digests ``(m,)``."""
        if not self._ids:
            return np.empty(0, np.int64), np.empty(0, np.uint64)
        return np.concatenate(self._ids), np.concatenate(self._digests)


def digests(batch: Batch) -> Array:
    """A 64-bit hash ``(m,)`` of each row: the upper half of its vector, the lower of its payload."""
    vectors = np.ascontiguousarray(batch.vectors)
    out = np.empty(len(batch), np.uint64)
    for i, row in enumerate(records(batch.payload, len(batch))):
        parts = (vectors[i].tobytes(), canonical(row).encode())
        halves = (hashlib.blake2b(part, digest_size=4).digest() for part in parts)
        out[i] = int.from_bytes(b"".join(halves), "big")
    return out


def changes(before: dict[Any, int], batches: Iterable[Batch], seen: Seen) -> Iterator[tuple[Batch, Array]]:
    """Rows that are new or changed against ``before``; with a mask ``(m,)`` of those whose vector changed."""
    for batch in batches:
        seen.add(batch)
        now = digests(batch)
        then = [before.get(key) for key in batch.ids.tolist()]
        odd = np.array([a != b for a, b in zip(then, now.tolist(), strict=True)], bool)
        if odd.any():
            moved = [a is not None and a >> 32 != b >> 32 for a, b in zip(then, now.tolist(), strict=True)]
            yield batch.keep(odd), np.array(moved, bool)[odd]
