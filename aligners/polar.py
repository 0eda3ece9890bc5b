"""The orthogonal factor of a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["polar"]


def polar(matrix: Tensor) -> Tensor:
    """The nearest matrix ``(p, q)`` with orthonormal columns (rows where p < q): U V' of ``U S V'``.

    By the Gram matrix of the smaller side, in half the time of the decomposition. What the squared condition costs in
    orthogonality, one Newton-Schulz step restores; a matrix too near to losing rank for that is decomposed.
    """
    if matrix.shape[0] < matrix.shape[1]:
        return polar(matrix.T).T
    s, v = torch.linalg.eigh(matrix.T @ matrix)
    if not float(s[0]) > torch.finfo(s.dtype).eps ** 0.5 * float(s[-1]):
        u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
        return u @ vt
    near = matrix @ (v * s.rsqrt()) @ v.T
    return 1.5 * near - 0.5 * near @ (near.T @ near)
