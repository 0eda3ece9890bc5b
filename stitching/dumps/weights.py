"""How much each pair counts: one number a source row, in a file of its own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...aligners.errors import RefusedError, SutureError
from .arrays import Rows

__all__ = ["Weights", "read_weights", "scaled"]

Weights = NDArray[np.float64]


def read_weights(path: Path, rows: int) -> Weights:
    """The weights `(rows,)` in a .npy file, or a .txt file with one number a line; 8 bytes a row in memory.

    SutureError where the file cannot be read so; RefusedError where they are not `rows` finite numbers, none negative
    and not all zero.
    """
    try:
        if path.suffix == ".npy":
            weights = np.load(path, allow_pickle=False)
        elif path.suffix == ".txt":
            weights = np.loadtxt(path, ndmin=1)
        else:
            raise SutureError(f"{path}: expected weights in a .npy file or, one a line, in a .txt file.")
        weights = np.asarray(weights, np.float64)
    except (OSError, ValueError) as error:
        raise SutureError(f"{path}: expected weights, one number a source row ({error}).") from error
    if weights.shape != (rows,):
        raise RefusedError(f"{path}: expected {rows} weights, one a source row, got an array of shape {weights.shape}.")
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise RefusedError(f"{path}: expected finite weights, none negative and not all zero.")
    return weights


def scaled(weights: Weights, paired: Iterator[Rows]) -> Weights:
    """The weights divided by their mean over the `paired` source rows, so that sums of them go on counting rows."""
    total, count = 0.0, 0
    for rows in paired:
        total, count = total + float(weights[rows].sum()), count + len(rows)
    if not total > 0:
        raise RefusedError("expected a pair of positive weight, got none: all rows that are paired weigh 0.")
    return weights * (count / total)
