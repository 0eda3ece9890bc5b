"""Moments: the centred second moments of paired rows, which is all that a linear method needs to know.

They merge (``+``) and can be taken apart again (``-``), so one pass serves a matrix in memory, a dump on disk and a
cluster, and k-fold cross-validation costs no second pass: ``total - fold``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from .arrays import Array, as_matrix, working_dtype
from .errors import SutureError
from .polar import polar

__all__ = ["Moments", "MomentsBuilder"]

Side = Literal["x", "y"]
Block = Literal["xx", "xy", "yy", "x", "y"]
ALL_BLOCKS: frozenset[Block] = frozenset(("xx", "xy", "yy"))
T = TypeVar("T")
BATCH_ROWS = 8192  # summed in their own precision
PIECE_ROWS = 2048  # stay in the cache
SPREAD_ROWS = 128
FEW_COLUMNS = 32


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


class _Piece(NamedTuple):
    """Weight, mean ``(d,)`` and what is left of it after a shift, of the two sides of some rows."""

    n: float
    mean: dict[Side, Tensor]
    left: dict[Side, Tensor]


def summed(rows: Tensor, weights: Tensor | None) -> Tensor:
    """The sums ``(d,)`` over ``rows`` ``(m, d)``, weighted if ``weights`` ``(m,)`` are given."""
    return rows.sum(0) if weights is None else weights.to(rows) @ rows


class MomentsBuilder:
    """Accumulates `Moments` block by block in constant memory.

    Rows go through in pieces that stay in the cache from their conversion to the product: each is brought near its own
    mean, where that matters, and multiplied in its working precision (float64 for float64 rows, else float32). At most
    8,192 rows are summed in it before the float64 accumulators take over. ``scratch`` memory is used again, and
    builders that take turns may share it.
    """

    def __init__(self, blocks: Iterable[Block] = ALL_BLOCKS, scratch: dict[str, Tensor] | None = None) -> None:
        self._blocks = frozenset(blocks)
        self._total: Moments | None = None
        self._scratch = {} if scratch is None else scratch

    def add(self, x: Tensor, y: Tensor, weights: Tensor | None = None) -> None:
        """Take in the pairs ``x`` ``(m, p)`` and ``y`` ``(m, q)``; they are left as they are."""
        require_paired(x, y, weights)
        dtype = torch.promote_types(working_dtype(x.dtype), working_dtype(y.dtype))
        total = self._total = self._total or self._empty(x, y, dtype)
        if (x.shape[1], y.shape[1]) != (total.source_dim, total.target_dim):
            raise SutureError(
                f"expected rows of {total.source_dim} and {total.target_dim} dims as before, got {x.shape[1]} and "
                f"{y.shape[1]}."
            )
        # Products of few columns are summed one row after the other, which costs digits; in float64 they cost no time.
        multiplied = torch.float64 if min(x.shape[1], y.shape[1]) < FEW_COLUMNS else dtype
        for start in range(0, len(x), BATCH_ROWS):
            rows = slice(start, start + BATCH_ROWS)
            w = None if weights is None else weights[rows]
            self._add_batch({"x": x[rows], "y": y[rows]}, w, multiplied)
        self._total = replace(self._total, dtype=torch.promote_types(total.dtype, dtype))

    def moments(self) -> Moments:
        """What has been accumulated. Raises `SutureError` if that is nothing."""
        total = self._total
        if total is None or not total.n:
            raise SutureError("expected at least one pair of rows, got none.")

        def copied(block: Tensor | None) -> Tensor | None:
            return None if block is None else block.clone()

        return replace(total, xx=copied(total.xx), xy=copied(total.xy), yy=copied(total.yy))

    def _alone(self, sides: dict[Side, T]) -> dict[Side, T]:
        """Those of the two sides whose squares are asked for, and are not the diagonal of a block that is."""
        return {side: value for side, value in sides.items() if side in self._blocks and 2 * side not in self._blocks}

    def _empty(self, x: Tensor, y: Tensor, dtype: torch.dtype) -> Moments:
        zero_x, zero_y = (rows.new_zeros(rows.shape[1], dtype=torch.float64) for rows in (x, y))

        def zeros(name: Block, a: Tensor, b: Tensor) -> Tensor | None:
            return torch.outer(a, b) if name in self._blocks else None

        return Moments(
            n=0.0,
            mean_x=zero_x,
            mean_y=zero_y,
            xx=zeros("xx", zero_x, zero_x),
            xy=zeros("xy", zero_x, zero_y),
            yy=zeros("yy", zero_y, zero_y),
            **{"x": None, "y": None, **self._alone({"x": zero_x, "y": zero_y})},
            dtype=dtype,
        )

    def _memory(self, name: str, rows: int, columns: int, like: Tensor, dtype: torch.dtype) -> Tensor:
        """Scratch memory ``(rows, columns)``, with whatever was left in it."""
        found = self._scratch.get(name)
        if found is None or (found.shape, found.dtype, found.device) != ((rows, columns), dtype, like.device):
            found = self._scratch[name] = torch.empty((rows, columns), dtype=dtype, device=like.device)
        return found

    def _add_batch(self, rows: dict[Side, Tensor], weights: Tensor | None, dtype: torch.dtype) -> None:
        """Multiply ``rows`` piece by piece in ``dtype``, and merge."""
        width = {side: given.shape[1] for side, given in rows.items()}
        products = {
            name: self._memory(name, width[name[0]], width[name[1]], rows["x"], dtype).zero_()
            for name in ("xx", "xy", "yy")
            if name in self._blocks
        }
        alone = self._alone({side: torch.zeros(d, dtype=torch.float64) for side, d in width.items()})
        pieces: list[_Piece] = []
        for start in range(0, len(rows["x"]), PIECE_ROWS):
            some = slice(start, start + PIECE_ROWS)
            w = None if weights is None else weights[some]
            n = float(len(rows["x"][some])) if w is None else float(w.double().sum())
            if n <= 0:
                continue
            near, mean, left = {}, {}, {}
            for side, given in rows.items():
                near[side], mean[side], left[side] = self._near_centre(side, given[some], w, n, dtype)
            pieces.append(_Piece(n, mean, left))
            lefts = near if w is None else {s: near[s] * w.to(dtype)[:, None] for s in {name[0] for name in products}}
            for name, product in products.items():
                product.addmm_(lefts[name[0]].T, near[name[1]])
            for side, squares in alone.items():
                squares += summed(near[side].square(), w)
        if pieces:
            self._merge(pieces, products, alone)

    def _near_centre(
        self, side: Side, rows: Tensor, weights: Tensor | None, n: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At most ``PIECE_ROWS`` rows in ``dtype`` less a shift; their mean without it; and the mean left in them.

        A mean within the spread, of which a few rows tell, may stay: that it is subtracted from the products, not the
        rows, costs half a digit and saves a pass. Of a larger one only the rounding is left.
        """
        memory = self._memory(side, PIECE_ROWS, rows.shape[1], rows, dtype)[: len(rows)]
        near = rows if rows.dtype == dtype else memory.copy_(rows)
        mean = summed(near, weights).div_(n)
        spread = (near[:SPREAD_ROWS] - mean).square_().mean(0)
        if bool((mean.square() <= 0.25 * spread).all()):
            return near, mean.double(), mean.double()
        near = torch.sub(near, mean, out=memory)
        left = summed(near, weights).div_(n).double()
        return near, mean.double() + left, left

    def _merge(self, pieces: Sequence[_Piece], products: dict[Block, Tensor], alone: dict[Side, Tensor]) -> None:
        """`Moments.__add__` for many pieces whose ``products`` are summed already, and in place.

        What was left of the means is taken out, and what the means differ by is put in, each by one product of as many
        rows as there are pieces: 8 d^2 bytes for every piece would cost as much as its own product.
        """
        total = self._total
        assert total is not None  # made by `add`
        n = total.mean_x.new_tensor([piece.n for piece in pieces])
        every = torch.cat((n.new_tensor([total.n]), n))
        both = float(every.sum())
        left, apart, mean = {}, {}, {}
        for side, before in (("x", total.mean_x), ("y", total.mean_y)):
            left[side] = torch.stack([piece.left[side] for piece in pieces])
            means = torch.stack([before, *(piece.mean[side] for piece in pieces)])
            mean[side] = every @ means / both
            apart[side] = means - mean[side]
        for name, product in products.items():
            a, b = name
            block = total.block(name).add_(product)
            block.addmm_((left[a] * n[:, None]).T, left[b], alpha=-1).addmm_((apart[a] * every[:, None]).T, apart[b])
        squares = {
            side: total.block(side) + own - n @ left[side].square() + every @ apart[side].square()
            for side, own in alone.items()
        }
        self._total = replace(total, n=both, mean_x=mean["x"], mean_y=mean["y"], **squares)
