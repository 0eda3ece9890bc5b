"""Paired bootstrap over queries: how far a mean could have come out otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import SutureError

__all__ = ["Bootstrap", "Interval"]

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its percentile interval (95 % unless said otherwise)."""

    estimate: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """``{"estimate", "low", "high"}``."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high}


class Bootstrap:
    """Resampled means of several columns, all on the same draws, so that differences between them are paired.

    ``columns``: per-query values ``(n,)`` by name; nan marks a query on which the column is not defined. ``groups``
    ``(n,)``: queries of one group are drawn together (cluster bootstrap; Field & Welsh 2007).
    """

    def __init__(
        self, columns: Mapping[str, Tensor], groups: Tensor | None = None, *, draws: int = DRAWS, seed: int = 0
    ) -> None:
        lengths = {len(v) for v in columns.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise SutureError(f"expected columns of one non-zero length, got lengths {sorted(lengths)}.")
        self._names = list(columns)
        values = torch.stack([columns[name].double() for name in self._names], dim=1)
        sums = torch.cat([values.nan_to_num(0.0), (~values.isnan()).double()], dim=1)
        if groups is not None:
            if len(groups) != len(values):
                raise SutureError(f"expected one group per query, got {len(groups)} for {len(values)} queries.")
            _, index = torch.unique(groups, return_inverse=True)
            sums = sums.new_zeros((int(index.max()) + 1, sums.shape[1])).index_add_(0, index, sums)
        self._mean = self._ratio(sums.sum(0))
        self._draws = self._ratio(resampled_sums(sums, draws, seed))

    def _ratio(self, sums: Tensor) -> Tensor:
        total, count = sums.chunk(2, dim=-1)
        return total / count

    def statistic(self, function: Callable[..., Tensor], *names: str, level: float = LEVEL) -> Interval:
        """A ``function`` of the means of these columns, of which it gets each draw's: ``function(a, b)`` -> Tensor."""
        at = [self._names.index(name) for name in names]
        estimate, draws = (function(*(means[..., i] for i in at)) for means in (self._mean, self._draws))
        return self._interval(estimate, draws, level)

    def doubt(self, name: str, other: str) -> float:
        """The share of draws, itself counted, in which the mean of ``name`` is not above that of ``other``."""
        i, j = self._names.index(name), self._names.index(other)
        ahead = self._draws[:, i] > self._draws[:, j]
        return (1 + float((~ahead).sum())) / (1 + len(ahead))

    def _interval(self, estimate: Tensor, draws: Tensor, level: float) -> Interval:
        tail = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        low, high = torch.nanquantile(draws, tail).tolist()
        return Interval(float(estimate), low, high)

    def mean(self, name: str, level: float = LEVEL) -> Interval:
        """The mean of one column."""
        i = self._names.index(name)
        return self._interval(self._mean[i], self._draws[:, i], level)

    def difference(self, name: str, other: str, level: float = LEVEL) -> Interval:
        """The mean of one column less that of another, draw by draw."""
        i, j = self._names.index(name), self._names.index(other)
        return self._interval(self._mean[i] - self._mean[j], self._draws[:, i] - self._draws[:, j], level)

    def ratio(self, name: str, other: str, level: float = LEVEL) -> Interval:
        """The mean of one column divided by that of another, draw by draw."""
        i, j = self._names.index(name), self._names.index(other)
        return self._interval(self._mean[i] / self._mean[j], self._draws[:, i] / self._draws[:, j], level)


def resampled_sums(sums: Tensor, draws: int, seed: int) -> Tensor:
    """Column sums ``(draws, c)`` of ``sums`` ``(n, c)`` over rows drawn with replacement, by a generator of its own."""
    n = len(sums)
    generator = torch.Generator().manual_seed(seed)
    step = max(1, 4_000_000 // n)  # at most 32 MB of counts at a time
    parts = []
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        drawn = torch.randint(n, (rows, n), generator=generator)
        counts = torch.zeros((rows, n), dtype=torch.float64).scatter_add_(
            1, drawn, torch.ones(1, dtype=torch.float64).expand(rows, n)
        )
        parts.append(counts @ sums.cpu())
    return torch.cat(parts)
