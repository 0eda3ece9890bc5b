"""HDF5: .h5 and .hdf5 with their datasets, and the .h5ad of single-cell biology."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from ....aligners.errors import SutureError
from ..arrays import Array, Rows, runs
from ..codec import Codec
from ..dump import Dump
from ..extras import need
from ..ids import IdColumn, IdKind, as_int64, id_array
from .request import Request, choose, choose_ids
from .sinks import Sink

__all__ = ["H5Dump", "H5Sink", "open_h5", "open_h5ad"]

ID_CHUNK = 8192
GAP, LONGEST = 16, 4096  # rows; HDF5 reads whole chunks anyway


def open_file(path: Path) -> Any:
    """The file, opened for reading; SutureError if it is not HDF5."""
    try:
        return need("h5py", "h5").File(path, "r")
    except OSError as error:
        raise SutureError(f"{path}: cannot be read as HDF5 ({error}). It is truncated or of another format.") from error


def shapes_of(file: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of all datasets by their path in the file."""
    h5py = need("h5py", "h5")
    shapes: dict[str, tuple[int, ...]] = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.shape is not None:
            shapes[name] = node.shape

    file.visititems(visit)
    return shapes


def open_h5(request: Request) -> Dump:
    """Open the only 2-D dataset, or the one `::key` names; a 1-D dataset `id` or `ids` holds the ids."""
    with open_file(request.path) as file:
        shapes = shapes_of(file)
        dump = H5Dump(request.name, request.path, file[choose(request, shapes, "dataset")])
        id_key = choose_ids(request, shapes, "1-D dataset")
        if id_key is not None:
            dump.ids = h5_ids(request.path, file[id_key])
    return dump


def open_h5ad(request: Request) -> Dump:
    """Open an embedding of AnnData: the only one in obsm, `::[obsm/]X_pca`, or `::X`; obs_names are the ids."""
    with open_file(request.path) as file:
        shapes = shapes_of(file)
        if request.key is not None:
            request = replace(request, key=request.key.removeprefix("obsm/"))
        known = {key.removeprefix("obsm/"): shape for key, shape in shapes.items() if key.startswith("obsm/")}
        if request.key == "X" and "X" in shapes:
            known["X"] = shapes["X"]
        key = choose(request, known, "embedding in obsm")
        dump = H5Dump(request.name, request.path, file[key if key == "X" else f"obsm/{key}"])
        if not request.own_ids:
            return dump
        names = request.id_column or file["obs"].attrs.get("_index", "_index")
        if f"obs/{names}" not in shapes:
            raise SutureError(f"{request.path}: expected the ids in obs/{names}, there is no such dataset.")
        dump.ids = h5_ids(request.path, file[f"obs/{names}"])
    return dump


class H5Dump(Dump):
    """A 2-D dataset, chunked or not, compressed or not."""

    def __init__(self, name: str, path: Path, dataset: Any) -> None:
        h5py = need("h5py", "h5")
        if h5py.check_enum_dtype(dataset.dtype) is not None:
            raise SutureError(f"{name}: expected floats or integers, got the enumeration {dataset.dtype}.")
        codec = Codec.of(dataset.dtype, name)
        rows, dim = dataset.shape
        super().__init__(name, path, rows, dim, codec.dtype)
        self._key = dataset.name

    def _stream(self, size: int, start: int, stop: int) -> Iterator[Array]:
        buffer = np.empty((min(size, stop - start), self.dim), self.dtype)
        with open_file(self.path) as file:
            for first in range(start, stop, size):
                block = buffer[: min(size, stop - first)]
                self._read(file, first, block)
                yield block

    def _gather(self, rows: Rows, out: Array) -> None:
        span = np.empty((min(LONGEST, self.rows), self.dim), self.dtype)
        with open_file(self.path) as file:
            for a, b, first, stop in runs(rows, GAP, len(span)):
                block = span[: stop - first]
                self._read(file, first, block)
                np.take(block, rows[a:b] - first, axis=0, out=out[a:b], mode="clip")

    def _read(self, file: Any, first: int, block: Array) -> None:
        try:
            file[self._key].read_direct(block, np.s_[first : first + len(block)])
        except OSError as error:
            raise SutureError(
                f"{self.name}: row {first} and on cannot be read ({error}). The file is damaged."
            ) from error


def h5_ids(path: Path, dataset: Any) -> IdColumn:
    """Ids `(n,)` from a 1-D dataset of integers or strings."""
    key, rows, dtype = dataset.name, dataset.shape[0], dataset.dtype
    text = need("h5py", "h5").check_string_dtype(dtype) is not None
    name = f"{path}::{key.removeprefix('/')}"
    if not text and dtype.kind not in "iu":
        raise SutureError(f"{name}: expected ids that are integers or strings, got dtype {dtype}.")

    def chunks() -> Iterator[Array]:
        with open_file(path) as file:
            for first in range(0, rows, ID_CHUNK):
                part = np.s_[first : first + ID_CHUNK]
                if text:
                    yield id_array(file[key].asstr()[part].tolist(), name)
                else:
                    yield file[key][part].astype(dtype.newbyteorder("="), copy=False)

    return IdColumn(name, rows, "str" if text else "int", chunks)


class H5Sink(Sink):
    """Writes the datasets `embeddings` and, with ids, `ids`, growing in chunks of about a megabyte."""

    names: ClassVar[tuple[str, str]] = ("embeddings", "ids")

    holds_ids = True

    def __init__(self, file: BinaryIO, dim: int, dtype: np.dtype, id_kind: IdKind | None) -> None:
        h5py = need("h5py", "h5")
        rows = max(1, (1 << 20) // (dim * dtype.itemsize))
        self._file = h5py.File(file.name, "w")
        self._vectors = self._file.create_dataset(
            self.names[0], (0, dim), dtype, maxshape=(None, dim), chunks=(rows, dim)
        )
        self._ids = None
        if id_kind is not None:
            kind = h5py.string_dtype() if id_kind == "str" else np.int64
            self._ids = self._file.create_dataset(self.names[1], (0,), kind, maxshape=(None,), chunks=(ID_CHUNK,))

    def write(self, block: Array, ids: Array | None) -> None:
        """Append a block `(m, dim)` and its ids `(m,)`."""
        rows = len(self._vectors)
        self._vectors.resize(rows + len(block), axis=0)
        self._vectors[rows:] = block
        if self._ids is not None and ids is not None:
            self._ids.resize(rows + len(block), axis=0)
            self._ids[rows:] = ids.astype(object) if ids.dtype.kind == "U" else as_int64(ids)

    def finish(self, rows: int) -> None:
        """Close the HDF5 file, which completes it."""
        self._file.close()

    def abandon(self) -> None:
        """Close the HDF5 file."""
        self._file.close()
