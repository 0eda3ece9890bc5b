"""Procrustes distances: how far two spaces are from being the same shape, whatever their position, size and turn.

With X and Y centred and of unit Frobenius norm, ``||X'Y||_*`` (the sum of the singular values) is the cosine between
them at the best rotation. The distances of it are metrics: they are symmetrical, obey the triangle inequality, and are
0 only on the orbit (Williams et al. 2021, "Generalized shape metrics on neural representations").
"""

from __future__ import annotations

import math

import torch

from ..errors import SutureError
from ..moments import Moments

__all__ = ["angular_distance", "procrustes_cosine", "procrustes_distance"]


def procrustes_cosine(moments: Moments) -> float:
    """``||Xc'Yc||_* / (||Xc|| ||Yc||)``: 1 for the same shape; 1 - its square is the residual with the best scale."""
    size = (moments.square_x.sum() * moments.square_y.sum()).sqrt()
    if not float(size) > 0:
        raise SutureError("expected rows that differ on both sides, got no variance to compare.")
    return min(1.0, float(torch.linalg.svdvals(moments.block("xy")).sum() / size))


def procrustes_distance(moments: Moments) -> float:
    """``min_R ||X R - Y|| = sqrt(2 - 2 ||X'Y||_*)``, from 0 to sqrt 2."""
    return math.sqrt(2 - 2 * procrustes_cosine(moments))


def angular_distance(moments: Moments) -> float:
    """``arccos ||X'Y||_*`` in radians, the distance along the sphere: from 0 to pi / 2."""
    return math.acos(procrustes_cosine(moments))
