"""faiss index files. Vectors are taken from the inner index, never by the calls that abort the process."""

from __future__ import annotations

import hashlib
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

__all__ = ["FaissStore", "bridged", "holds"]

# How far what comes back is from what went in; an index that is in neither list keeps no vectors that can be read.
EXACT = ("IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexHNSWFlat", "IndexIVFFlat", "IndexIVFFlatDedup")
LOSSY = (
    "IndexScalarQuantizer",
    "IndexHNSWSQ",
    "IndexIVFScalarQuantizer",
    "IndexPQ",
    "IndexIVFPQ",
    "IndexHNSWPQ",
    "IndexPQFastScan",
    "IndexIVFPQFastScan",
)


class FaissStore(IndexStore):
    """``faiss:index.faiss``. The new index is HNSW or IVF where the old one is, else flat."""

    def open_index(self) -> Any:
        """Read the file; `SutureError` where it is none."""
        if not self.path.is_file():
            raise SutureError(f"{self.path}: expected a faiss index, there is no such file.")
        try:
            return mapped_index(self.path)
        except RuntimeError as error:
            raise SutureError(f"{self.path}: not a faiss index that this faiss reads ({error}).") from error

    def index_facts(self, index: Any) -> Facts:
        """Width, metric and kind; `RefusedError` for an index that keeps no vectors."""
        faiss = need("faiss", "faiss")
        inner, _, done = taken_apart(index)
        name = type(inner).__name__
        if name not in EXACT + LOSSY:
            raise RefusedError(f"{self.path}: {name} does not give its vectors back; use the dump it was built from.")
        metrics = {faiss.METRIC_INNER_PRODUCT: "dot", faiss.METRIC_L2: "l2"}
        if index.metric_type not in metrics:
            raise RefusedError(f"{self.path}: expected inner product or L2, got faiss metric {index.metric_type}.")
        losses = [why for why in map(undoable, done) if why is not None]
        if any(why.endswith("undone") for why in losses):
            raise RefusedError(
                f"{self.path}: {losses[0]}, so it does not give its vectors back. Name the index inside."
            )
        losses += [] if name in EXACT else [f"{name} compresses its vectors"]
        lossy = losses[0] if losses else None
        return Facts(
            rows=int(index.ntotal),
            dim=int(index.d),
            dtype="float32",
            metric=metrics[index.metric_type],
            exact=lossy is None,
            lossy=lossy,
            index=name,
        )

    def index_rows(self, index: Any, start: int, stop: int) -> tuple[Array, Array]:
        """``reconstruct_n`` of the inner index.

        On an IndexIDMap it raises inside an OpenMP region, which ends the process (faiss-cpu 1.15.1);
        an IVF index looks rows up by id there, so its lists are read instead.
        """
        faiss = need("faiss", "faiss")
        inner, names, done = taken_apart(index)
        ids: Array = np.arange(start, stop)
        if isinstance(inner, faiss.IndexIVF):
            ids, rows = ivf_rows(inner, start, stop)
        else:
            rows = inner.reconstruct_n(start, stop - start)
        for transform in reversed(done):
            rows = transform.reverse_transform(as_float32(rows))
        return (ids if names is None else names[ids]), rows

    def build(self, spec: Spec, rows: int, batches: Iterator[Batch], path: Path) -> None:
        """An index with ids, in the kind and metric of the old one."""
        faiss = need("faiss", "faiss")
        metric = faiss.METRIC_L2 if spec.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        made = like(spec, metric, rows)
        reserve(made, rows)
        index = faiss.IndexIDMap2(made)
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


def mapped_index(path: Path | str) -> Any:
    """The index in a file, whose vectors and links stay there until they are asked for: they take no memory."""
    faiss = need("faiss", "faiss")
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def taken_apart(index: Any) -> tuple[Any, Array | None, list[Any]]:
    """The index that holds the vectors; the ids of its positions, None where these are their numbers; and what was
    done to vectors before they came into it.
    """
    faiss = need("faiss", "faiss")
    names: Array | None = None
    done: list[Any] = []
    while True:
        if isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
            names = faiss.vector_to_array(index.id_map).copy()
        elif isinstance(index, faiss.IndexPreTransform):
            done += [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
        else:
            break
        index = faiss.downcast_index(index.index)
    if isinstance(index, faiss.IndexRefineFlat):
        index = faiss.downcast_index(index.refine_index)
    return index, names, done


def undoable(transform: Any) -> str | None:
    """Why vectors do not come back through a transform: None where they do, but for rounding.

    faiss calls every linear transform that it has read from a file orthonormal (1.15.1), so this is looked at here.
    """
    name, p, q = type(transform).__name__, transform.d_in, transform.d_out
    if name in ("NormalizationTransform", "CenteringTransform"):
        return None
    numbers = need("faiss", "faiss").vector_to_array(transform.A) if hasattr(transform, "A") else np.zeros(p * q)
    matrix = numbers.reshape(q, p).astype(np.float64)
    product = matrix @ matrix.T if q < p else matrix.T @ matrix
    if not np.allclose(product, np.eye(min(p, q)), atol=1e-4):
        return f"{name} from {p} to {q} dims cannot be undone"
    return None if q >= p else f"{name} from {p} to {q} dims drops what does not fit"


def bridged(index: Any, weight: Array, bias: Array, *, unit: bool) -> Any:
    """The index behind a map of its queries ``x @ weight + bias``, to length 1 where ``unit``; its rows stay."""
    faiss = need("faiss", "faiss")
    wide, narrow = weight.shape
    out = faiss.IndexPreTransform(index)
    if unit:
        out.prepend_transform(faiss.NormalizationTransform(narrow, 2.0))
    linear = faiss.LinearTransform(wide, narrow, True)
    faiss.copy_array_to_vector(as_float32(weight.T).ravel(), linear.A)
    faiss.copy_array_to_vector(as_float32(bias), linear.b)
    linear.is_trained = True
    out.prepend_transform(linear)
    return out


def holds(outer: Any, inner: Any) -> bool:
    """Whether ``outer`` is a transform before the very index ``inner``, bit for bit as it would be written."""
    faiss = need("faiss", "faiss")
    hashes = []
    for index in (faiss.downcast_index(outer.index), inner):
        digest = hashlib.sha256()

        def take(data: bytes, digest: Any = digest) -> int:
            digest.update(data)
            return len(data)

        faiss.write_index(index, faiss.PyCallbackIOWriter(take))
        hashes.append(digest.hexdigest())
    return hashes[0] == hashes[1]


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
        whole = mapped_index(spec.source.removeprefix("faiss:"))  # freed too early, it takes its parts along
        old, _, _ = taken_apart(whole)
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


def reserve(index: Any, rows: int) -> None:
    """Take the memory of ``rows`` vectors at once: an index that grows by itself holds them twice at times."""
    faiss = need("faiss", "faiss")
    flat = faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index
    if isinstance(flat, faiss.IndexFlat):
        flat.codes.resize(rows * flat.code_size)
        flat.codes.resize(0)


def index_lists(index: Any) -> int:
    """How many lists an index has to be trained for."""
    return int(getattr(need("faiss", "faiss").downcast_index(index.index), "nlist", 1))
