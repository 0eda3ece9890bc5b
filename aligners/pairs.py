"""Pairs of rows as a stream: what aligners read, wherever the rows come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from .arrays import Array, as_matrix, working_dtype
from .errors import SutureError

__all__ = ["PairBlock", "PairStream", "Pairs", "mix"]

BLOCK_ROWS = 8192


class PairBlock(NamedTuple):
    """Some pairs: ``x`` ``(m, p)``, ``y`` ``(m, q)``, a key ``(m,)`` int64 that rows of one group share, and weights.

    The arrays may be views of buffers that the next block overwrites.
    """

    x: Tensor
    y: Tensor
    keys: Tensor
    weights: Tensor | None = None


class PairStream(Protocol):
    """Anything that can hand out the same pairs, block by block, as often as it is asked."""

    @property
    def source_dim(self) -> int:
        """``p``."""

    @property
    def target_dim(self) -> int:
        """``q``."""

    @property
    def rows(self) -> int:
        """The number of pairs, or an upper bound of it."""

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[PairBlock]:
        """A new pass over all pairs, at most ``size`` at a time."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs in memory: ``x`` ``(n, p)``, ``y`` ``(n, q)``, ``keys`` ``(n,)`` int64, ``weights`` ``(n,)`` or none."""

    x: Tensor
    y: Tensor
    keys: Tensor
    weights: Tensor | None = None

    @classmethod
    def of(cls, x: Array, y: Array, keys: Array | None = None, weights: Array | None = None) -> Pairs:
        """Pairs of two arrays; ``keys`` are the row numbers, scrambled, where none are given.

        Raises `SutureError` unless both are matrices with the same number of rows and weights are not negative.
        """
        x, y = as_matrix(x, "x"), as_matrix(y, "y")
        if len(x) != len(y):
            raise SutureError(f"expected as many rows in x as in y, got {len(x)} and {len(y)}; are they paired?")
        for rows, what in ((x, "x"), (y, "y")):
            if not bool(torch.isfinite(rows).all()):
                raise SutureError(f"{what}: expected finite rows, got NaN or infinite values; drop those rows first.")
        for given, what in ((keys, "key"), (weights, "weight")):
            if given is not None and len(given) != len(x):
                raise SutureError(f"expected one {what} per pair, got {len(given)} for {len(x)} pairs.")
        w = None if weights is None else torch.as_tensor(weights)
        if w is not None and (bool((w < 0).any()) or not bool(torch.isfinite(w).all()) or not bool((w > 0).any())):
            raise SutureError("expected finite weights, none negative and not all zero.")
        if w is not None:
            w = w.double() * (len(w) / w.double().sum())  # mean 1, so that sums of weights go on counting rows
        return cls(x, y, mix(torch.arange(len(x))) if keys is None else as_keys(keys), w)

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        """All the pairs of ``parts``, in order."""
        weights = [p.weights for p in parts if p.weights is not None]
        return cls(
            torch.cat([p.x for p in parts]),
            torch.cat([p.y for p in parts]),
            torch.cat([p.keys for p in parts]),
            torch.cat(weights) if weights else None,
        )

    @property
    def source_dim(self) -> int:
        """``p``."""
        return self.x.shape[1]

    @property
    def target_dim(self) -> int:
        """``q``."""
        return self.y.shape[1]

    @property
    def rows(self) -> int:
        """``n``."""
        return len(self.x)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor | slice) -> Pairs:
        def some(of: Tensor) -> Tensor:
            # Twice as fast as an index, for whole rows.
            whole = isinstance(rows, Tensor) and rows.dtype == torch.int64
            return of.index_select(0, rows) if whole else of[rows]  # type: ignore[arg-type]

        return Pairs(some(self.x), some(self.y), some(self.keys), None if self.weights is None else some(self.weights))

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[PairBlock]:
        """The pairs in order, as views."""
        for start in range(0, len(self.x), size):
            some = self[start : start + size]
            yield PairBlock(some.x, some.y, some.keys, some.weights)

    def in_working_precision(self) -> Pairs:
        """The same pairs in float32, or float64 where they came so; always a copy."""
        x, y = (t.to(working_dtype(t.dtype), copy=True) for t in (self.x, self.y))
        return Pairs(x, y, self.keys.clone(), self.weights)


def as_keys(keys: Array) -> Tensor:
    """Keys of any integer type as int64, bit for bit. Raises `SutureError` on keys that are not a row of integers."""
    whole = (
        not (keys.is_floating_point() or keys.is_complex()) if isinstance(keys, Tensor) else keys.dtype.kind in "biu"
    )
    if keys.ndim != 1 or not whole:
        raise SutureError(f"expected integer keys (n,), got {keys.dtype} of shape {tuple(keys.shape)}; number them.")
    if isinstance(keys, Tensor):
        return keys.long()
    return torch.from_numpy(
        np.ascontiguousarray(keys).view(np.int64) if keys.dtype == np.uint64 else keys.astype(np.int64)
    )


def mix(keys: Tensor, seed: int = 0) -> Tensor:
    """int64 ``keys`` scrambled one to one and without state, so that any bits of the result can serve as dice.

    The finaliser of splitmix64 (Steele, Lea & Flood 2014) on two's-complement integers; a logical shift is written as
    an arithmetic one and a mask.
    """

    def shifted(z: Tensor, bits: int) -> Tensor:
        return (z >> bits) & ((1 << (64 - bits)) - 1)

    start = ((seed + 1) * 0x9E3779B97F4A7C15 + (1 << 63)) % (1 << 64) - (1 << 63)
    z = keys + start
    z = (z ^ shifted(z, 30)) * -0x40A7B892E31B1A47
    z = (z ^ shifted(z, 27)) * -0x6B2FB644ECCEEE15
    return z ^ shifted(z, 31)
