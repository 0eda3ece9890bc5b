"""PyTorch's .pt: one tensor, or a dict of tensors, found in the file by offset and never unpickled into memory."""

import re
import zipfile
from pickle import UnpicklingError
from typing import Any

import numpy as np

from ....aligners.errors import SutureError
from ..codec import Codec
from ..dump import Dump
from ..raw import ColumnMajorDump, RawDump
from .request import Request, choose

__all__ = ["open_pt"]


def open_pt(request: Request) -> Dump:
    """Open the tensor `(n, p)` of a .pt file, or the one `::key` names in a dict. Only tensors are ever loaded."""
    import torch

    request.without_ids()
    check_archive(request)
    loaded = load_without_data(request)
    tensors = {"": loaded} if isinstance(loaded, torch.Tensor) else loaded
    if not isinstance(tensors, dict):
        raise SutureError(f"{request.name}: expected a tensor or a dict of tensors, got {type(loaded).__name__}.")
    tensors = {str(key): value for key, value in tensors.items() if isinstance(value, torch.Tensor)}
    if isinstance(loaded, torch.Tensor):
        request.without_key()
    key = choose(request, {key: tuple(tensor.shape) for key, tensor in tensors.items()}, "tensor")
    tensor = tensors[key]
    rows, dim = tensor.shape
    strided = tensor.layout is torch.strided
    by_column = strided and not tensor.is_contiguous() and tensor.t().is_contiguous()
    if not strided or not (by_column or tensor.is_contiguous()):
        raise SutureError(
            f"{request.name}: expected a dense tensor without gaps, got {tensor.layout} with strides "
            f"{tensor.stride() if tensor.layout is torch.strided else 'of its own'}. Save tensor.contiguous()."
        )
    codec = codec_of(request, tensor.dtype)
    begin = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    if begin is None:
        raise SutureError(f"{request.name}: torch {torch.__version__} does not say where tensors begin. Update it.")
    offset = begin + int(tensor.storage_offset()) * codec.stored.itemsize
    kind = ColumnMajorDump if by_column else RawDump
    return kind(request.name, request.path, offset=offset, rows=rows, dim=dim, stored=codec)


def check_archive(request: Request) -> None:
    """SutureError unless the file is the zip that torch.save writes since version 1.6, in little-endian order."""
    if not zipfile.is_zipfile(request.path):
        raise SutureError(
            f"{request.name}: expected the zip format of torch.save (since torch 1.6), got another: a legacy or "
            "truncated file. Load it with torch.load and save it again."
        )
    with zipfile.ZipFile(request.path) as archive:
        orders = [archive.read(name) for name in archive.namelist() if name.endswith("/byteorder")]
    if orders and orders != [b"little"]:
        raise SutureError(f"{request.name}: expected little-endian tensors, got {orders}. Save them on this machine.")


def load_without_data(request: Request) -> Any:
    """What the file holds, its tensors with shapes and places but without their numbers."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with FakeTensorMode():
            return torch.load(request.path, weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        # What torch says of pickles is half advice to load them all the same; what was in the way stands near the end.
        named = re.search(r"GLOBAL (\S+)", str(error))
        first = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).partition("\n")[0]
        reason = f"an object that only unpickling would make ({named[1]})." if named else first
        raise SutureError(
            f"{request.name}: expected tensors that torch.load(weights_only=True) reads, got: {reason} "
            "Save the bare tensor: torch.save(torch.as_tensor(embeddings), path)."
        ) from error


def codec_of(request: Request, dtype: Any) -> Codec:
    """The codec of a torch dtype."""
    import torch

    if dtype is torch.bfloat16:
        return Codec(np.dtype("<u2"), bfloat16=True)
    try:
        stored = torch.empty(0, dtype=dtype).numpy().dtype
    except (TypeError, RuntimeError) as error:
        raise SutureError(f"{request.name}: expected floats or integers, got {dtype}. Convert the tensor.") from error
    return Codec.of(stored, request.name)
