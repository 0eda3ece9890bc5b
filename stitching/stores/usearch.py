"""usearch index files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...aligners.errors import RefusedError, SutureError
from ..dumps.arrays import Array
from ..dumps.extras import need
from .batch import Batch
from .staged import IndexStore, as_float32
from .store import Facts, Spec

__all__ = ["UsearchStore"]

METRICS = {"Cos": "cosine", "IP": "dot", "L2sq": "l2"}
KEPT = {"F64": "float64", "F32": "float32", "F16": "float16"}


class UsearchStore(IndexStore):
    """``usearch:file.usearch``; unsigned 64-bit keys, one vector a key."""

    def open_index(self) -> Any:
        """Read the file; `SutureError` where it is none."""
        if not self.path.is_file():
            raise SutureError(f"{self.path}: expected a usearch index, there is no such file.")
        index = need("usearch.index", "usearch").Index.restore(str(self.path))
        if index is None:
            raise SutureError(f"{self.path}: not a usearch index.")
        return index

    def index_facts(self, index: Any) -> Facts:
        """Width, metric and type; `RefusedError` for several vectors a key and for metrics of no known meaning."""
        metric, kept = index.metric_kind.name, index.dtype.name
        if index.multi or metric not in METRICS:
            raise RefusedError(f"{self.path}: expected one vector a key and one of {', '.join(METRICS)}, got {metric}.")
        lossy = None if kept in KEPT else f"this index keeps its vectors as {kept}"
        return Facts(
            rows=len(index),
            dim=index.ndim,
            dtype=KEPT.get(kept, "float32"),
            metric=METRICS[metric],
            exact=lossy is None,
            lossy=lossy,
            index="usearch",
        )

    @cached_property
    def keys(self) -> Array:
        """All keys in order: the index gives them in any."""
        return np.sort(np.asarray(self.index.keys))

    def index_rows(self, index: Any, start: int, stop: int) -> tuple[Array, Array]:
        """By key, in the order of keys."""
        keys = self.keys[start:stop]
        return keys, np.stack([np.asarray(index.get(int(key))) for key in keys])

    def build(self, spec: Spec, rows: int, batches: Iterator[Batch], path: Path) -> None:
        """In the order of the parts, by one thread: equal rows give equal files."""
        usearch = need("usearch.index", "usearch")
        metric = {theirs: ours for ours, theirs in METRICS.items()}[spec.metric]
        index = usearch.Index(ndim=spec.dim, metric=getattr(usearch.MetricKind, metric), dtype=KEEP[spec.dtype])
        for batch in batches:
            index.add(batch.ids.astype(np.uint64), np.ascontiguousarray(batch.vectors), threads=1)
        index.save(str(path))

    def search(self, queries: Array, k: int) -> list[list[Any]]:
        """By the index."""
        found = self.index.search(as_float32(queries), k)
        return [row.keys.tolist() for row in found]


KEEP = {"float64": "f64", "float32": "f32", "float16": "f16"}
