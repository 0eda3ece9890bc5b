"""mini-vec2vec: clusters of both spaces are matched by how they lie to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..linear.checks import check_rank
from ..polar import polar
from .base import UnpairedAligner
from .clouds import Clouds
from .graph_matching import matched
from .signatures import signatures, soft_cross

__all__ = ["MiniVec2Vec"]


@dataclass(frozen=True)
class MiniVec2Vec(UnpairedAligner):
    """The linear unsupervised pipeline of Dar 2025.

    1. ``draws`` times: up to ``draw_rows`` rows of either side, k-means with ``clusters`` centroids, and the
       permutation of centroids that maximises ``tr(A P B P')`` of the centred Gram matrices of both (QAP, the best of
       ``restarts``).
    2. Matched centroids, of the half of the draws that agree best (CKA; the authors take all), are anchors of relative
       signatures; each row with the mean of its ``neighbours`` rows of the most similar signatures; Procrustes.
    3. The refinement that all unpaired methods share, without the authors' last step (one k-means of 500 centroids).

    Each start of the permutation is found by FAQ and finished by pairwise exchange; the authors exchange only.
    """

    name: ClassVar[str] = "mini-vec2vec"
    summary: ClassVar[str] = "rotation without pairs: clusters matched by their mutual similarities"
    paper: ClassVar[str] = "Dar 2025, mini-vec2vec (arXiv 2510.02348)"

    draws: int = 20
    clusters: int = 20
    restarts: int = 30
    draw_rows: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("draws", "clusters", "restarts", "draw_rows"):
            check_rank(f"mini-vec2vec: {field}", getattr(self, field))

    def start(self, clouds: Clouds, seed: int) -> Tensor:
        """Matched centroids, soft pairs by signatures relative to them, Procrustes."""
        clusters = min(self.clusters, len(clouds.x) // 10, len(clouds.y) // 10)
        found = []
        for draw in range(self.draws):
            g = torch.Generator().manual_seed(seed * self.draws + draw)
            a, b = (centroids(some(rows, self.draw_rows, g), clusters, seed + draw) for rows in (clouds.x, clouds.y))
            order = matched(centred_gram(a), centred_gram(b), restarts=self.restarts, seed=seed + draw)
            found.append((likeness(a, b[order]), draw, a, b[order]))
        found.sort(reverse=True, key=lambda each: each[:2])
        kept = found[: (self.draws + 1) // 2]
        here = [clouds.x[clouds.seeds[:, 0]], *(a for _, _, a, _ in kept)]
        there = [clouds.y[clouds.seeds[:, 1]], *(b for _, _, _, b in kept)]
        a, b = signatures(clouds.x, torch.cat(here)), signatures(clouds.y, torch.cat(there))
        cross = soft_cross(a, b, clouds.x, clouds.y, self.neighbours)
        return polar(cross + soft_cross(b, a, clouds.y, clouds.x, self.neighbours).T)


def some(rows: Tensor, limit: int, g: torch.Generator) -> Tensor:
    """At most ``limit`` of the rows, in random order."""
    return rows[torch.randperm(len(rows), generator=g)[:limit]]


def centroids(rows: Tensor, k: int, seed: int) -> Tensor:
    """The ``k`` centroids ``(k, p)`` of k-means."""
    from sklearn.cluster import KMeans

    found = KMeans(k, n_init=1, random_state=seed).fit(rows.numpy()).cluster_centers_
    return torch.from_numpy(found.astype(np.float32))


def likeness(a: Tensor, b: Tensor) -> float:
    """Linear CKA of two lists of centroids."""
    k, other = centred_gram(a), centred_gram(b)
    return float((k * other).sum() / (torch.linalg.norm(k) * torch.linalg.norm(other)))


def centred_gram(rows: Tensor) -> Tensor:
    """``H X X' H``."""
    centred = rows - rows.mean(0)
    return centred @ centred.T
