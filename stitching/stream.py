"""Paired dumps as the stream of pairs that aligners read."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..aligners.pairs import BLOCK_ROWS, PairBlock, as_keys
from .dumps import Pairing

__all__ = ["PairedDumps", "names_of"]


@dataclass(frozen=True)
class PairedDumps:
    """A `PairStream` over a `Pairing`; the tensors are views of the readers' buffers.

    ``advance`` is told how many pairs were just read.
    """

    pairing: Pairing
    advance: Callable[[int], None] = lambda rows: None

    @property
    def source_dim(self) -> int:
        """Width of the source rows."""
        return self.pairing.source.dim

    @property
    def target_dim(self) -> int:
        """Width of the target rows."""
        return self.pairing.target.dim

    @property
    def rows(self) -> int:
        """Number of pairs, bad rows included."""
        return self.pairing.rows

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[PairBlock]:
        """One pass over the pairs."""
        for x, y, keys, weights in self.pairing.blocks(size):
            given = None if weights is None else torch.from_numpy(weights)
            yield PairBlock(torch.from_numpy(x), torch.from_numpy(y), as_keys(keys), given)
            self.advance(len(keys))


def names_of(pairing: Pairing, keys: Sequence[int]) -> list[Any]:
    """Ids (row numbers where there are none) of the source rows that have one of the int64 ``keys``."""
    wanted = np.asarray(keys, np.int64).view(np.uint64)
    rows, start = [], 0
    for block in pairing.key_blocks():
        rows.append(np.flatnonzero(np.isin(block, wanted)) + start)
        start += len(block)
    found = np.concatenate(rows)
    return found.tolist() if pairing.source.ids is None else pairing.source.ids.take(found).tolist()
