"""hnswlib index files. They say neither their width nor their space, so the address must."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...aligners.errors import RefusedError, SutureError, UsageError
from ..dumps.arrays import Array
from .address import Address
from .batch import Batch
from .staged import IndexStore, as_float32
from .store import Facts, Spec

__all__ = ["HnswlibStore"]

METRICS = {"cosine": "cosine", "ip": "dot", "l2": "l2"}


def library() -> Any:
    """hnswlib, which comes as source and is in no extra for that reason."""
    try:
        import hnswlib
    except ImportError as error:
        raise SutureError(
            "this index needs hnswlib: pip install hnswlib (it is compiled, with a C++ compiler)"
        ) from error
    return hnswlib


class HnswlibStore(IndexStore):
    """``hnswlib:file.hnsw?dim=384&space=ip``; hnswlib itself opens a file with a wrong ``dim`` without an error."""

    options = ("dim", "space")

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.space = address.options.get("space", "cosine")
        if self.space not in METRICS:
            raise UsageError(f"'{address.text}': expected ?space= to be one of {', '.join(METRICS)}.")

    def open_index(self) -> Any:
        """Read the file, having compared the width with what its header says of the size of an element."""
        if not self.path.is_file():
            raise SutureError(f"{self.path}: expected an hnswlib index, there is no such file.")
        dim = self.address.options.get("dim") or (self.spec_dim() if self.described.exists() else None)
        if dim is None or not str(dim).isdigit():
            raise UsageError(f"'{self.address.text}': hnswlib files do not say their width: add ?dim=NUMBER.")
        with self.path.open("rb") as file:
            words = np.frombuffer(file.read(48), np.uint64)
        if len(words) < 6 or int(words[4]) - int(words[5]) != int(dim) * 4:
            held = (int(words[4]) - int(words[5])) / 4 if len(words) == 6 else "unreadable"
            raise RefusedError(f"{self.path}: expected vectors of {dim} dims, the file has {held:g}. Correct ?dim=.")
        index = library().Index(self.space, int(dim))
        index.load_index(str(self.path))
        return index

    def spec_dim(self) -> int:
        """The width of an index that suture made: that of its parts."""
        return self.parts.facts().dim

    def index_facts(self, index: Any) -> Facts:
        """As the address says; cosine spaces keep rows at length 1."""
        return Facts(
            rows=int(index.get_current_count()),
            dim=int(index.dim),
            dtype="float32",
            metric=METRICS[self.space],
            index="HNSW",
        )

    @cached_property
    def keys(self) -> Array:
        """All labels in order."""
        return np.sort(np.array(self.index.get_ids_list(), np.uint64))

    def index_rows(self, index: Any, start: int, stop: int) -> tuple[Array, Array]:
        """By label."""
        keys = self.keys[start:stop]
        return keys, np.array(index.get_items(keys), np.float32)

    def build(self, spec: Spec, rows: int, batches: Iterator[Batch], path: Path) -> None:
        """By one thread in the order of the parts: equal rows give equal files."""
        space = {ours: theirs for theirs, ours in METRICS.items()}[spec.metric]
        if space != self.space:
            raise UsageError(
                f"'{self.address.text}': the old gallery is compared by {spec.metric}: add ?space={space}."
            )
        index = library().Index(space, spec.dim)
        index.init_index(max_elements=rows, ef_construction=200, M=16, random_seed=100)
        for batch in batches:
            index.add_items(as_float32(batch.vectors), batch.ids.astype(np.uint64), num_threads=1)
        index.save_index(str(path))

    def search(self, queries: Array, k: int) -> list[list[Any]]:
        """By the index."""
        self.index.set_ef(max(4 * k, 64))
        found, _ = self.index.knn_query(as_float32(queries), k)
        ids: list[list[Any]] = found.tolist()
        return ids
