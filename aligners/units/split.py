"""What two spaces share and what each keeps to itself; what one set of rows has that another lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..aligner import Aligner
from ..alignment import Alignment
from ..errors import RefusedError
from ..linear.cca import CCA, canonical
from ..linear.checks import check_number, check_rank, check_variance
from ..maps import Affine
from ..moments import Moments
from ..survey import Survey

__all__ = ["SharedPrivate", "Split", "contrast", "shared_share", "split"]


@dataclass(frozen=True, eq=False)
class Split:
    """Maps of a space onto its ``shared`` part ``(p, k)`` and its ``private`` one ``(p, p - k)``, both centred."""

    shared: Affine
    private: Affine


@dataclass(frozen=True)
class SharedPrivate(Aligner):
    """CCA cut to the directions that two spaces share by the evidence of a permutation test.

    The shared rank is the number of canonical correlations above the 95 % quantile of the largest one of rows shuffled
    against each other (``draws`` times, on the survey's sample): a test of all ranks at once. ``eps`` as in `CCA`.
    `split` gives the parts of each side.
    """

    name: ClassVar[str] = "shared-private"
    summary: ClassVar[str] = "the directions that both spaces share by a permutation test (CCA)"
    paper: ClassVar[str] = "Hotelling 1936; permutation rank: Winkler et al. 2020, Permutation inference for CCA"
    affine: ClassVar[bool] = True

    eps: float = 0.01
    draws: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("shared-private: eps", self.eps, 0)
        check_rank("shared-private: draws", self.draws)

    def rank(self, survey: Survey) -> int:
        """How many directions are shared. Raises `RefusedError` where none is."""
        check_variance(self.name, survey.moments)
        x, y = survey.sample.x.double(), survey.sample.y.double()
        if len(x) <= x.shape[1] + y.shape[1] and self.eps == 0:
            raise RefusedError(
                f"shared-private: expected more pairs than dims of both sides, got {len(x)} for {x.shape[1]} and "
                f"{y.shape[1]}; give eps above 0 (--set eps=0.01)."
            )
        moments = Moments.of(x, y)
        white_x, white_y = (whitened(r, self.eps) for r in (x, y))
        g = torch.Generator().manual_seed(self.seed)
        highest = torch.stack(
            [
                torch.linalg.matrix_norm(white_x.T @ white_y[torch.randperm(len(y), generator=g)], 2)
                for _ in range(self.draws)
            ]
        )
        found = int((canonical(moments, self.eps).rho > highest.quantile(0.95)).sum())
        if not found:
            raise RefusedError("shared-private: no direction is shared beyond what shuffled rows share.")
        return found

    def align(self, survey: Survey) -> Alignment:
        """CCA of that rank."""
        rank = self.rank(survey)
        return CCA(eps=self.eps, rank=rank).align_moments(survey.moments).with_provenance(shared_rank=rank)


def whitened(rows: Tensor, eps: float) -> Tensor:
    """Centred ``rows`` times ``(Xc'Xc + eps tr / p I)^-1/2``."""
    centred = rows - rows.mean(0)
    scatter = centred.T @ centred
    values, vectors = torch.linalg.eigh(
        scatter + eps * scatter.trace() / len(scatter) * torch.eye(len(scatter)).double()
    )
    return centred @ (vectors * values.clamp(min=float(values[-1]) * 1e-12).rsqrt() @ vectors.T)


def split(moments: Moments, rank: int, *, eps: float = 0.01) -> tuple[Split, Split]:
    """The shared and private parts of source and target, given how many directions they share (`SharedPrivate.rank`).

    Shared: the ``rank`` leading canonical variates A. Private: an orthonormal basis B of the rest, ``B' Sxx A = 0``, so
    that private variates are uncorrelated with the shared ones.
    """
    found = canonical(moments, eps)
    if not 0 < rank <= len(found.rho):
        raise RefusedError(f"expected a rank of 1 to {len(found.rho)}, got {rank}.")
    sides = []
    for mean, scatter, variates in (
        (moments.mean_x, moments.block("xx"), found.a),
        (moments.mean_y, moments.block("yy"), found.b),
    ):
        a = variates[:, :rank]
        q, _ = torch.linalg.qr(scatter @ a, mode="complete")
        sides.append(Split(*(Affine(w, -mean @ w) for w in (a, q[:, rank:]))))
    return sides[0], sides[1]


def shared_share(scatter: Tensor, part: Affine) -> float:
    """Share of the variance ``scatter`` ``(p, p)`` of a space that its ``part`` (the shared one) explains."""
    a = part.weight
    explained = torch.linalg.solve(a.T @ scatter @ a, a.T @ scatter @ scatter @ a)
    return float(explained.trace() / scatter.trace())


def contrast(target: Moments, background: Moments, rank: int, *, alpha: float = 1.0) -> Split:
    """Contrastive PCA (Abid et al. 2018): directions that vary in one set of rows and not in the other.

    ``target`` and ``background`` are moments of rows of one space (their source side). Salient, in ``shared``: the
    ``rank`` leading eigenvectors of ``C1 - alpha C0``; common, in ``private``: their orthogonal complement.
    """
    check_number("contrast: alpha", alpha, 0)
    p = target.source_dim
    if background.source_dim != p or not 0 < rank < p:
        raise RefusedError(f"expected two sets of rows of {p} dims and a rank below that, got {rank}.")
    difference = target.block("xx") / target.n - alpha * background.block("xx") / background.n
    axes = torch.linalg.eigh(difference).eigenvectors.flip(1)
    return Split(*(Affine(w, -target.mean_x @ w) for w in (axes[:, :rank], axes[:, rank:])))
