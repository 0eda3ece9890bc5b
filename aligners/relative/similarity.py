"""A relative map for each similarity, from anchors and what else of a space it needs."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from ..errors import RefusedError
from ..linear.derived import inverse_where_positive
from ..moments import Moments, descending_eigh
from .map import Readout, Relative, distances

__all__ = ["SIMILARITIES", "Similarity", "relative_map"]

Similarity = Literal["cosine", "inner", "basis", "euclidean", "l1", "linf", "angular", "geodesic", "whitened"]
SIMILARITIES = ("cosine", "inner", "basis", "euclidean", "l1", "linf", "angular", "geodesic", "whitened")
MAX_CONDITION = 1e10  # of matrices in float64 that are inverted: what is beyond is collinear but for rounding


def relative_map(
    similarity: Similarity,
    anchors: Tensor,
    *,
    centre: bool = True,
    moments: Moments | None = None,
    shrinkage: float = 0.0,
    rows: Tensor | None = None,
    neighbours: int = 10,
) -> Relative:
    """The map of ``similarity`` to ``anchors`` ``(k, p)`` float64; ``centre``: about the anchors' mean.

    "whitened" needs ``moments`` with the space as source, their covariance shrunk by ``shrinkage`` to a multiple of I;
    "geodesic" needs more ``rows`` ``(m, p)`` of the space for its graph. Raises `RefusedError` where anchors or
    covariance do not have the rank that is needed.
    """
    k, p = anchors.shape
    origin = anchors.mean(0) if centre else torch.zeros_like(anchors[0])
    readout: Readout = "linear"
    nodes = paths = None
    if similarity == "whitened":
        assert moments is not None  # the caller's duty
        origin = moments.mean_x
        covariance = moments.block("xx") / moments.n
        points = (anchors - origin) @ _inverse(covariance, shrinkage, moments.n, moments.dtype)
    elif similarity == "basis":
        points = torch.linalg.pinv(_spanning(anchors - origin)).T
    elif similarity == "inner":
        points = (anchors - origin) / p**0.5
    else:
        points, readout = anchors - origin, similarity
        if similarity == "geodesic":
            assert rows is not None  # the caller's duty
            nodes = torch.from_numpy(np.unique(torch.cat([points, rows - origin]).numpy(), axis=0))
            neighbours = min(neighbours, len(nodes) - 1)
            paths = path_lengths(nodes, points, neighbours)
    zero = anchors.new_zeros(k)
    return Relative(points, origin, zero, zero + 1, nodes, paths, readout=readout, neighbours=neighbours)


def _inverse(covariance: Tensor, shrinkage: float, rows: float, dtype: torch.dtype) -> Tensor:
    """The inverse on the directions in which the rows vary at all: still invariant, for rows that lie in them."""
    values, vectors = descending_eigh(covariance, dtype)
    if shrinkage == 0 and int((values > 0).sum()) > rows - 1.5:
        raise RefusedError(
            f"relative: expected more rows than dims to whiten by, got {rows:g} rows of {len(values)} dims, which are "
            "all equally far apart once whitened; give more rows, or a shrinkage above 0 (then no longer invariant)."
        )
    shrunk = (1 - shrinkage) * values + shrinkage * values.mean()
    return vectors * inverse_where_positive(shrunk) @ vectors.T


def _spanning(anchors: Tensor) -> Tensor:
    k, p = anchors.shape
    s = torch.linalg.svdvals(anchors)
    # k anchors about their own mean span k - 1 directions at most.
    rank = min(k - bool((anchors.sum(0).abs() < 1e-9 * s[0]).all()), p)
    if not float(s[rank - 1]) * MAX_CONDITION**0.5 > float(s[0]):
        raise RefusedError(
            f"relative: expected anchors that span {rank} directions to serve as a basis, got collinear ones "
            f"(condition number {float(s[0] / s[rank - 1]):.1e}); choose fewer, or by fps."
        )
    return anchors


def path_lengths(nodes: Tensor, anchors: Tensor, neighbours: int) -> Tensor:
    """Shortest paths ``(m, k)`` from each of ``nodes`` to each of ``anchors``, which are among them, over kNN edges.

    Edges are Euclidean and go both ways (Tenenbaum et al. 2000, Isomap). Raises `RefusedError` where an anchor cannot
    be reached.
    """
    away, found = distances(nodes, nodes, 2.0).topk(neighbours + 1, dim=1, largest=False)  # itself among them
    m = len(nodes)
    start = np.repeat(np.arange(m), neighbours + 1)
    graph = csr_matrix((away.numpy().ravel(), (start, found.numpy().ravel())), shape=(m, m))
    own = distances(anchors, nodes, 2.0).argmin(1)
    paths = torch.from_numpy(dijkstra(graph, directed=False, indices=own.numpy())).T
    if not bool(torch.isfinite(paths).all()):
        raise RefusedError(
            f"relative: expected a connected graph for geodesic distances, got one in pieces with {neighbours} "
            "neighbours a row; ask for more neighbours."
        )
    return paths
