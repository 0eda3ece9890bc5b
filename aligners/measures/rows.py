"""What measures of two sets of rows have in common: checked rows, and the null of shuffled pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arrays import Array, as_matrix
from ..errors import SutureError
from ..moments import Block, Moments

__all__ = ["Measure", "Null", "of_moments", "paired_rows", "permutation_null"]

Measure = Callable[[Array, Array], float]


def paired_rows(x: Array, y: Array, least: int = 2) -> tuple[Tensor, Tensor]:
    """``x`` ``(n, p)`` and ``y`` ``(n, q)`` in float64. Raises `SutureError` unless both have n >= ``least`` rows."""
    x, y = as_matrix(x, "x"), as_matrix(y, "y")
    if len(x) != len(y):
        raise SutureError(f"expected as many rows in x as in y, got {len(x)} and {len(y)}; are they paired?")
    if len(x) < least:
        raise SutureError(f"expected at least {least} pairs of rows to compare, got {len(x)}.")
    return x.double(), y.double()


def of_moments(measure: Callable[[Moments], float], *blocks: Block) -> Measure:
    """The ``measure`` of moments as one of rows, of which it takes the ``blocks``."""

    def of_rows(x: Array, y: Array) -> float:
        return measure(Moments.of(*paired_rows(x, y), blocks=blocks))

    return of_rows


@dataclass(frozen=True, eq=False)
class Null:
    """A measure's ``value``, and its ``draws`` ``(d,)`` with the rows of y handed round."""

    value: float
    draws: Tensor

    @property
    def mean(self) -> float:
        """What the measure gives where there is nothing to find."""
        return float(self.draws.mean())

    @property
    def p_value(self) -> float:
        """One-sided, of a measure that is larger for what is more alike: (1 + draws as large) / (1 + draws)."""
        return (1 + int((self.draws >= self.value).sum())) / (1 + len(self.draws))


def permutation_null(measure: Measure, x: Array, y: Array, *, draws: int = 100, seed: int = 0) -> Null:
    """``measure`` of the pairs and of the shuffled pairs of each of the ``draws``, which cost as much as the first."""
    a, b = paired_rows(x, y)
    generator = torch.Generator().manual_seed(seed)
    found = [measure(a, b[torch.randperm(len(b), generator=generator)]) for _ in range(draws)]
    return Null(measure(a, b), torch.tensor(found, dtype=torch.float64))
