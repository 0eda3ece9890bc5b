"""What must hold of every query and every answer."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Rows", "checked", "refuse", "same_length", "unit"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


def refuse(message: str) -> NoReturn:
    """Raise `RefusedError`; imported here, since it brings torch."""
    from ...aligners.errors import RefusedError

    raise RefusedError(message)


def checked(rows: Any, dim: int, what: str) -> Floats:
    """``rows`` ``(dim,)`` or ``(m, dim)`` as a float32 matrix. Raises `RefusedError` on other widths, NaN and so on."""
    array = np.asarray(rows, np.float32)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] != dim:
        refuse(f"{what}: expected vectors of {dim} dims, got shape {np.shape(rows)}. Is it the other encoder's?")
    if not np.isfinite(array).all():
        refuse(f"{what}: expected finite numbers, got NaN or infinite ones.")
    if not array.any(axis=1).all():
        refuse(f"{what}: expected directions, got a vector of zeros.")
    return array


def same_length(one: Floats, other: Floats) -> None:
    """Refuse queries of two encoders that cannot be the same queries."""
    if len(one) != len(other):
        refuse(f"expected the same queries by both encoders, got {len(one)} new and {len(other)} old ones.")


def unit(rows: Floats) -> Floats:
    """Rows of length 1; zeros stay."""
    norm = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    return np.divide(rows, norm, out=np.zeros_like(rows), where=norm > 0)
