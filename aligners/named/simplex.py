"""Simplex targets: every space onto the same vertices, by labels alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..arrays import Array, as_matrix
from ..errors import RefusedError, UsageError
from ..linear.checks import check_number
from ..linear.ridge import Ridge
from ..map import Map
from ..maps import Affine
from ..moments import Moments
from .base import LabelledAligner

__all__ = ["Simplex", "simplex", "simplex_map"]


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


def simplex(classes: int) -> Tensor:
    """The vertices ``(K, K - 1)`` of a regular simplex: unit vectors with cosine ``-1 / (K - 1)`` pairwise."""
    if classes < 2:
        raise UsageError(f"expected at least two classes, got {classes}.")
    centred = torch.eye(classes, dtype=torch.float64) - 1 / classes
    _, vectors = torch.linalg.eigh(centred)
    rows = vectors[:, 1:]  # the first has eigenvalue 0: the mean
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)


def simplex_map(x: Array, labels: Sequence[int] | Array, *, classes: int, alpha: float = 0.1) -> Affine:
    """Ridge of ``x`` ``(n, p)`` onto the simplex vertex of each row's label ``(n,)``, 0 to ``classes`` - 1.

    Any two spaces mapped onto the same vertices can be compared without a pair in common (stationary representations,
    Biondi et al. 2024, after the fact). ``alpha``: penalty in units of the mean variance.
    """
    check_number("simplex_map: alpha", alpha, 0, above=True)
    rows, which = as_matrix(x, "x").double(), torch.as_tensor(labels)
    if which.shape != (len(rows),) or which.is_floating_point():
        raise UsageError(f"expected one whole-number label per row, got {tuple(which.shape)} for {len(rows)} rows.")
    if len(rows) and (int(which.min()) < 0 or int(which.max()) >= classes):
        raise UsageError(f"expected labels within 0..{classes - 1}, got {int(which.min())}..{int(which.max())}.")
    if len(torch.unique(which)) < 2:
        raise RefusedError("expected rows of at least two classes, got one.")
    targets = simplex(classes)[which.long()]
    return Ridge(alpha=alpha).solve(Moments.of(rows, targets, blocks=("xx", "xy", "y")))
