"""Groups of units across two spaces, and how far the spaces share their very axes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import RefusedError
from ..moments import Moments
from .matching import correlations, matched_units

__all__ = ["Clusters", "cluster_units", "sharedness"]


@dataclass(frozen=True, eq=False)
class Clusters:
    """The cluster of each source unit ``(p,)`` and of each target unit ``(q,)``; ``shared`` has units of both.

    -1 for units that never vary: they belong nowhere.
    """

    source: Tensor
    target: Tensor
    shared: tuple[int, ...]


def cluster_units(moments: Moments, clusters: int, *, seed: int = 0) -> Clusters:
    """Spectral clusters of the units of both spaces by their absolute correlations (many to many; Li et al. 2016).

    Affinity is ``|corr|`` of all p + q units; scikit-learn's normalised Laplacian and k-means do the rest.
    """
    from sklearn.cluster import SpectralClustering

    p = moments.source_dim
    xx, xy, yy = (moments.block(name) for name in ("xx", "xy", "yy"))
    both = torch.cat([torch.cat([xx, xy], 1), torch.cat([xy.T, yy], 1)])
    scale = both.diagonal().sqrt()
    alive = scale > 0
    if not 1 < clusters <= int(alive.sum()):
        raise RefusedError(f"expected 2 to {int(alive.sum())} clusters, the units that vary, got {clusters}.")
    affinity = (both / torch.outer(scale, scale))[alive][:, alive].abs().clamp(max=1)
    found = SpectralClustering(clusters, affinity="precomputed", random_state=seed, assign_labels="kmeans")
    labels = torch.full((len(both),), -1)
    labels[alive] = torch.from_numpy(found.fit_predict(affinity.numpy())).long()
    shared = sorted((set(labels[:p].tolist()) & set(labels[p:].tolist())) - {-1})
    return Clusters(labels[:p], labels[p:], tuple(shared))


def sharedness(moments: Moments, eps: float = 1e-3) -> dict[str, float]:
    """Mean best correlation of units one by one ("semi"), one to one ("bipartite"), and of directions ("canonical").

    Where canonical is far above bipartite the spaces share directions but not axes: a rotation is needed.
    """
    from ..measures.cca import mean_cca

    c = correlations(moments)
    rows, columns = matched_units(c, "bipartite")
    semi = float(c.abs().amax(0).mean())
    one = float(c[rows, columns].abs().mean())
    return {"semi": semi, "bipartite": one, "canonical": mean_cca(moments, eps)}
