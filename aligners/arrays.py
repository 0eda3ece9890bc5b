"""The border between numpy and torch: numpy in, numpy out; tensor in, tensor out."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from .errors import SutureError

__all__ = ["Array", "as_matrix", "as_tensor", "row_norms", "through"]

Array = Tensor | np.ndarray[Any, Any]
A = TypeVar("A", Tensor, np.ndarray[Any, Any])


def as_tensor(x: Array, what: str = "rows") -> Tensor:
    """The floating-point tensor behind ``x``, without a copy where the memory allows it.

    Raises `SutureError` if ``x`` is not an array of real floating-point numbers.
    """
    if not isinstance(x, Tensor):
        if not isinstance(x, np.ndarray):
            raise SutureError(f"{what}: expected a numpy array or a torch tensor, got {type(x).__name__}.")
        if x.dtype.kind != "f" or x.dtype.itemsize > 8:
            raise SutureError(f"{what}: expected float16, float32 or float64, got {x.dtype}; convert it first.")
        strange = any(stride < 0 or stride % x.itemsize for stride in x.strides)  # torch has no such views
        if strange or not x.dtype.isnative or not x.flags.writeable:
            x = np.array(x, dtype=x.dtype.newbyteorder("="))
        x = torch.from_numpy(x)
    if not x.is_floating_point():
        raise SutureError(f"{what}: expected a floating-point tensor, got {x.dtype}; convert it first.")
    return x.detach()


def as_matrix(x: Array, what: str = "rows") -> Tensor:
    """`as_tensor` for one non-empty ``(n, p)`` matrix. Raises `SutureError` naming the shape that came."""
    t = as_tensor(x, what)
    if t.ndim != 2 or 0 in t.shape:
        raise SutureError(f"{what}: expected a non-empty matrix (n, dim), got shape {tuple(t.shape)}.")
    return t


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision rows of ``dtype`` are multiplied in: float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def row_norms(rows: Tensor) -> Tensor:
    """Euclidean lengths ``(n,)`` of ``rows`` ``(n, p)`` in float64; infinite only where float64 has no such number.

    The squares of rows beyond 1e154, or below 1e-154, have left float64: each is divided by its largest value first.
    """
    rows = rows.double()
    largest = rows.abs().amax(1)
    return torch.linalg.vector_norm(rows / largest.where(largest > 0, 1.0)[:, None], dim=1) * largest


def through(f: Callable[[Tensor], Tensor], x: A, dim: int, what: str) -> A:
    """``f`` applied to ``x`` ``(..., dim)`` in its working precision; kind, dtype and device of ``x`` are kept.

    The result has memory of its own: ``x`` may be a buffer that is overwritten later.
    """
    t = as_tensor(x, what)
    if t.ndim == 0 or t.shape[-1] != dim:
        raise SutureError(f"{what}: expected vectors of {dim} dims, got shape {tuple(t.shape)}.")
    out = f(t.to(working_dtype(t.dtype))).to(t.dtype)
    if out.data_ptr() == t.data_ptr():
        out = out.clone()
    return out if isinstance(x, Tensor) else out.numpy()
