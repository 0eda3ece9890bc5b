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

from .arrays import Array, as_matrix, working_dtype
from .errors import SutureError

__all__ = ["Moments", "MomentsBuilder"]

Block = Literal["xx", "xy", "yy"]
ALL_BLOCKS: frozenset[Block] = frozenset(("xx", "xy", "yy"))
PIECE_ROWS = 1024  # the squares of so many rows stay in the cache


@dataclass(frozen=True, eq=False)
class Moments:
    """Centred sums over ``n`` pairs of rows ``x`` ``(n, p)`` and ``y`` ``(n, q)``, all in float64.

    ``square_x`` ``(p,)`` and ``square_y`` ``(q,)`` are the diagonals of ``xx`` ``(p, p)`` and ``yy`` ``(q, q)``, and
    are there even when those blocks were not asked for. ``n`` is the sum of the weights where rows were weighted.
    ``dtype`` is the precision in which the rows were multiplied.

    Merging follows Chan, Golub & LeVeque (1983), eq. 2.1: no large mean is ever squared and subtracted.
    """

    n: float
    mean_x: Tensor
    mean_y: Tensor
    square_x: Tensor
    square_y: Tensor
    xx: Tensor | None
    xy: Tensor | None
    yy: Tensor | None
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Array, y: Array, weights: Tensor | None = None, blocks: Iterable[Block] = ALL_BLOCKS) -> Moments:
        """Moments of ``x`` ``(n, p)`` and ``y`` ``(n, q)``, with non-negative ``weights`` ``(n,)`` if given."""
        builder = MomentsBuilder(blocks)
        x, y = as_matrix(x, "x"), as_matrix(y, "y")
        require_paired(x, y, weights)
        for start in range(0, len(x), 8192):
            rows = slice(start, start + 8192)
            builder.add(x[rows], y[rows], None if weights is None else weights[rows])
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

        return replace(
            self,
            n=n,
            mean_x=self.mean_x + step * dx,
            mean_y=self.mean_y + step * dy,
            square_x=self.square_x + sign * other.square_x + between * dx.square(),
            square_y=self.square_y + sign * other.square_y + between * dy.square(),
            xx=merged(self.xx, other.xx, dx, dx),
            xy=merged(self.xy, other.xy, dx, dy),
            yy=merged(self.yy, other.yy, dy, dy),
            dtype=torch.promote_types(self.dtype, other.dtype),
        )

    @property
    def reversed(self) -> Moments:
        """The same moments with the two sides exchanged."""
        return Moments(
            n=self.n,
            mean_x=self.mean_y,
            mean_y=self.mean_x,
            square_x=self.square_y,
            square_y=self.square_x,
            xx=self.yy,
            xy=None if self.xy is None else self.xy.T,
            yy=self.xx,
            dtype=self.dtype,
        )

    def block(self, name: Block) -> Tensor:
        """The block ``xx``, ``xy`` or ``yy``. Raises `SutureError` if it was not accumulated."""
        value: Tensor | None = getattr(self, name)
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
    def rotation(self) -> Tensor:
        """``U V'`` ``(p, q)`` of `svd_xy`: the (semi-)orthogonal matrix with the largest ``tr(R' xy)``."""
        u, _, vt = self.svd_xy
        return u @ vt


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


