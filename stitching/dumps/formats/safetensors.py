"""Safetensors: eight bytes of length, a JSON header, then every tensor row by row."""

import json
from typing import Any, BinaryIO

import numpy as np

from ....aligners.errors import SutureError
from ..arrays import Array
from ..codec import Codec
from ..dump import Dump
from ..ids import IdKind
from ..raw import RawDump, check_size
from .request import Request, choose
from .sinks import Sink

__all__ = ["SafetensorsSink", "open_safetensors"]

CODECS = {
    "BF16": Codec(np.dtype("<u2"), bfloat16=True),
    **{name: Codec(np.dtype(f"<{name[0].lower()}{int(name[1:]) // 8}")) for name in ("F16", "F32", "F64")},
    **{f"{kind}{8 * size}": Codec(np.dtype(f"<{kind.lower()}{size}")) for kind in "IU" for size in (1, 2, 4, 8)},
}
NAMES = {codec.stored: name for name, codec in CODECS.items() if not codec.bfloat16}
LONGEST_HEADER = 100_000_000  # the limit of the reference implementation


def open_safetensors(request: Request) -> Dump:
    """Open the only 2-D tensor of a .safetensors file, or the one `::key` names."""
    request.without_ids()
    tensors, begin = read_header(request)
    try:
        shapes = {key: tuple(int(extent) for extent in tensor["shape"]) for key, tensor in tensors.items()}
        key = choose(request, shapes, "tensor")
        kind = tensors[key]["dtype"]
        first, last = (int(offset) for offset in tensors[key]["data_offsets"])
    except (KeyError, TypeError) as error:
        raise SutureError(
            f"{request.path}: its header is not one of safetensors ({error!r}). Save it again."
        ) from error
    if kind not in CODECS:
        raise SutureError(f"{request.name}: expected numbers of {', '.join(CODECS)}, got {kind}. Convert the tensor.")
    rows, dim = shapes[key]
    dump = RawDump(request.name, request.path, offset=begin + first, rows=rows, dim=dim, stored=CODECS[kind])
    if last - first != rows * dim * CODECS[kind].stored.itemsize:
        raise SutureError(f"{request.name}: {last - first} bytes do not make ({rows}, {dim}) of {kind}. Save it again.")
    return dump


def end_of(tensors: dict[str, Any], begin: int) -> int:
    """The length that the file must have to hold all ``tensors``, whichever of them is asked for."""
    entries = [value for key, value in tensors.items() if key != "__metadata__"]
    try:
        return begin + max((int(entry["data_offsets"][1]) for entry in entries), default=0)
    except (KeyError, TypeError, IndexError, ValueError):
        return begin  # what is wrong with the entry is said where it is read


def read_header(request: Request) -> tuple[dict[str, Any], int]:
    """The tensors by name, and where their bytes begin."""
    with request.path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(min(length, LONGEST_HEADER))
    try:
        tensors = json.loads(text)
        if len(text) != length or not isinstance(tensors, dict):
            raise ValueError(f"{len(text)} of {length} header bytes")
    except ValueError as error:
        raise SutureError(f"{request.path}: not a safetensors file, or cut within its header ({error}).") from error
    check_size(request.path.name, request.path, end_of(tensors, 8 + length))
    tensors.pop("__metadata__", None)
    return tensors, 8 + length


class SafetensorsSink(Sink):
    """Writes one tensor `embeddings` behind a header of fixed length, filled in at the end."""

    holds_ids = False
    header_bytes = 248  # with the 8 bytes before it the tensor begins at 256, aligned for every dtype

    def __init__(self, file: BinaryIO, dim: int, dtype: np.dtype, id_kind: IdKind | None) -> None:
        self._file = file
        self._dim = dim
        self._dtype = dtype
        file.write(self._header(0))

    def write(self, block: Array, ids: Array | None) -> None:
        """Append a block `(m, dim)`."""
        self._file.write(block.data)

    def finish(self, rows: int) -> None:
        """Put the shape into the header."""
        self._file.seek(0)
        self._file.write(self._header(rows))

    def _header(self, rows: int) -> bytes:
        offsets = [0, rows * self._dim * self._dtype.itemsize]
        tensor = {"dtype": NAMES[self._dtype], "shape": [rows, self._dim], "data_offsets": offsets}
        text = json.dumps({"embeddings": tensor}).encode().ljust(self.header_bytes)
        return len(text).to_bytes(8, "little") + text
