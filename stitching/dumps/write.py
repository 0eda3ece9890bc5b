"""Writing embeddings: whole files or none, block by block, ids beside the vectors or in a sidecar."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from ...aligners.errors import RefusedError, SutureError, UsageError
from .arrays import Array
from .atomic import Writeback, atomic_write
from .codec import FLOATS
from .formats import SINKS
from .formats.sinks import Sink
from .ids import IdKind

__all__ = ["Writer", "open_writer"]


class Writer:
    """Takes blocks `(m, dim)` of `dtype`. After the context: `rows` written, and `ids_path` of their sidecar if any."""

    def __init__(
        self,
        sink: Sink,
        dim: int,
        dtype: np.dtype,
        id_kind: IdKind | None,
        ids_path: Path | None,
        sidecar: BinaryIO | None,
        writeback: Writeback,
    ) -> None:
        self.dim = dim
        self.dtype = dtype
        self.rows = 0
        self.id_kind = id_kind
        self.ids_path = ids_path
        self._sink = sink
        self._sidecar = sidecar
        self._writeback = writeback

    def write(self, block: Array, ids: Array | None = None) -> None:
        """Append rows `(m, dim)` and, where the writer was opened with an id kind, their ids `(m,)`."""
        if block.ndim != 2 or block.shape[1] != self.dim or block.dtype != self.dtype:
            raise SutureError(f"expected blocks (m, {self.dim}) of {self.dtype}, got {block.shape} of {block.dtype}.")
        kind = None if ids is None else "int" if ids.dtype.kind in "iu" else "str"
        if kind != self.id_kind or (ids is not None and ids.shape != block.shape[:1]):
            got = "none" if ids is None else f"{ids.shape} of {kind}"
            raise SutureError(f"expected ids of kind {self.id_kind}, one for each of {len(block)} rows, got {got}.")
        self._sink.write(np.ascontiguousarray(block), None if self._sidecar else ids)
        if self._sidecar is not None and ids is not None:
            lines = (json.dumps(value, ensure_ascii=False) + "\n" for value in ids.tolist())
            self._sidecar.write("".join(lines).encode())
        self._writeback.step()
        self.rows += len(block)


@contextmanager
def open_writer(
    path: str | Path,
    dim: int,
    dtype: DTypeLike,
    *,
    id_kind: IdKind | None = None,
    overwrite: bool = False,
) -> Iterator[Writer]:
    """Write embeddings `(n, dim)` to .npy, .safetensors, .parquet, .h5, .fvecs or .jsonl, block by block.

    The file appears whole at the end of the context; on an exception nothing is left and an older file is untouched.
    Formats that cannot hold ids get them in a sidecar `<stem>.ids.jsonl`, to be read with --ids, which appears first.
    RefusedError if the target exists and `overwrite` is False, or the format cannot hold `dtype`; UsageError for an
    unknown suffix; SutureError if no row was written.
    """
    path = Path(path)
    kind = np.dtype(dtype)
    if path.suffix.lower() not in SINKS:
        raise UsageError(f"{path}: expected one of {', '.join(SINKS)}; this suffix is not written.")
    if kind not in FLOATS or dim < 1:
        raise SutureError(f"{path}: expected float16, float32 or float64 and dim >= 1, got {kind} and {dim}.")
    make = SINKS[path.suffix.lower()]
    ids_path: Path | None = path.with_name(f"{path.stem}.ids.jsonl")
    if make.holds_ids or id_kind is None:
        if not make.holds_ids and ids_path is not None and ids_path.exists():
            raise RefusedError(
                f"{ids_path} would stand beside {path.name}, which has no ids: they are of another dump. "
                "Remove it, or write under another name."
            )
        ids_path = None
    with ExitStack() as exits:
        # Left in reverse order: the ids appear first, the vectors last.
        file = exits.enter_context(atomic_write(path, overwrite))
        sidecar = None if ids_path is None else exits.enter_context(atomic_write(ids_path, overwrite))
        sink = make(file, dim, kind, id_kind)
        writer = Writer(sink, dim, kind, id_kind, ids_path, sidecar, Writeback(file))
        try:
            yield writer
            if not writer.rows:
                raise SutureError(f"{path}: expected at least one row to write, got none.")
            sink.finish(writer.rows)
        except BaseException:
            sink.abandon()
            raise
