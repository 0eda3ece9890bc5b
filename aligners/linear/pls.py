"""Partial least squares, from moments alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from ..alignment import Alignment
from ..maps import Affine
from ..moments import Moments
from ..survey import Survey
from .checks import check_choice, check_rank, check_rank_fits, check_variance, ranks
from .derived import remembered
from .two_sided import TwoSided, two_sided

__all__ = ["PLS"]

MODES = ("svd", "regression")
SMALL = 64  # below it a dense decomposition is as fast as Lanczos


@dataclass(frozen=True)
class PLS(TwoSided):
    """Components of largest covariance; no covariance matrix is inverted, so that few pairs in many dims do no harm.

    ``mode`` "svd": ``Xc'Yc = U S V'``; scores ``Xc U_k`` and ``Yc V_k`` (Tucker's inter-battery analysis, 1958).
    Translation is the regression of y on the source's scores, ``W = U_k (U_k'Xc'Xc U_k)^-1 S_k V_k'``, which lies in
    the span of V_k: the shared space is ``Yc V_k``, and the source goes to its prediction there.

    "regression": PLS2 with deflation, ``W = R Q'``, by the kernel algorithm (Dayal & MacGregor 1997, modified
    algorithm 2): w = leading left singular vector of XY, ``r = w - sum_j (p_j'w) r_j``, ``t't = r'XX r``,
    ``p = XX r / t't``, ``q = XY'r / t't``, ``XY <- XY - t't p q'``. One-sided. It ends before ``rank`` where XY is
    exhausted, as no further component could change the map.

    ``rank``: at most so many components; left open: chosen by kept@3 out of fold.
    """

    name: ClassVar[str] = "pls"
    summary: ClassVar[str] = "partial least squares: components of largest covariance, for few pairs in many dims"
    paper: ClassVar[str] = "Dayal & MacGregor 1997, Improved PLS algorithms; Tucker 1958"

    rank: int | None = None
    mode: Literal["svd", "regression"] = "regression"

    def __post_init__(self) -> None:
        check_rank("pls: rank", self.rank)
        check_choice("pls: mode", self.mode, MODES)

    def variants(self, survey: Survey) -> Sequence[Self]:
        """One aligner for each rank of the grid below the dims and for the full one, smallest first."""
        return (self,) if self.rank is not None else tuple(replace(self, rank=k) for k in ranks(survey.moments))

    def align_moments(self, moments: Moments) -> Alignment:
        """At one rank (the largest of the grid if it is open)."""
        check_variance(self.name, moments)
        dims = (moments.source_dim, moments.target_dim)
        check_rank_fits("pls: rank", self.rank, *dims[: 1 if self.mode == "regression" else 2])
        rank = ranks(moments)[-1] if self.rank is None else self.rank
        if self.mode == "regression":
            weight = components(moments).weight(rank)
            return Alignment.one_sided(Affine.between(moments.mean_x, weight, moments.mean_y))
        u, s, vt = moments.svd_xy
        u, s, vt = u[:, :rank], s[:rank], vt[:rank]
        scores = u.T @ moments.block("xx") @ u
        predict = u @ (torch.linalg.pinv(scores, hermitian=True) * s)
        return two_sided(moments, predict, vt.T, out_y=vt)


@remembered
def components(moments: Moments) -> Components:
    """The components of these moments, found as they are asked for."""
    return Components(moments)


class Components:
    """The sequence of PLS2 components; asking for more of them goes on where it ended."""

    def __init__(self, moments: Moments) -> None:
        self._xx = moments.block("xx")
        self._xy = moments.block("xy").clone()
        eps = torch.finfo(moments.dtype).eps
        self._little_xy = eps * float(torch.linalg.norm(self._xy))
        self._little_xx = eps * float(moments.square_x.sum())
        p, q = self._xy.shape
        self._r, self._p, self._q = (self._xy.new_empty((0, d)) for d in (p, p, q))
        self._ended = False

    def weight(self, rank: int) -> Tensor:
        """``R Q'`` ``(p, q)`` of the first ``rank`` components."""
        while len(self._r) < min(rank, len(self._xx)) and not self._ended:
            self._add()
        return self._r[:rank].T @ self._q[:rank]

    def _add(self) -> None:
        if float(torch.linalg.norm(self._xy)) <= self._little_xy:
            self._ended = True
            return
        w = leading_left_vector(self._xy)
        r = w - (self._p @ w) @ self._r
        xr = self._xx @ r
        energy = r @ xr
        if float(energy) <= self._little_xx * float(r @ r):
            self._ended = True
            return
        p, q = xr / energy, (r @ self._xy) / energy
        self._xy -= energy * torch.outer(p, q)
        for name, row in (("_r", r), ("_p", p), ("_q", q)):
            setattr(self, name, torch.cat([getattr(self, name), row[None]]))


def leading_left_vector(matrix: Tensor) -> Tensor:
    """The left singular vector ``(p,)`` of the largest singular value, its sign left to chance (it cancels in W)."""
    p, q = matrix.shape
    if min(p, q) <= SMALL:
        return torch.linalg.svd(matrix, full_matrices=False)[0][:, 0]
    # Lanczos on the smaller Gram matrix, to machine precision, from a fixed start.
    m = matrix.cpu().numpy()
    m = m if p <= q else m.T
    gram = LinearOperator((len(m), len(m)), matvec=lambda z: m @ (m.T @ z), dtype=np.float64)
    start = np.abs(m).sum(1)
    _, vector = eigsh(gram, k=1, v0=start, tol=0)
    left = vector[:, 0] if p <= q else m.T @ vector[:, 0]
    return torch.from_numpy(left / np.linalg.norm(left)).to(matrix)
