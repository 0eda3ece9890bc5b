"""The orthogonal factor of a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["polar", "polar_and_rank"]


def polar(matrix: Tensor) -> Tensor:
    """The nearest matrix ``(p, q)`` with orthonormal columns (rows where p < q): U V' of ``U S V'``.

    By the Gram matrix of the smaller side, in half the time of the decomposition. What the squared condition costs in
    orthogonality, one Newton-Schulz step restores; a matrix too near to losing rank for that is decomposed.
    """
    return polar_and_rank(matrix, 0.0)[0]


def polar_and_rank(matrix: Tensor, tolerance: float) -> tuple[Tensor, int]:
    """`polar`, and how many singular values are above ``tolerance`` (at most 1e-4) times the largest.

    With fewer than min(p, q) the factor is not unique: the null vectors of the decomposition complete it.
    """
    if matrix.shape[0] < matrix.shape[1]:
        factor, rank = polar_and_rank(matrix.T, tolerance)
        return factor.T, rank
    s, v = torch.linalg.eigh(matrix.T @ matrix)
    if not float(s[0]) > torch.finfo(s.dtype).eps ** 0.5 * float(s[-1]):
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        return u @ vt, int((s > min(tolerance, 1e-4) * s[0]).sum())
    near = matrix @ (v * s.rsqrt()) @ v.T
    return 1.5 * near - 0.5 * near @ (near.T @ near), matrix.shape[1]
