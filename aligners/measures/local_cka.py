"""Local CKA: how well a pair of queries fits to pairs that are known, for all pairs of queries at once."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UsageError

__all__ = ["local_cka", "local_cka_kernel"]


def local_cka(anchors_x: Tensor, anchors_y: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Linear CKA ``(m, l)`` of the anchors ``(n, p)``, ``(n, q)`` with queries x_i and y_j appended.

    ``score_ij = CKA(K_[X; x_i], K_[Y; y_j])`` (Maniparambil et al. 2024). Exact, without any n by n kernel: with
    ``c = n / (n + 1)``, ``dx = x - mean``, ``S`` the scatter of the anchors, the numerator is ``||Sxy||^2 + 2 c dx Sxy
    dy' + c^2 |dx|^2 |dy|^2``, and the two norms below it are its own form with (x, x) and (y, y). Cost m l d + m d^2.
    """
    check_queries(anchors_x, anchors_y, x, y)
    n = len(anchors_x)
    c = n / (n + 1)
    ax, ay = anchors_x.double(), anchors_y.double()
    mx, my = ax.mean(0), ay.mean(0)
    ax, ay, dx, dy = ax - mx, ay - my, x.double() - mx, y.double() - my
    sxy, sxx, syy = ax.T @ ay, ax.T @ ax, ay.T @ ay
    lx, ly = dx.square().sum(1), dy.square().sum(1)
    top = sxy.square().sum() + 2 * c * dx @ sxy @ dy.T + c**2 * torch.outer(lx, ly)
    own_x = sxx.square().sum() + 2 * c * ((dx @ sxx) * dx).sum(1) + (c * lx).square()
    own_y = syy.square().sum() + 2 * c * ((dy @ syy) * dy).sum(1) + (c * ly).square()
    return ratio(top, own_x, own_y)


def local_cka_kernel(
    k: Tensor, cross_x: Tensor, own_x: Tensor, other: Tensor, cross_y: Tensor, own_y: Tensor
) -> Tensor:
    """The same ``(m, l)`` for any kernels: of the anchors ``(n, n)``, of queries with anchors ``(m, n)``, own ``(m,)``.

    Exact: sums of the bordered kernels are updated instead of made. Cost m l n.
    """
    k, other, cross_x, cross_y = k.double(), other.double(), cross_x.double(), cross_y.double()
    own_x, own_y = own_x.double(), own_y.double()

    def product(a: Tensor, ca: Tensor, oa: Tensor, b: Tensor, cb: Tensor, ob: Tensor, *, paired: bool) -> Tensor:
        """``<H A H, H B H>`` of all bordered pairs, or of pair i with i only."""
        size = len(a) + 1
        ra, rb, sa, sb = a.sum(1), b.sum(1), ca.sum(1), cb.sum(1)
        ta, tb = a.sum() + 2 * sa + oa, b.sum() + 2 * sb + ob
        if paired:
            dot, outer = (ca * cb).sum(1), multiply
            left, right = ca @ rb, cb @ ra
        else:
            dot, outer = ca @ cb.T, outer_product
            left, right = (ca @ rb)[:, None], cb @ ra
        total = (a * b).sum() + 2 * dot + outer(oa, ob)
        rows = ra @ rb + left + right + dot + outer(sa + oa, sb + ob)
        return total - 2 * rows / size + outer(ta, tb) / size**2

    top = product(k, cross_x, own_x, other, cross_y, own_y, paired=False)
    norm_x = product(k, cross_x, own_x, k, cross_x, own_x, paired=True)
    norm_y = product(other, cross_y, own_y, other, cross_y, own_y, paired=True)
    return ratio(top, norm_x, norm_y)


def ratio(top: Tensor, own_x: Tensor, own_y: Tensor) -> Tensor:
    """``top / sqrt(own_x own_y')``. Raises `UsageError` where anchors and a query have no variance."""
    if not bool((own_x > 0).all()) or not bool((own_y > 0).all()):
        raise UsageError("local CKA: expected anchors that differ, got some without any variance.")
    return top / torch.outer(own_x.sqrt(), own_y.sqrt())


def check_queries(anchors_x: Tensor, anchors_y: Tensor, x: Tensor, y: Tensor) -> None:
    """Raises `UsageError` unless anchors are paired and queries have their dims."""
    if len(anchors_x) != len(anchors_y) or len(anchors_x) < 2:
        raise UsageError(
            f"local CKA: expected at least two paired anchors, got {len(anchors_x)} and {len(anchors_y)} rows."
        )
    for a, q, what in ((anchors_x, x, "x"), (anchors_y, y, "y")):
        if q.ndim != 2 or a.shape[1] != q.shape[1]:
            raise UsageError(f"local CKA: expected {what} queries (m, {a.shape[1]}), got shape {tuple(q.shape)}.")


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """``a_i b_i`` for each i."""
    return a * b


def outer_product(a: Tensor, b: Tensor) -> Tensor:
    """``a_i b_j`` for each i and j."""
    return torch.outer(a, b)
