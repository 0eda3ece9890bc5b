"""Moments: the centred second moments of paired rows, which is all that a linear method needs to know.

They merge (``+``) and can be taken apart again (``-``), so one pass serves a matrix in memory, a dump on disk and a
cluster, and k-fold cross-validation costs no second pass: ``total - fold``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from .arrays import Array, as_matrix, working_dtype
from .errors import SutureError
from .polar import polar

__all__ = ["Moments", "MomentsBuilder"]

Block = Literal["xx", "xy", "yy", "x", "y"]
ALL_BLOCKS: frozenset[Block] = frozenset(("xx", "xy", "yy"))
T = TypeVar("T")
PIECE_ROWS = 1024  # the squares of so many rows stay in the cache


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
    def rotation(self) -> Tensor:
        """``U V'`` ``(p, q)`` of ``xy = U S V'``: the (semi-)orthogonal matrix with the largest ``tr(R' xy)``."""
        return polar(self.block("xy"))


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


def summed(rows: Tensor, weights: Tensor | None) -> Tensor:
    """The sums ``(d,)`` over ``rows`` ``(m, d)``, weighted if ``weights`` ``(m,)`` are given."""
    return rows.sum(0) if weights is None else weights.to(rows) @ rows


def squared(rows: Tensor, weights: Tensor | None) -> Tensor:
    """The sums of squares ``(d,)`` in float64, a piece of the rows at a time.

    A tenth of the time of a norm along the rows.
    """
    total = rows.new_zeros(rows.shape[1], dtype=torch.float64)
    for start in range(0, len(rows), PIECE_ROWS):
        piece = slice(start, start + PIECE_ROWS)
        total += summed(rows[piece].square(), None if weights is None else weights[piece])
    return total


class _NearCentre(NamedTuple):
    """Rows ``(m, d)``, their mean before anything was subtracted, and the mean that is ``left`` in them."""

    rows: Tensor
    mean: Tensor
    left: Tensor


class MomentsBuilder:
    """Accumulates `Moments` block by block in constant memory.

    Each block is centred on its own mean, where that matters, and multiplied in its working precision (float64 for
    float64 rows, else float32) in ``scratch`` memory that is used again, and that builders which take turns may share;
    only the accumulators are float64.
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
        left, right = self._near_centre("x", x, weights, dtype, n), self._near_centre("y", y, weights, dtype, n)
        total = self._total or self._empty(left.mean, right.mean, dtype)
        if (x.shape[1], y.shape[1]) != (total.source_dim, total.target_dim):
            raise SutureError(
                f"expected rows of {total.source_dim} and {total.target_dim} dims as before, got {x.shape[1]} and "
                f"{y.shape[1]}."
            )
        self._merge(n, left, right, weights, total, dtype)

    def moments(self) -> Moments:
        """What has been accumulated. Raises `SutureError` if that is nothing."""
        if self._total is None:
            raise SutureError("expected at least one pair of rows, got none.")
        total = self._total

        def copied(block: Tensor | None) -> Tensor | None:
            return None if block is None else block.clone()

        return replace(total, xx=copied(total.xx), xy=copied(total.xy), yy=copied(total.yy))

    def _alone(self, sides: dict[Block, T]) -> dict[Block, T]:
        """Those of the two sides whose squares are asked for, and are not the diagonal of a block that is."""
        return {name: value for name, value in sides.items() if name in self._blocks and 2 * name not in self._blocks}

    def _near_centre(
        self, side: str, rows: Tensor, weights: Tensor | None, dtype: torch.dtype, n: float
    ) -> _NearCentre:
        """The rows in scratch memory, their mean, and what is left of it in them.

        A mean within the spread may stay: that it is subtracted from the products, not the rows, costs half a digit and
        saves a pass. A larger one is subtracted, and where it is so large that its own rounding matters, so is what is
        left of it. A few rows tell the spread.
        """
        buffer = self._scratch.get(side)
        if buffer is None or buffer.dtype != dtype or len(buffer) < len(rows) or buffer.shape[1] != rows.shape[1]:
            buffer = self._scratch[side] = torch.empty(rows.shape, dtype=dtype, device=rows.device)
        work = buffer[: len(rows)].copy_(rows)
        mean = summed(work, weights).div_(n)
        spread = (work[:PIECE_ROWS] - mean).square_().mean(0)
        if bool((mean.square() <= 0.25 * spread).all()):
            return _NearCentre(work, mean.double(), mean.double())
        work.sub_(mean)
        if not bool((mean.square() > 25 * spread).any()):
            return _NearCentre(work, mean.double(), torch.zeros_like(mean, dtype=torch.float64))
        rest = summed(work, weights).div_(n)
        work.sub_(rest)
        return _NearCentre(work, mean.double() + rest.double(), torch.zeros_like(mean, dtype=torch.float64))

    def _empty(self, mean_x: Tensor, mean_y: Tensor, dtype: torch.dtype) -> Moments:
        p, q = len(mean_x), len(mean_y)

        def zeros(name: Block, *shape: int) -> Tensor | None:
            return mean_x.new_zeros(shape) if name in self._blocks else None

        return Moments(
            n=0.0,
            mean_x=torch.zeros_like(mean_x),
            mean_y=torch.zeros_like(mean_y),
            xx=zeros("xx", p, p),
            xy=zeros("xy", p, q),
            yy=zeros("yy", q, q),
            **{"x": None, "y": None, **self._alone({"x": torch.zeros_like(mean_x), "y": torch.zeros_like(mean_y)})},
            dtype=dtype,
        )

    def _merge(
        self,
        n: float,
        left: _NearCentre,
        right: _NearCentre,
        weights: Tensor | None,
        total: Moments,
        dtype: torch.dtype,
    ) -> None:
        """`Moments.__add__`, but in place: a new 8 d^2 bytes for every block would cost as much as the product."""
        both = total.n + n
        between = total.n * n / both
        dx, dy = left.mean - total.mean_x, right.mean - total.mean_y
        sides: dict[Block, tuple[_NearCentre, _NearCentre, Tensor, Tensor]] = {
            "xx": (left, left, dx, dx),
            "xy": (left, right, dx, dy),
            "yy": (right, right, dy, dy),
        }
        asked = self._blocks & sides.keys()
        lefts = {side: a.rows for side, a in (("x", left), ("y", right)) if any(name[0] == side for name in asked)}
        if weights is not None:
            lefts = {side: rows * weights.to(rows)[:, None] for side, rows in lefts.items()}
        for name in asked:
            a, b, da, db = sides[name]
            product = self._scratch.get(name)
            if product is None or product.dtype != dtype:
                product = self._scratch[name] = a.rows.new_empty((a.rows.shape[1], b.rows.shape[1]))
            torch.mm(lefts[name[0]].T, b.rows, out=product)
            total.block(name).add_(product).addr_(a.left, b.left, alpha=-n).addr_(da, db, alpha=between)
        squares = {
            name: total.block(name) + squared(side.rows, weights) - n * side.left.square() + between * d.square()
            for name, (side, d) in self._alone({"x": (left, dx), "y": (right, dy)}).items()
        }
        self._total = replace(
            total,
            n=both,
            mean_x=total.mean_x + (n / both) * dx,
            mean_y=total.mean_y + (n / both) * dy,
            **squares,
            dtype=torch.promote_types(total.dtype, dtype),
        )
