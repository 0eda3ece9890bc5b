"""Centred kernel alignment: do two spaces hold the same pairs of items to be alike?

    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))

(Cortes, Mohri & Rostamizadeh 2012; Kornblith et al. 2019). 1 for spaces that a rotation and a scale carry into each
other. The plain estimate is far above 0 for independent rows when they are few (0.83 for 60 rows of 300 dims): where
n < 10 max(p, q) use the debiased one, which is 0 there on average and can be negative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..arrays import Array
from ..errors import SutureError
from ..moments import Moments
from .rows import paired_rows

__all__ = ["debiased_cka", "linear_cka", "rbf_cka"]


def linear_cka(moments: Moments) -> float:
    """``||Xc'Yc||^2 / (||Xc'Xc|| ||Yc'Yc||)``, Frobenius (Kornblith et al. 2019). Not debiased."""
    xx, xy, yy = (torch.linalg.norm(moments.block(name)) for name in ("xx", "xy", "yy"))
    return _ratio(xy.square(), xx.square(), yy.square())


def debiased_cka(x: Array, y: Array) -> float:
    """Linear CKA with the unbiased HSIC of Song et al. (2012); at least four pairs.

    In features: the sums over pairs i != j of the kernels are those over all pairs less the diagonals; cost n p q, and
    no n by n matrix.
    """
    x, y = (rows - rows.mean(0) for rows in paired_rows(x, y, least=4))
    return _ratio(_feature_hsic(x, y), _feature_hsic(x, x), _feature_hsic(y, y))


def rbf_cka(x: Array, y: Array, *, width: float = 0.5, debiased: bool = True) -> float:
    """CKA of the kernels ``exp(-d^2 / (2 sigma^2))``, with sigma = ``width`` times the median distance of that side.

    Two n by n matrices: meant for a few thousand rows.
    """
    x, y = paired_rows(x, y, least=4)
    if not width > 0:
        raise SutureError(f"rbf_cka: expected a width above 0, got {width}.")
    k, m = _rbf(x, width), _rbf(y, width)
    hsic = kernel_hsic if debiased else plain_hsic
    return _ratio(hsic(k, m), hsic(k, k), hsic(m, m))


def kernel_hsic(k: Tensor, m: Tensor) -> Tensor:
    """The unbiased estimate from kernels ``(n, n)``, whose diagonals do not count (Song et al. 2012)."""
    k, m = k - k.diag().diag(), m - m.diag().diag()
    return _unbiased((k * m).sum(), k.sum(), m.sum(), k.sum(0) @ m.sum(0), len(k))


def plain_hsic(k: Tensor, m: Tensor) -> Tensor:
    """``<H K H, M> / (n - 1)^2`` (Gretton et al. 2005)."""
    centred = k - k.mean(0) - k.mean(1, keepdim=True) + k.mean()
    return (centred * m).sum() / (len(k) - 1) ** 2


def _feature_hsic(x: Tensor, y: Tensor) -> Tensor:
    own_x, own_y = x.square().sum(1), y.square().sum(1)
    sum_x, sum_y = x @ x.sum(0) - own_x, y @ y.sum(0) - own_y  # the row sums of the kernels without their diagonals
    inner = (x.T @ y).square().sum() - own_x @ own_y
    return _unbiased(inner, sum_x.sum(), sum_y.sum(), sum_x @ sum_y, len(x))


def _unbiased(inner: Tensor, k: Tensor, m: Tensor, rows: Tensor, n: int) -> Tensor:
    return (inner + k * m / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows) / (n * (n - 3))


def _rbf(rows: Tensor, width: float) -> Tensor:
    squares = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    sigma = width * torch.pdist(rows).median()
    if not float(sigma) > 0:
        raise SutureError("rbf_cka: expected rows that differ, got more than half of all distances 0.")
    return (-squares / (2 * sigma**2)).exp()


def _ratio(between: Tensor, left: Tensor, right: Tensor) -> float:
    if not (float(left) > 0 and float(right) > 0):
        raise SutureError("expected rows that differ on both sides, got no variance to compare.")
    return float(between / (left * right).sqrt())