class MomentsBuilder:
    """Accumulates `Moments` block by block in constant memory.

    Each block is centred on its own mean and multiplied in its working precision (float64 for float64 rows, else
    float32) in ``scratch`` memory that is used again, and that builders which take turns may share; only the
    accumulators are float64.
    """

    def __init__(self, blocks: Iterable[Block] = ALL_BLOCKS, scratch: dict[str, Tensor] | None = None) -> None:
        self._blocks = frozenset(blocks)
        self._total: Moments | None = None
        self._scratch = {} if scratch is None else scratch

    def add(self, x: Tensor, y: Tensor, weights: Tensor | None = None) -> None:
        """Take in the pairs ``x`` ``(m, p)`` and ``y`` ``(m, q)``; they are left as they are."""
        require_paired(x, y, weights)
        n = float(len(x)) if weights is None else float(weights.double().sum())
        if n <= 0:
            return
        dtype = torch.promote_types(working_dtype(x.dtype), working_dtype(y.dtype))
        xc, mean_x, square_x = self._centred("x", x, weights, dtype, n)
        yc, mean_y, square_y = self._centred("y", y, weights, dtype, n)
        total = self._total or self._empty(mean_x, mean_y, dtype)
        if (x.shape[1], y.shape[1]) != (total.source_dim, total.target_dim):
            raise SutureError(
                f"expected rows of {total.source_dim} and {total.target_dim} dims as before, got {x.shape[1]} and "
                f"{y.shape[1]}."
            )
        xw = xc if weights is None else xc * weights.to(xc)[:, None]
        yw = yc if weights is None else yc * weights.to(yc)[:, None]
        products = {"xx": (xw, xc), "xy": (xw, yc), "yy": (yw, yc)}
        asked = {name: products[name] for name in self._blocks}
        self._merge(n, mean_x, mean_y, [square_x, square_y], asked, total, dtype)

    def moments(self) -> Moments:
        """What has been accumulated. Raises `SutureError` if that is nothing."""
        if self._total is None:
            raise SutureError("expected at least one pair of rows, got none.")
        total = self._total

        def copied(block: Tensor | None) -> Tensor | None:
            return None if block is None else block.clone()

        return replace(total, xx=copied(total.xx), xy=copied(total.xy), yy=copied(total.yy))

    def _centred(
        self, side: str, rows: Tensor, weights: Tensor | None, dtype: torch.dtype, n: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The rows less their mean, in scratch memory, with that mean and the sums of their squares, in float64."""
        buffer = self._scratch.get(side)
        if buffer is None or buffer.dtype != dtype or len(buffer) < len(rows) or buffer.shape[1] != rows.shape[1]:
            buffer = self._scratch[side] = torch.empty(rows.shape, dtype=dtype, device=rows.device)
        work = buffer[: len(rows)].copy_(rows)
        mean = self._sums(work, weights).div_(n)
        squares = self._squares(work.sub_(mean), weights)
        # In the working precision the mean is off by its rounding. Where it is large beside the spread that matters,
        # and what is left of it is found on the centred rows; elsewhere another pass would buy nothing.
        if bool((n * mean.double().square() > 25 * squares).any()):
            rest = self._sums(work, weights).div_(n)
            squares = self._squares(work.sub_(rest), weights)
            return work, mean.double() + rest.double(), squares
        return work, mean.double(), squares

    @staticmethod
    def _sums(rows: Tensor, weights: Tensor | None) -> Tensor:
        return rows.sum(0) if weights is None else weights.to(rows) @ rows

    @staticmethod
    def _squares(centred: Tensor, weights: Tensor | None) -> Tensor:
        """Sums over rows of the squares ``(d,)`` in float64; a tenth of the time of a norm along the rows."""
        total = centred.new_zeros(centred.shape[1], dtype=torch.float64)
        for start in range(0, len(centred), PIECE_ROWS):
            squares = centred[start : start + PIECE_ROWS].square()
            some = None if weights is None else weights[start : start + PIECE_ROWS].to(squares)
            total += squares.sum(0) if some is None else some @ squares
        return total

    def _empty(self, mean_x: Tensor, mean_y: Tensor, dtype: torch.dtype) -> Moments:
        p, q = len(mean_x), len(mean_y)

        def zeros(name: Block, *shape: int) -> Tensor | None:
            return mean_x.new_zeros(shape) if name in self._blocks else None

        return Moments(
            n=0.0,
            mean_x=torch.zeros_like(mean_x),
            mean_y=torch.zeros_like(mean_y),
            square_x=torch.zeros_like(mean_x),
            square_y=torch.zeros_like(mean_y),
            xx=zeros("xx", p, p),
            xy=zeros("xy", p, q),
            yy=zeros("yy", q, q),
            dtype=dtype,
        )

    def _merge(
        self,
        n: float,
        mean_x: Tensor,
        mean_y: Tensor,
        squares: list[Tensor],
        products: dict[Block, tuple[Tensor, Tensor]],
        total: Moments,
        dtype: torch.dtype,
    ) -> None:
        """`Moments.__add__`, but in place: a new 8 d^2 bytes for every block would cost as much as the product."""
        both = total.n + n
        between = total.n * n / both
        dx, dy = mean_x - total.mean_x, mean_y - total.mean_y
        shifts = {"xx": (dx, dx), "xy": (dx, dy), "yy": (dy, dy)}
        for name, (left, right) in products.items():
            product = self._scratch.get(name)
            if product is None or product.dtype != left.dtype:
                product = self._scratch[name] = left.new_empty((left.shape[1], right.shape[1]))
            torch.mm(left.T, right, out=product)
            total.block(name).add_(product).addr_(*shifts[name], alpha=between)
        self._total = replace(
            total,
            n=both,
            mean_x=total.mean_x + (n / both) * dx,
            mean_y=total.mean_y + (n / both) * dy,
            square_x=total.square_x + squares[0] + between * dx.square(),
            square_y=total.square_y + squares[1] + between * dy.square(),
            dtype=torch.promote_types(total.dtype, dtype),
        )
