"""Checks of hyper-parameters and dims that several methods share; each says what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import RefusedError, UsageError
from ..moments import Moments

__all__ = [
    "check_choice",
    "check_number",
    "check_rank",
    "check_rank_fits",
    "check_variance",
    "ranks",
    "require_equal_dims",
]

RANKS = (8, 16, 32, 50, 64, 100, 128, 256, 512)


def check_number(what: str, value: float | None, low: float, high: float = math.inf, *, above: bool = False) -> None:
    """Raises `UsageError` unless ``value`` is None or finite and in [low, high] (in (low, high] with ``above``)."""
    if value is None:
        return
    real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not real or value > high or value < low or (above and value == low):
        least = f"above {low:g}" if above else f"from {low:g}"
        most = f" to {high:g}" if math.isfinite(high) else ""
        raise UsageError(f"{what}: expected a finite number {least}{most}, got {value!r}.")


def check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    """Raises `UsageError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise UsageError(f"{what}: expected one of {', '.join(choices)}, got {value!r}.")


def check_rank(what: str, value: int | None, *, least: int = 1) -> None:
    """Raises `UsageError` unless ``value`` is None or a whole number of at least ``least``."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise UsageError(f"{what}: expected a whole number of at least {least} or none, got {value!r}.")


def check_variance(method: str, moments: Moments) -> None:
    """Raises `RefusedError` if all rows of one side are the same, as far as their precision can tell."""
    for side, square in (("source", moments.square_x), ("target", moments.square_y)):
        if not float(square.sum()) > 0:
            raise RefusedError(
                f"{method}: expected {side} rows that differ, got no variance at all in {moments.dtype}: all rows are "
                "the same, or they differ by so little that its square is 0. Is it the right dump? If so, scale it up."
            )


def require_equal_dims(method: str, moments: Moments) -> None:
    """Raises `UsageError` unless both spaces have the same dims."""
    p, q = moments.source_dim, moments.target_dim
    if p != q:
        raise UsageError(
            f"{method}: expected spaces of equal dims, got {p} and {q}; procrustes and ridge join any two."
        )


def check_rank_fits(what: str, value: int | None, *dims: int) -> None:
    """Raises `UsageError` if ``value`` is more than the smallest of the ``dims``."""
    if value is not None and value > min(dims):
        raise UsageError(f"{what}: expected at most {min(dims)}, the dims there are, got {value}.")


def ranks(moments: Moments) -> tuple[int, ...]:
    """The ranks to choose among, smallest first: a grid below the dims and the pairs of a fold, and that limit."""
    limit = max(1, min(moments.source_dim, moments.target_dim, int(0.8 * moments.n) - 1))
    return (*(k for k in RANKS if k < limit), limit)
