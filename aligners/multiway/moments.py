"""ManyMoments: all that linear methods need to know of many spaces with missing rows, in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..arrays import working_dtype
from ..errors import RefusedError
from .many import ManyBlock

__all__ = ["ManyBuilder", "ManyMoments"]


@dataclass(frozen=True, eq=False)
class ManyMoments:
    """Sums in float64 over items i of ``z_i``, the rows that the spaces have of it, side by side, 0 where one has none.

    Each space's part of z is ``[x - shift, 1]``. ``joint`` is ``sum_i z_i' z_i / c_i`` with c_i the number of spaces
    that have the item, so that ``joint @ V`` is ``sum_i z_i' g_i`` with the mean ``g_i`` of an item's rows mapped by V;
    ``own[k]`` is ``sum z_k' z_k``; ``shared`` ``(m, m)`` counts the items that two spaces have in common.
    ``based[k]``, where a base was named, is ``sum z_k' z_k / c_i`` over the items that k shares with it.
    """

    dims: Mapping[str, int]
    shift: Mapping[str, Tensor]
    joint: Tensor
    own: Mapping[str, Tensor]
    shared: Tensor
    items: int
    dtype: torch.dtype
    based: Mapping[str, Tensor]

    @property
    def names(self) -> tuple[str, ...]:
        """The spaces, in order."""
        return tuple(self.dims)

    @cached_property
    def parts(self) -> Mapping[str, slice]:
        """Where each space stands in z."""
        parts, start = {}, 0
        for name, dim in self.dims.items():
            parts[name] = slice(start, start + dim + 1)
            start += dim + 1
        return parts

    def rows(self, name: str) -> float:
        """Number of rows of that space."""
        return float(self.own[name][-1, -1])

    def mean(self, name: str) -> Tensor:
        """Mean row ``(p,)`` of a space, less its shift."""
        return self.own[name][:-1, -1] / self.own[name][-1, -1]

    def covariance(self, name: str) -> Tensor:
        """``Xc'Xc`` ``(p, p)`` of a space."""
        return self.own[name][:-1, :-1] - self.rows(name) * torch.outer(self.mean(name), self.mean(name))

    def __sub__(self, other: ManyMoments) -> ManyMoments:
        """Without the ``other`` items, which must be among these, summed about the same shift."""
        return replace(
            self,
            joint=self.joint - other.joint,
            own={name: total - other.own[name] for name, total in self.own.items()},
            based={name: total - other.based[name] for name, total in self.based.items()},
            shared=self.shared - other.shared,
            items=self.items - other.items,
        )

    def require_connected(self, method: str) -> None:
        """Raises `RefusedError` where some spaces share no items, directly or through others, with the rest."""
        reached = torch.zeros(len(self.shared), dtype=torch.bool)
        reached[0] = True
        for _ in self.names:
            reached |= (self.shared[reached] > 0).any(0)
        if not bool(reached.all()):
            there = [name for name, yes in zip(self.names, reached.tolist(), strict=True) if yes]
            others = [name for name in self.names if name not in there]
            raise RefusedError(
                f"{method}: expected spaces that hang together by shared items; {', '.join(others)} share none with "
                f"{', '.join(there)}. Are the ids written the same way? Give items that bridge them."
            )

    def require_variance(self, method: str) -> None:
        """Raises `RefusedError` where all rows of a space are the same."""
        for name in self.names:
            if not float(self.covariance(name).trace()) > 0:
                raise RefusedError(f"{method}: expected rows of {name} that differ, got no variance at all.")


class ManyBuilder:
    """Adds up blocks of items. The shift is the mean of the first rows of each space, or the one given."""

    def __init__(
        self, dims: Mapping[str, int], shift: Mapping[str, Tensor] | None = None, base: str | None = None
    ) -> None:
        self.dims = dict(dims)
        self.shift = dict(shift or {})
        width = sum(dims.values()) + len(dims)
        self.joint = torch.zeros(width, width, dtype=torch.float64)
        self.own = {name: torch.zeros(dim + 1, dim + 1, dtype=torch.float64) for name, dim in dims.items()}
        self.base = base
        self.based = {} if base is None else {name: torch.zeros_like(own) for name, own in self.own.items()}
        self.shared = torch.zeros(len(dims), len(dims), dtype=torch.float64)
        self.items = 0
        self.dtype = torch.float32

    def add(self, block: ManyBlock) -> None:
        """One block of items. Large means never enter a square: rows are shifted before they are multiplied."""
        present = torch.stack([block.present[name] for name in self.dims], 1)
        dtype = torch.float32
        for rows in block.rows.values():
            dtype = torch.promote_types(dtype, working_dtype(rows.dtype))
        self.dtype = torch.promote_types(self.dtype, dtype)
        z, start = torch.zeros(len(present), len(self.joint), dtype=dtype), 0
        for name, dim in self.dims.items():
            rows = block.rows[name]
            if len(rows):
                if name not in self.shift:
                    self.shift[name] = rows.double().mean(0)
                own = torch.cat(
                    [(rows.double() - self.shift[name]).to(dtype), rows.new_ones(len(rows), 1).to(dtype)], 1
                )
                self.own[name] += own.T @ own
                z[block.present[name], start : start + dim + 1] = own
            start += dim + 1
        counts = present.sum(1)
        start = 0
        for name, both in self.based.items():
            some = z[block.present[name] & block.present[str(self.base)], start : start + self.dims[name] + 1]
            weigh = counts[block.present[name] & block.present[str(self.base)], None]
            both += (some / weigh).T @ some
            start += self.dims[name] + 1
        self.joint += (z / counts[:, None].clamp(min=1)).T @ z
        self.shared += present.double().T @ present.double()
        self.items += int((counts > 0).sum())

    def moments(self) -> ManyMoments:
        """What was added up."""
        shift = {n: self.shift.get(n, torch.zeros(d, dtype=torch.float64)) for n, d in self.dims.items()}
        return ManyMoments(self.dims, shift, self.joint, self.own, self.shared, self.items, self.dtype, self.based)
