"""faiss index files. Vectors are taken from the inner index, never by the calls that abort the process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...aligners.errors import RefusedError, SutureError
from ..dumps.arrays import Array
from ..dumps.extras import need
from .batch import Batch
from .staged import IndexStore, as_float32
from .store import Facts, Spec

__all__ = ["FaissStore"]

# How far what comes back is from what went in; an index that is in neither list keeps no vectors that can be read.
EXACT = ("IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexHNSWFlat", "IndexIVFFlat", "IndexIVFFlatDedup")
LOSSY = (
    "IndexScalarQuantizer",
    "IndexHNSWSQ",
    "IndexIVFScalarQuantizer",
    "IndexPQ",
    "IndexIVFPQ",
    "IndexHNSWPQ",
    "IndexPreTransform",
    "IndexPQFastScan",
    "IndexIVFPQFastScan",
)


class FaissStore(IndexStore):
    """``faiss:index.faiss``. The new index is HNSW or IVF where the old one is, else flat."""

    def open_index(self) -> Any:
        """Read the file; `SutureError` where it is none."""
        faiss = need("faiss", "faiss")
        if not self.path.is_file():
            raise SutureError(f"{self.path}: expected a faiss index, there is no such file.")
        try:
            return faiss.read_index(str(self.path))
        except RuntimeError as error:
            raise SutureError(f"{self.path}: not a faiss index that this faiss reads ({error}).") from error

    def index_facts(self, index: Any) -> Facts:
        """Width, metric and kind; `RefusedError` for an index that keeps no vectors."""
        faiss = need("faiss", "faiss")
        inner, _ = taken_apart(index)
        name = type(inner).__name__
        if name not in EXACT + LOSSY:
            raise RefusedError(f"{self.path}: {name} does not give its vectors back; use the dump it was built from.")
        metrics = {faiss.METRIC_INNER_PRODUCT: "dot", faiss.METRIC_L2: "l2"}
        if index.metric_type not in metrics:
            raise RefusedError(f"{self.path}: expected inner product or L2, got faiss metric {index.metric_type}.")
        lossy = None if name in EXACT else f"{name} compresses its vectors"
        return Facts(
            rows=int(index.ntotal),
            dim=int(index.d),
            dtype="float32",
            metric=metrics[index.metric_type],
            exact=name in EXACT,
            lossy=lossy,
            index=name,
        )

    def index_rows(self, index: Any, start: int, stop: int) -> tuple[Array, Array]:
        """``reconstruct_n`` of the inner index.

        On an IndexIDMap it raises inside an OpenMP region, which ends the process (faiss-cpu 1.15.1);
        an IVF index looks rows up by id there, so its lists are read instead.
        """
        faiss = need("faiss", "faiss")
        inner, names = taken_apart(index)
        if isinstance(inner, faiss.IndexIVF):
            ids, rows = ivf_rows(inner, start, stop)
            return (ids if names is None else names[ids]), rows
        rows = inner.reconstruct_n(start, stop - start)
        return (np.arange(start, stop) if names is None else names[start:stop]), rows

    def build(self, spec: Spec, rows: int, batches: Iterator[Batch], path: Path) -> None:
        """An index with ids, in the kind and metric of the old one."""
        faiss = need("faiss", "faiss")
        metric = faiss.METRIC_L2 if spec.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexIDMap2(like(spec, metric, rows))
        held = list[Batch]()
        for batch in batches:
            if not index.is_trained:
                held.append(batch)
                if sum(map(len, held)) < min(rows, 64 * index_lists(index)):
                    continue
                index.train(as_float32(np.concatenate([b.vectors for b in held])))
                for each in held:
                    index.add_with_ids(as_float32(each.vectors), each.ids.astype(np.int64))
                held = []
                continue
            index.add_with_ids(as_float32(batch.vectors), batch.ids.astype(np.int64))
        faiss.write_index(index, str(path))

    def search(self, queries: Array, k: int) -> list[list[Any]]:
        """By the index."""
        _, found = self.index.search(as_float32(queries), k)
        ids: list[list[Any]] = found.tolist()
        return ids


def taken_apart(index: Any) -> tuple[Any, Array | None]:
    """The index that holds the vectors, and the ids of its positions; None where these are their numbers."""
    faiss = need("faiss", "faiss")
    names: Array | None = None
    while isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
        names = faiss.vector_to_array(index.id_map).copy()
        index = faiss.downcast_index(index.index)
    if isinstance(index, faiss.IndexRefineFlat):
        index = faiss.downcast_index(index.refine_index)
    return index, names


def ivf_rows(index: Any, start: int, stop: int) -> tuple[Array, Array]:
    """Ids and vectors at positions ``start`` to ``stop`` of the inverted lists, one list after the other."""
    faiss = need("faiss", "faiss")
    lists = index.invlists
    sizes = np.array([lists.list_size(i) for i in range(index.nlist)])
    edges = np.concatenate([[0], np.cumsum(sizes)])
    ids, rows = [], []
    for i in range(int(np.searchsorted(edges, start, "right")) - 1, index.nlist):
        first, last = max(start - edges[i], 0), min(stop - edges[i], sizes[i])
        if edges[i] >= stop:
            break
        if first >= last:
            continue
        ids.append(faiss.rev_swig_ptr(lists.get_ids(i), int(sizes[i]))[first:last].copy())
        found = np.empty((last - first, index.d), np.float32)
        for j in range(first, last):
            index.reconstruct_from_offset(i, int(j), faiss.swig_ptr(found[j - first]))
        rows.append(found)
    return np.concatenate(ids), np.concatenate(rows)


def like(spec: Spec, metric: int, rows: int) -> Any:
    """An empty index of the kind that the old one has."""
    faiss = need("faiss", "faiss")
    if spec.source.startswith("faiss:"):
        old, _ = taken_apart(faiss.read_index(spec.source.removeprefix("faiss:")))
        if isinstance(old, faiss.IndexHNSW):
            index = faiss.IndexHNSWFlat(spec.dim, old.hnsw.nb_neighbors(1), metric)
            index.hnsw.efConstruction, index.hnsw.efSearch = old.hnsw.efConstruction, old.hnsw.efSearch
            return index
        if isinstance(old, faiss.IndexIVF):
            coarse = faiss.IndexFlat(spec.dim, metric)
            index = faiss.IndexIVFFlat(coarse, spec.dim, min(old.nlist, max(rows // 40, 1)), metric)
            index.nprobe = old.nprobe
            index.own_fields, _ = True, coarse.this.disown()
            return index
    return faiss.IndexFlat(spec.dim, metric)


def index_lists(index: Any) -> int:
    """How many lists an index has to be trained for."""
    return int(getattr(need("faiss", "faiss").downcast_index(index.index), "nlist", 1))
