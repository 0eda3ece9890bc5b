"""Mutual nearest neighbours: do two spaces put the same items next to each other?"""

from __future__ import annotations

import torch

from ..arrays import Array
from ..errors import SutureError
from .retrieval import overlap, search
from .rows import Null, paired_rows

__all__ = ["mutual_knn", "mutual_knn_null"]


def mutual_knn(x: Array, y: Array, k: int = 10) -> float:
    """The mean share of an item's ``k`` nearest by cosine, itself left out, that both spaces agree on.

    Huh et al. (2024, "The platonic representation hypothesis"), without their clipping of large values. It depends on
    k and on the number of rows: independent spaces score k / (n - 1), see `mutual_knn_null`.
    """
    return mutual_knn_null(x, y, k, draws=0).value


def mutual_knn_null(x: Array, y: Array, k: int = 10, *, draws: int = 100, seed: int = 0) -> Null:
    """The same with its permutation null; the neighbours are found once and renamed for each draw."""
    x, y = paired_rows(x, y)
    n = len(x)
    if not 1 <= k < n:
        raise SutureError(f"mutual_knn: expected k from 1 to {n - 1} for {n} rows, got {k}.")
    own = torch.arange(n)
    near_x, near_y = (search(rows, rows, k=k, exclude=own).top for rows in (x, y))
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(draws):
        order = torch.randperm(n, generator=generator)  # item i takes the place of item order[i]
        values.append(float(overlap(near_x, order.argsort()[near_y[order]]).mean()))
    return Null(float(overlap(near_x, near_y).mean()), torch.tensor(values, dtype=torch.float64))
