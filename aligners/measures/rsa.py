"""Representational similarity analysis: do two spaces order the distances between items alike?"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.functional import normalize

from ..arrays import Array
from ..errors import SutureError, UsageError
from .rows import paired_rows

__all__ = ["Dissimilarity", "rdm", "rsa"]

Dissimilarity = Literal["correlation", "cosine", "euclidean"]


def rdm(rows: Tensor, dissimilarity: Dissimilarity = "correlation") -> Tensor:
    """The dissimilarities ``(n (n - 1) / 2,)`` of all pairs of ``rows`` ``(n, p)``, row by row above the diagonal.

    correlation: 1 - Pearson across the p dims; cosine: 1 - cosine; euclidean: squared distance / p.
    """
    if dissimilarity == "euclidean":
        return torch.pdist(rows).square() / rows.shape[1]
    if dissimilarity not in get_args(Dissimilarity):
        raise UsageError(f"rdm: expected one of {', '.join(get_args(Dissimilarity))}, got {dissimilarity!r}.")
    if dissimilarity == "correlation":
        rows = rows - rows.mean(1, keepdim=True)
    unit = normalize(rows, dim=1)
    i, j = torch.triu_indices(len(rows), len(rows), 1)
    return 1 - (unit @ unit.T)[i, j]


def rsa(
    x: Array,
    y: Array,
    *,
    dissimilarity: Dissimilarity = "correlation",
    compare: Literal["spearman", "pearson"] = "spearman",
) -> float:
    """The rank correlation (Spearman, ties averaged) of the two `rdm`; at least three items.

    Kriegeskorte, Mur & Bandettini (2008). A rotation changes "correlation", a shift changes all but "euclidean".
    n^2 / 2 numbers a side: meant for a few thousand items.
    """
    found = [rdm(rows, dissimilarity) for rows in paired_rows(x, y, least=3)]
    if compare == "spearman":
        found = [torch.from_numpy(rankdata(v.numpy())) for v in found]
    elif compare != "pearson":
        raise UsageError(f"rsa: expected spearman or pearson, got {compare!r}.")
    a, b = (v - v.mean() for v in found)
    size = torch.linalg.norm(a) * torch.linalg.norm(b)
    if not float(size) > 0:
        raise SutureError("rsa: expected items that differ, got equal dissimilarities throughout.")
    return float(a @ b / size)
