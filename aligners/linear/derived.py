"""What several linear methods derive from moments: other origins and units, projections, and a memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from ..moments import Moments

__all__ = ["inverse_where_positive", "least_squares_scale", "projected", "remembered", "standardised", "uncentred"]

P = ParamSpec("P")
T = TypeVar("T")


def remembered(f: Callable[Concatenate[Moments, P], T]) -> Callable[Concatenate[Moments, P], T]:
    """``f(moments, *args)``, its last result kept with the moments: ranks and powers are tried at no new cost."""

    @wraps(f)
    def derived(moments: Moments, /, *args: P.args, **kwargs: P.kwargs) -> T:
        memory: dict[Any, tuple[Any, T]] = moments.__dict__.setdefault("_remembered", {})
        asked = (args, tuple(sorted(kwargs.items())))
        if f not in memory or memory[f][0] != asked:
            memory[f] = asked, f(moments, *args, **kwargs)
        return memory[f][1]

    return derived


def uncentred(moments: Moments) -> Moments:
    """The moments about the origin instead of about the means: means 0, ``S + n m m'``."""

    def shifted(block: Tensor | None, a: Tensor, b: Tensor) -> Tensor | None:
        return None if block is None else torch.addr(block, a, b, alpha=moments.n)

    mx, my = moments.mean_x, moments.mean_y
    return replace(
        moments,
        mean_x=torch.zeros_like(mx),
        mean_y=torch.zeros_like(my),
        xx=shifted(moments.xx, mx, mx),
        xy=shifted(moments.xy, mx, my),
        yy=shifted(moments.yy, my, my),
        x=None if moments.x is None else moments.x + moments.n * mx.square(),
        y=None if moments.y is None else moments.y + moments.n * my.square(),
    )


def standardised(moments: Moments) -> tuple[Moments, Tensor, Tensor]:
    """The moments of ``x / sd_x`` and ``y / sd_y``, with ``sd_x`` ``(p,)`` and ``sd_y`` ``(q,)``.

    A dimension that is constant but for rounding keeps its unit (sd 1), as in scikit-learn's StandardScaler.
    """
    sx, sy = (
        _deviations(square, mean, moments)
        for square, mean in ((moments.square_x, moments.mean_x), (moments.square_y, moments.mean_y))
    )
    scaled = replace(
        moments,
        mean_x=moments.mean_x / sx,
        mean_y=moments.mean_y / sy,
        xx=None if moments.xx is None else moments.xx / torch.outer(sx, sx),
        xy=None if moments.xy is None else moments.xy / torch.outer(sx, sy),
        yy=None if moments.yy is None else moments.yy / torch.outer(sy, sy),
        x=None if moments.x is None else moments.x / sx.square(),
        y=None if moments.y is None else moments.y / sy.square(),
    )
    return scaled, sx, sy


def _deviations(square: Tensor, mean: Tensor, moments: Moments) -> Tensor:
    sd = (square.clamp(min=0) / moments.n).sqrt()
    rounding = 10 * torch.finfo(moments.dtype).eps * (mean.abs() + sd.max())
    return torch.where(sd > rounding, sd, 1.0)


def projected(moments: Moments, a: Tensor, b: Tensor) -> Moments:
    """The moments of ``(x - mean_x) @ a`` ``(n, k)`` and ``(y - mean_y) @ b`` ``(n, l)``."""
    xx = a.T @ moments.block("xx") @ a
    yy = b.T @ moments.block("yy") @ b
    return replace(
        moments,
        mean_x=a.new_zeros(a.shape[1]),
        mean_y=b.new_zeros(b.shape[1]),
        xx=(xx + xx.T) / 2,
        xy=a.T @ moments.block("xy") @ b,
        yy=(yy + yy.T) / 2,
        x=None,
        y=None,
    )


def inverse_where_positive(values: Tensor) -> Tensor:
    """``1 / values``, and 0 where a value is not positive: a direction without variance is left out."""
    return torch.where(values > 0, 1 / torch.where(values > 0, values, 1.0), 0.0)


def least_squares_scale(weight: Tensor, moments: Moments) -> Tensor:
    """The s that minimises ``||Xc W s - Yc||``: ``<W, Xc'Yc> / ||Xc W||^2``, and 0 where Xc W is 0."""
    energy = (weight * (moments.block("xx") @ weight)).sum()
    return (weight * moments.block("xy")).sum() * inverse_where_positive(energy)
