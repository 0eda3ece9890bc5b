"""Moments: the centred second moments of paired rows, which is all that a linear method needs to know.

They merge (``+``) and can be taken apart again (``-``), so one pass serves a matrix in memory, a dump on disk and a
cluster, and k-fold cross-validation costs no second pass: ``total - fold``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from .arrays import Array, as_matrix
from .errors import SutureError
from .polar import polar_and_rank

__all__ = ["Moments"]

Side = Literal["x", "y"]
Block = Literal["xx", "xy", "yy", "x", "y"]
SIDES: dict[Block, tuple[Side, Side]] = {"xx": ("x", "x"), "xy": ("x", "y"), "yy": ("y", "y")}
ALL_BLOCKS = frozenset(SIDES)


@dataclass(frozen=True, eq=False)
class Moments:
    """Centred sums over ``n`` pairs of rows ``x`` ``(n, p)`` and ``y`` ``(n, q)``, all in float64.

    ``xx`` ``(p, p)``, ``xy`` ``(p, q)`` and ``yy`` ``(q, q)`` are there where they were asked for, and the squares
    alone, ``square_x`` ``(p,)`` and ``square_y`` ``(q,)``, where "x" and "y" were, or the block whose diagonal they
    are. ``n`` is the sum of the weights where rows were weighted. ``dtype`` is the precision in which the rows were
    multiplied.

    Merging follows Chan, Golub & LeVeque (1983), eq. 2.1: no large mean is ever squared and subtracted.
    """

    n: float
    mean_x: Tensor
    mean_y: Tensor
    xx: Tensor | None
    xy: Tensor | None
    yy: Tensor | None
    x: Tensor | None
    y: Tensor | None
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Array, y: Array, weights: Tensor | None = None, blocks: Iterable[Block] = ALL_BLOCKS) -> Moments:
        """Moments of ``x`` ``(n, p)`` and ``y`` ``(n, q)``, with non-negative ``weights`` ``(n,)`` if given."""
        from .moments_builder import MomentsBuilder  # here, because that file is made of this one

        builder = MomentsBuilder(blocks)
        x, y = as_matrix(x, "x"), as_matrix(y, "y")
        require_paired(x, y, weights)
        builder.add(x, y, weights)
        return builder.moments()

    @property
    def source_dim(self) -> int:
        """``p``."""
        return len(self.mean_x)

    @property
    def target_dim(self) -> int:
        """``q``."""
        return len(self.mean_y)

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of rows together."""
        n = self.n + other.n
        return self._combined(other, n, 1.0, self.n * other.n / n if n else 0.0, other.n / n if n else 0.0)

    def __sub__(self, other: Moments) -> Moments:
        """The moments of these rows without the ``other`` ones, which must be among them."""
        n = self.n - other.n
        if n <= 0:
            raise SutureError(f"expected fewer rows to take out than there are, got {other.n:g} of {self.n:g}.")
        return self._combined(other, n, -1.0, -self.n * other.n / n, -other.n / n)

    def _combined(self, other: Moments, n: float, sign: float, between: float, step: float) -> Moments:
        if (self.source_dim, self.target_dim) != (other.source_dim, other.target_dim):
            raise SutureError(
                f"expected moments of ({self.source_dim}, {self.target_dim}) dims, got "
                f"({other.source_dim}, {other.target_dim})."
            )
        dx, dy = other.mean_x - self.mean_x, other.mean_y - self.mean_y

        def merged(mine: Tensor | None, theirs: Tensor | None, a: Tensor, b: Tensor) -> Tensor | None:
            if mine is None or theirs is None:
                return None
            return torch.add(mine, theirs, alpha=sign).addr_(a, b, alpha=between)

        def squares(name: Block, d: Tensor) -> Tensor | None:
            mine, theirs = self._squares(name), other._squares(name)
            return None if mine is None or theirs is None else mine + sign * theirs + between * d.square()

        xx, yy = merged(self.xx, other.xx, dx, dx), merged(self.yy, other.yy, dy, dy)
        return replace(
            self,
            n=n,
            mean_x=self.mean_x + step * dx,
            mean_y=self.mean_y + step * dy,
            xx=xx,
            xy=merged(self.xy, other.xy, dx, dy),
            yy=yy,
            x=squares("x", dx) if xx is None else None,
            y=squares("y", dy) if yy is None else None,
            dtype=torch.promote_types(self.dtype, other.dtype),
        )

    @property
    def reversed(self) -> Moments:
        """The same moments with the two sides exchanged."""
        return Moments(
            n=self.n,
            mean_x=self.mean_y,
            mean_y=self.mean_x,
            xx=self.yy,
            xy=None if self.xy is None else self.xy.T,
            yy=self.xx,
            x=self.y,
            y=self.x,
            dtype=self.dtype,
        )

    @property
    def square_x(self) -> Tensor:
        """The sums of squares ``(p,)`` of the centred x: the diagonal of ``xx``."""
        return self.block("x")

    @property
    def square_y(self) -> Tensor:
        """The sums of squares ``(q,)`` of the centred y: the diagonal of ``yy``."""
        return self.block("y")

    def _squares(self, name: Block) -> Tensor | None:
        alone, whole = getattr(self, name), getattr(self, 2 * name)
        return alone if whole is None else whole.diagonal()

    def block(self, name: Block) -> Tensor:
        """What was asked for by that name. Raises `SutureError` if it was not accumulated."""
        value: Tensor | None = self._squares(name) if name in ("x", "y") else getattr(self, name)
        if value is None:
            raise SutureError(f"the block '{name}' was not accumulated; ask for it when the moments are taken.")
        return value

    # What several methods derive from the same moments is derived once.

    @cached_property
    def eigen_x(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues ``(p,)``, descending and with rounding noise set to 0, and eigenvectors ``(p, p)`` of ``xx``."""
        return descending_eigh(self.block("xx"), self.dtype)

    @cached_property
    def eigen_y(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues ``(q,)`` and eigenvectors ``(q, q)`` of ``yy``, as `eigen_x`."""
        return descending_eigh(self.block("yy"), self.dtype)

    @cached_property
    def svd_xy(self) -> tuple[Tensor, Tensor, Tensor]:
        """Thin singular value decomposition ``U (p, r), s (r,), V' (r, q)`` of ``xy``, with r = min(p, q)."""
        u, s, vt = torch.linalg.svd(self.block("xy"), full_matrices=False)
        return u, s, vt

    @cached_property
    def polar_xy(self) -> tuple[Tensor, int]:
        """`rotation`, and the rank of ``xy``, singular values within rounding of 0 left out."""
        return polar_and_rank(self.block("xy"), max(self.source_dim, self.target_dim) * torch.finfo(self.dtype).eps)

    @property
    def rotation(self) -> Tensor:
        """``U V'`` ``(p, q)`` of ``xy = U S V'``: the (semi-)orthogonal matrix with the largest ``tr(R' xy)``."""
        return self.polar_xy[0]


def require_paired(x: Tensor, y: Tensor, weights: Tensor | None) -> None:
    """Raises `SutureError` unless there are as many rows and weights on either side."""
    if len(x) != len(y):
        raise SutureError(f"expected as many rows in x as in y, got {len(x)} and {len(y)}; are they paired?")
    if weights is not None and weights.shape != (len(x),):
        raise SutureError(f"expected one weight per pair, got shape {tuple(weights.shape)} for {len(x)} pairs.")


def descending_eigh(matrix: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Eigenvalues, largest first, of a positive semi-definite matrix that was accumulated in ``dtype``."""
    values, vectors = torch.linalg.eigh(matrix)
    values, vectors = values.flip(0), vectors.flip(1)
    noise = values[0].clamp(min=0) * len(values) * torch.finfo(dtype).eps
    return torch.where(values > noise, values, torch.zeros_like(values)), vectors
