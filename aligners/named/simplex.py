"""Simplex targets: every space onto the same vertices, by labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..linear.checks import check_number
from ..map import Map
from ..units.order import simplex, simplex_map
from .base import LabelledAligner

__all__ = ["Simplex"]


@dataclass(frozen=True)
class Simplex(LabelledAligner):
    """Ridge of each space onto the vertices ``(K, K - 1)`` of a regular simplex, one for every label.

    The vertices depend on the names alone, in their order, so that spaces which share no item can be compared, and
    spaces to come with them: stationary representations after the fact. ``penalty``: of the ridge, in units of the mean
    variance.
    """

    name: ClassVar[str] = "simplex"
    summary: ClassVar[str] = "spaces without a common item onto the same simplex vertices, one for every label"
    paper: ClassVar[str] = "Biondi et al. 2024, Stationary representations (d-simplex fixed classifier), on dumps"
    affine: ClassVar[bool] = True

    penalty: float = 0.1

    def __post_init__(self) -> None:
        check_number("simplex: penalty", self.penalty, 0, above=True)

    def chart(self, x: Tensor, which: Tensor, names: int) -> Map:
        """`simplex_map`."""
        return simplex_map(x, which, classes=names, alpha=self.penalty)

    def scores(self, coordinates: Tensor, names: int) -> Tensor:
        """Inner products with the vertices."""
        return coordinates @ simplex(names).T
