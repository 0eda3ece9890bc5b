"""Summaries of canonical correlations: what two spaces share when every direction counts alike.

Unlike CKA and the Procrustes distance they are blind to any invertible linear map (PWCCA on the target's side only: a
mere rotation of the source changes its weights), and near 1 for any rows when n is not far above p + q: use `svcca` or
``eps`` there, and a permutation null.
"""

from __future__ import annotations

import torch

from ..moments import Moments

__all__ = ["mean_cca", "pwcca", "svcca"]


def mean_cca(moments: Moments, eps: float = 0.0) -> float:
    """The mean of the min(p, q) canonical correlations; ``eps`` regularises as in `CCA`."""
    from ..linear.cca import canonical  # not above: CCA is chosen by retrieval, which lies in this folder

    return float(canonical(moments, eps).rho.mean())


def svcca(moments: Moments, variance: float = 0.99) -> float:
    """The mean canonical correlation of the leading components that hold this share of ``variance`` on either side.

    Raghu et al. (2017).
    """
    from ..linear.cca import canonical

    return float(canonical(moments, 0.0, variance).rho.mean())


def pwcca(moments: Moments, eps: float = 0.0) -> float:
    """Canonical correlations weighted by how much of the source their variates account for; not symmetrical.

    ``alpha_k = sum_j |<h_k, x_j>|``, with h_k the unit-length variates of the source and x_j its centred columns
    (Morcos, Raghu & Bengio 2018).
    """
    from ..linear.cca import canonical

    found = canonical(moments, eps)
    along = found.a.T @ moments.block("xx")
    length = torch.linalg.vecdot(along, found.a.T).clamp(min=0).sqrt()
    weight = along.abs().sum(1) / length.clamp(min=torch.finfo(length.dtype).tiny)
    return float((weight * found.rho).sum() / weight.sum())
