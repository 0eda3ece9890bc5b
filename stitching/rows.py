"""Rows of dumps as tensors: in blocks, by number, in the order of another dump; and right answers as lists."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..aligners.errors import RefusedError
from .dumps import BadRows, Dump, Screen, find_bad, pair
from .dumps.badrows import ADVICE

__all__ = ["BLOCK", "Reader", "all_rows", "answer_lists", "in_order_of", "partners", "reader", "rows_of", "screened"]

BLOCK = 8192


@dataclass(frozen=True)
class Reader:
    """Rows in float32: ``blocks`` hands them out, each block overwritten by the next, and ``rows`` finds some."""

    blocks: Callable[[], Iterator[Tensor]]
    rows: Callable[[Tensor], Tensor]

    def all(self) -> Tensor:
        """All of them."""
        return torch.cat([block.clone() for block in self.blocks()])


def reader(dump: Dump) -> Reader:
    """The rows of a dump, bad ones refused."""
    return Reader(lambda: screened(dump), lambda rows: rows_of(dump, rows))


def all_rows(dump: Dump) -> Tensor:
    """All rows ``(m, dim)`` of a dump that fits in memory, bad ones refused."""
    return reader(dump).all()


def screened(dump: Dump, size: int = BLOCK) -> Iterator[Tensor]:
    """The blocks of a dump in float32, bad rows refused at the end; each is overwritten by the next."""
    with Screen(BadRows(), dump) as screen:
        start = 0
        for block in dump.blocks(size):
            screen.keep((block,), (np.arange(start, start + len(block)),))
            start += len(block)
            if not screen.refusing:
                yield torch.from_numpy(block).float()


def rows_of(dump: Dump, rows: Tensor) -> Tensor:
    """The named rows of a dump. Raises `RefusedError` on bad ones among them."""
    found = dump.gather(rows.numpy())
    if bad := find_bad(found):
        reason, at = next(iter(bad.items()))
        where = f"row {int(rows[at[0]])} is {reason}"
        raise RefusedError(f"{dump.name}: expected finite non-zero vectors, {where}.\n{ADVICE}")
    return torch.from_numpy(found).float()


def partners(first: Dump, second: Dump, *, by_row: bool) -> Tensor:
    """The row ``(first.rows,)`` of ``second`` that belongs to each of ``first``, -1 where there is none: 8 bytes a row.

    By id where both have ids, else by position.
    """
    return torch.from_numpy(pair(first, second, by_row=by_row, by_table=False).partners())


def in_order_of(first: Dump, second: Dump, *, by_row: bool) -> Reader:
    """The rows of ``second`` that belong to those of ``first``, in that order; all must be there."""
    pairing = pair(first, second, by_row=by_row, by_table=False)
    if pairing.rows != first.rows:
        raise RefusedError(
            f"expected all {first.rows} rows of {first.name} in {second.name} too, it has {pairing.rows} of them."
        )
    if pairing.report["order"] == "same":
        return reader(second)
    order = torch.from_numpy(pairing.target_rows())

    def blocks() -> Iterator[Tensor]:
        with Screen(BadRows(), second) as screen:
            for rows in torch.split(order, BLOCK):
                block = second.gather(rows.numpy())
                screen.keep((block,), (rows.numpy(),))
                if not screen.refusing:
                    yield torch.from_numpy(block).float()

    return Reader(blocks, lambda rows: rows_of(second, order[rows]))


def answer_lists(relevant: Sequence[Any], queries: int, rows: int) -> tuple[Tensor, Tensor]:
    """The right answers as two aligned lists, query and gallery row, sorted by query.

    Raises `RefusedError` for another number of queries, rows that are not there, and where nothing at all is right.
    """
    if len(relevant) != queries:
        raise RefusedError(f"expected right answers for each of {queries} queries, got {len(relevant)} of them.")
    each = [np.unique(np.asarray(r, np.int64)) for r in relevant]  # an answer named twice counts once
    query = torch.from_numpy(np.repeat(np.arange(queries), list(map(len, each))))
    row = torch.from_numpy(np.concatenate(each))
    if not len(row):
        raise RefusedError(
            f"expected at least one query with a right answer, none of {queries} has one: name gallery rows or ids for "
            "those that have, or leave --relevant out."
        )
    if int(row.min()) < 0 or int(row.max()) >= rows:
        raise RefusedError(f"expected right answers among the {rows} gallery rows, got row {int(row.max())}.")
    return query, row
