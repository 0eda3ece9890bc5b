"""Generalised canonical correlation (MAXVAR): the directions in which all spaces agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ..alignment import Alignment
from ..errors import RefusedError
from ..linear.checks import check_number, check_rank
from ..maps import Affine
from .base import MultiwayAligner, affine, ranks
from .moments import ManyMoments

__all__ = ["GCCA"]


@dataclass(frozen=True)
class GCCA(MultiwayAligner):
    """``max tr(G' sum_k X_k (X_k'X_k + r_k I)^-1 X_k' G)``, MAXVAR (Kettenring 1971; with r_k Rastogi et al. 2015).

    Solved as ``J w = l (B + r) w`` with B the covariances of the spaces and J all their cross-covariances, each item
    weighted by one over the number of spaces that have it (van de Velden & Takane 2012), in dims, not in rows: l is 1
    where all spaces say the same and 1/m where they have nothing in common. The ``rank`` best directions are kept, each
    multiplied by ``rho^power`` (``power`` 0: all count alike) with ``rho = (m l - 1) / (m - 1)``; ``r_k = eps * tr /
    p_k``, ``eps`` above 0 where a space has few rows. The way back is regression of a space's rows on its variates.
    ``rank`` none: chosen by any-to-any matching of held-out items.
    """

    name: ClassVar[str] = "gcca"
    summary: ClassVar[str] = "many spaces by the directions in which all agree (MAXVAR)"
    paper: ClassVar[str] = "Kettenring 1971; Rastogi, Van Durme & Arora 2015 (MAXVAR); van de Velden & Takane 2012"

    rank: int | None = None
    eps: float = 0.1
    power: float = 1.0

    def __post_init__(self) -> None:
        check_rank("gcca: rank", self.rank)
        check_number("gcca: eps", self.eps, 0)
        check_number("gcca: power", self.power, 0)

    def candidates(self, moments: ManyMoments) -> Sequence[GCCA]:
        """Ranks from 16 on, doubled, and the narrowest space's dims."""
        return [self] if self.rank is not None else [replace(self, rank=rank) for rank in ranks(moments)]

    def solve(self, moments: ManyMoments) -> Alignment:
        """By one generalised eigenproblem of the size of all dims together."""
        names, m = moments.names, len(moments.names)
        centring, ridged, parts, start = [], [], {}, 0
        for name in names:
            p, mean = moments.dims[name], moments.mean(name)
            centring.append(torch.cat([torch.eye(p, dtype=torch.float64), -mean[None]]))
            cov = moments.covariance(name)
            if self.eps == 0 and moments.rows(name) <= p:
                raise RefusedError(f"gcca: {name} has {moments.rows(name):.0f} rows in {p} dims; give eps above 0.")
            ridged.append(cov + (self.eps + 1e-9) * cov.trace() / p * torch.eye(p, dtype=torch.float64))
            parts[name] = slice(start, start + p)
            start += p
        t = blocks(centring)
        joint = t.T @ moments.joint @ t
        halves = [inverse_root(b) for b in ridged]
        half = blocks(halves)
        values, vectors = torch.linalg.eigh(half @ joint @ half)
        rank = min(self.rank or min(moments.dims.values()), start)
        rho = ((m * values.flip(0)[:rank] - 1) / (m - 1)).clamp(0, 1)
        kept = int((rho > 1e-6).sum())
        if kept == 0:
            raise RefusedError("gcca: the spaces have no direction in common. Are the ids right?")
        rho, w = rho[:kept], half @ vectors.flip(1)[:, :kept] * (m * moments.items) ** 0.5
        maps, back = {}, {}
        for name in names:
            mean, own = moments.shift[name] + moments.mean(name), w[parts[name]]
            maps[name] = affine(own * rho**self.power, torch.zeros(kept, dtype=torch.float64), mean)
            weight = own * rho**self.power
            cov = moments.covariance(name)
            gram = weight.T @ cov @ weight
            gram += 1e-9 * gram.trace() / kept * torch.eye(kept, dtype=torch.float64)
            home = torch.linalg.solve(gram, weight.T @ cov)
            back[name] = Affine.between(torch.zeros(kept, dtype=torch.float64), home, mean)
        return Alignment(maps, back).with_provenance(rank=kept, agreement=[round(float(r), 4) for r in rho[:10]])


def inverse_root(matrix: torch.Tensor) -> torch.Tensor:
    """``B^-1/2`` of a positive definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=float(values[-1]) * 1e-12).rsqrt() @ vectors.T


def blocks(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The matrices along a diagonal, zeros beside them."""
    whole: torch.Tensor = torch.block_diag(*parts)  # type: ignore[no-untyped-call]
    return whole
