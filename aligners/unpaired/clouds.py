"""Two clouds of rows that do not correspond: checked, sampled, centred and scaled to unit length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..arrays import Array, as_matrix
from ..errors import RefusedError, SutureError

__all__ = ["Clouds", "checked_seeds", "finite_rows", "sampled_rows"]

FEWEST_ROWS = 50


@dataclass(frozen=True, eq=False)
class Clouds:
    """Rows ``x`` ``(n, p)`` and ``y`` ``(m, q)``, each centred and then of unit length, in float32.

    ``seeds`` ``(s, 2)``: row numbers in x and in y of the few items that are known to be the same. ``mean_x`` and
    ``mean_y``: what was subtracted, in float64.
    """

    x: Tensor
    y: Tensor
    seeds: Tensor
    mean_x: Tensor
    mean_y: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor, seeds: Tensor) -> Clouds:
        """The clouds of raw rows. Raises `RefusedError` where a side has hardly any rows or all are the same."""
        sides = []
        for rows, what in ((x, "x"), (y, "y")):
            if len(rows) < FEWEST_ROWS:
                raise RefusedError(
                    f"{what}: expected at least {FEWEST_ROWS} rows to see the shape of a space, got {len(rows)}; with "
                    "so few, pair them by hand and fit the pairs."
                )
            mean = rows.double().mean(0)
            centred = rows.double() - mean
            lengths = torch.linalg.vector_norm(centred, dim=1)
            if not float(lengths.median()) > 1e-9 * (1 + float(mean.norm())):
                raise RefusedError(f"{what}: expected rows that differ, got hardly any variance; is it the right dump?")
            sides.append((normalize(centred, dim=1).float(), mean))
        (a, mean_x), (b, mean_y) = sides
        return cls(a, b, seeds, mean_x, mean_y)

    def half(self, part: int, seed: int) -> Clouds:
        """Half of the rows of either side, without seeds; parts 0 and 1 have nothing in common."""
        kept = []
        for rows, salt in ((self.x, 0), (self.y, 1)):
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(2 * seed + salt))
            kept.append(rows[order[: len(rows) // 2] if part == 0 else order[len(rows) // 2 :]])
        return Clouds(kept[0], kept[1], self.seeds[:0], self.mean_x, self.mean_y)

    @property
    def reversed(self) -> Clouds:
        """The sides exchanged."""
        return Clouds(self.y, self.x, self.seeds.flip(1), self.mean_y, self.mean_x)


def checked_seeds(seeds: Array | Sequence[tuple[int, int]] | None, n: int, m: int) -> Tensor:
    """Seeds as ``(s, 2)`` int64; none are ``(0, 2)``.

    Raises `SutureError` on another shape or rows that are not there, `RefusedError` where a row is named twice.
    """
    if seeds is None:
        return torch.empty((0, 2), dtype=torch.int64)
    pairs = torch.as_tensor(np.asarray(seeds) if not isinstance(seeds, Tensor) else seeds)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.is_floating_point() or pairs.dtype == torch.bool:
        raise SutureError(f"seeds: expected row numbers (s, 2), got {pairs.dtype} of shape {tuple(pairs.shape)}.")
    pairs = pairs.long()
    for side, (rows, what) in enumerate(((n, "source"), (m, "target"))):
        column = pairs[:, side]
        if bool(((column < 0) | (column >= rows)).any()):
            bad = column[(column < 0) | (column >= rows)].tolist()[:5]
            raise SutureError(f"seeds: expected {what} rows within 0..{rows - 1}, got {bad}.")
        values, counts = torch.unique(column, return_counts=True)
        if bool((counts > 1).any()):
            raise RefusedError(
                f"seeds: expected every {what} row once, got {values[counts > 1].tolist()[:5]} more than once; which "
                "of their mates is right? Keep one pair of each."
            )
    return pairs


def sampled_rows(total: int, limit: int, seed: int, always: Tensor) -> Tensor:
    """At most ``limit`` row numbers of ``total``, sorted, ``always`` among them: a draw that depends on seed alone."""
    if total <= limit:
        return torch.arange(total)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    others = order[~torch.isin(order, always)][: max(0, limit - len(always))]
    return torch.cat([always, others]).sort().values


def finite_rows(rows: Array, what: str) -> Tensor:
    """``rows`` as a matrix. Raises `SutureError` on values that are no numbers."""
    matrix = as_matrix(rows, what)
    if not bool(torch.isfinite(matrix).all()):
        raise SutureError(f"{what}: expected finite rows, got NaN or infinite values; drop those rows first.")
    return matrix
