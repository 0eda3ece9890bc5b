"""Accumulating `Moments` block by block, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from .arrays import working_dtype
from .errors import SutureError
from .moments import ALL_BLOCKS, SIDES, Block, Moments, Side, require_paired

__all__ = ["PIECE_ROWS", "MomentsBuilder"]

T = TypeVar("T")
BATCH_ROWS = 8192  # summed in their own precision
PIECE_ROWS = 2048  # stay in the cache
SPREAD_ROWS = 128
FEW_COLUMNS = 32


class _Piece(NamedTuple):
    """Weight, mean ``(d,)`` and what is left of it after a shift, of the two sides of some rows."""

    n: float
    mean: dict[Side, Tensor]
    left: dict[Side, Tensor]


def summed(rows: Tensor, weights: Tensor | None) -> Tensor:
    """The sums ``(d,)`` over ``rows`` ``(m, d)``, weighted if ``weights`` ``(m,)`` are given."""
    return rows.sum(0) if weights is None else weights.to(rows) @ rows


class MomentsBuilder:
    """Accumulates `Moments` of rows that come block by block.

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
        products: dict[Block, Tensor] = {
            name: self._memory(name, width[a], width[b], rows["x"], dtype).zero_()
            for name, (a, b) in SIDES.items()
            if name in self._blocks
        }
        alone = self._alone({s: given.new_zeros(width[s], dtype=torch.float64) for s, given in rows.items()})
        pieces: list[_Piece] = []
        for start in range(0, len(rows["x"]), PIECE_ROWS):
            some = slice(start, start + PIECE_ROWS)
            w = None if weights is None else weights[some]
            n = float(len(rows["x"][some])) if w is None else float(w.double().sum())
            if n <= 0:
                continue
            near: dict[Side, Tensor] = {}
            mean: dict[Side, Tensor] = {}
            left: dict[Side, Tensor] = {}
            for side, given in rows.items():
                near[side], mean[side], left[side] = self._near_centre(side, given[some], w, n, dtype)
            pieces.append(_Piece(n, mean, left))
            weighed = near
            if w is not None:
                weighed = {s: near[s] * w.to(dtype)[:, None] for s in {SIDES[name][0] for name in products}}
            for name, product in products.items():
                a, b = SIDES[name]
                product.addmm_(weighed[a].T, near[b])
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
        left: dict[Side, Tensor] = {}
        apart: dict[Side, Tensor] = {}
        mean: dict[Side, Tensor] = {}
        before: dict[Side, Tensor] = {"x": total.mean_x, "y": total.mean_y}
        for side, earlier in before.items():
            left[side] = torch.stack([piece.left[side] for piece in pieces])
            means = torch.stack([earlier, *(piece.mean[side] for piece in pieces)])
            mean[side] = every @ means / both
            apart[side] = means - mean[side]
        for name, product in products.items():
            a, b = SIDES[name]
            block = total.block(name).add_(product)
            block.addmm_((left[a] * n[:, None]).T, left[b], alpha=-1).addmm_((apart[a] * every[:, None]).T, apart[b])
        squares = {
            side: total.block(side) + own - n @ left[side].square() + every @ apart[side].square()
            for side, own in alone.items()
        }
        self._total = replace(total, n=both, mean_x=mean["x"], mean_y=mean["y"], x=squares.get("x"), y=squares.get("y"))
