"""Whether every id stands once, for galleries of any size: hashes are sorted on the disk, bucket by bucket."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from ..dumps.arrays import Array
from ..dumps.ids import hash_ids

__all__ = ["SeenIds"]

BUCKETS = 64


class SeenIds:
    """Hashes of ids, 8 bytes each, in temporary files; use it as a context manager. Memory: a bucket at a time."""

    def __enter__(self) -> SeenIds:
        self._folder = tempfile.TemporaryDirectory(prefix="suture-ids-")
        self._files = [(Path(self._folder.name) / f"{i:02d}").open("w+b") for i in range(BUCKETS)]
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()
        self._folder.cleanup()

    def add(self, ids: Array) -> Array:
        """Take ids; their hashes ``(m,)``."""
        hashes = hash_ids(ids)
        bucket = (hashes >> np.uint64(58)).astype(np.int64)
        order = np.argsort(bucket, kind="stable")
        edges = np.searchsorted(bucket[order], np.arange(BUCKETS + 1))
        ordered = hashes[order]
        for i in np.flatnonzero(np.diff(edges)).tolist():
            self._files[i].write(ordered[edges[i] : edges[i + 1]].tobytes())
        return hashes

    def repeated(self) -> Array:
        """Hashes that came more than once."""
        found = []
        for file in self._files:
            file.seek(0)
            values, counts = np.unique(np.frombuffer(file.read(), np.uint64), return_counts=True)
            found.append(values[counts > 1])
        return np.concatenate(found)
