"""Refinement without pairs: mapped rows are drawn to the mean of their nearest targets, and the map follows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..polar import polar
from .clouds import Clouds
from .csls import csls, mutual_pairs, nearest

__all__ = ["EXACT", "agreement", "holds_out", "mutual_share", "rank_share", "refine", "sharpen"]

AGREEMENT_ROWS = 2000
SHARP_ROWS = 5000
EXACT = 0.9  # share of mutual neighbours from which on both sides are taken to hold the same items


def refine(
    weight: Tensor,
    clouds: Clouds,
    *,
    rounds: int,
    batch: int,
    k: int,
    seed_weight: float,
    blend: float,
    seed: int,
) -> Tensor:
    """``weight`` ``(p, q)`` after ``rounds`` of: draw ``batch`` rows, pull each to its k nearest, Procrustes.

    The rows are those of the wider space, searched for among those of the narrower: one direction came within .005 of
    the top-1 of both on four pairs of encoders, for half the work. Every round solves
    ``polar(sum x' t + seed_weight * sum of the seeds)``, t being the mean of the k rows nearest to ``x W``, and moves
    there by ``blend``. As in mini-vec2vec's second stage, but hubs are corrected by CSLS (of a sample) and the known
    pairs stay in. W drifts inside the orthogonal ball, so it is projected to the orthogonal group at the end (the
    authors' code is not).
    """
    if clouds.x.shape[1] < clouds.y.shape[1]:
        options: dict[str, Any] = {"rounds": rounds, "batch": batch, "k": k, "seed_weight": seed_weight}
        return refine(weight.T, clouds.reversed, **options, blend=blend, seed=seed).T
    g = torch.Generator().manual_seed(seed)
    known = clouds.x[clouds.seeds[:, 0]].T @ clouds.y[clouds.seeds[:, 1]] * seed_weight
    k = max(1, min(k, len(clouds.x) // 100, len(clouds.y) // 100))
    # A round of all rows is the same every time, and stays where it is: a planted rotation of 200 rows was not found.
    batch = min(batch, 2 * len(clouds.x) // 3)
    for _ in range(rounds):
        some = clouds.x[torch.randperm(len(clouds.x), generator=g)[:batch]]
        found = nearest(normalize(some @ weight, dim=1), clouds.y, k, hubs=3, sample=500)
        weight = (1 - blend) * weight + blend * polar(some.T @ clouds.y[found].mean(1) + known)
    return polar(weight.double()).float()


def sharpen(weight: Tensor, clouds: Clouds, rounds: int = 50) -> Tensor:
    """MUSE's refinement (Conneau et al. 2018): Procrustes on mutual CSLS neighbours, again and again.

    Sharper than `refine` where both sides hold the same items, worse where they do not (noisy spaces: .82 to .76), so
    its map is kept only if it makes nine rows in ten mutual neighbours, and else the map that came.
    """
    if min(len(clouds.x), len(clouds.y)) > SHARP_ROWS:
        return weight
    sharp, before = weight, torch.empty((0, 2))
    for _ in range(rounds):
        pairs = mutual_pairs(csls(clouds.x @ sharp, clouds.y))
        if not len(pairs) or (len(pairs) == len(before) and torch.equal(pairs, before)):
            break
        before = pairs
        sharp = polar((clouds.x[pairs[:, 0]].T @ clouds.y[pairs[:, 1]]).double()).float()
    return sharp if mutual_share(sharp, clouds) >= EXACT else weight


def mutual_share(weight: Tensor, clouds: Clouds) -> float:
    """Share of rows, of the smaller side, that are mutual nearest neighbours by CSLS; of up to 2,000 source rows."""
    x, y = clouds.x @ weight, clouds.y
    if min(len(x), len(y)) > AGREEMENT_ROWS:
        x = x[:AGREEMENT_ROWS]  # of a large cloud some rows tell enough; the mate of each may be anywhere
    return len(mutual_pairs(csls(x, y))) / min(len(x), len(y))


def holds_out(weight: Tensor, clouds: Clouds, seed: int) -> float:
    """Share of the mutual neighbours by ``weight`` that stay neighbours by maps fitted on the others, five folds.

    A map of p by q numbers can make any few rows mutual neighbours: all of 1,000 in 384 dims, at chance for others.
    """
    x, y = clouds.x[:AGREEMENT_ROWS], clouds.y
    pairs = mutual_pairs(csls(x @ weight, y))
    order = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))]
    kept = 0
    for fold in range(5):
        out = torch.arange(len(order)) % 5 == fold
        turned = polar((x[order[~out, 0]].T @ y[order[~out, 1]]).double()).float()
        kept += int((nearest(normalize(x @ turned, dim=1), y, 1)[order[out, 0], 0] == order[out, 1]).sum())
    return kept / max(1, len(order))


def agreement(one: Tensor, other: Tensor, clouds: Clouds, seed: int) -> float:
    """Share of sampled source rows whose nearest target (CSLS) is the same by the maps ``one`` and ``other``.

    Two maps that were found apart agree where they found the truth. They must have no row in common: Gromov-Wasserstein
    on 1,000 rows and on half of them agreed on .19 of the rows, both at chance.
    """
    g = torch.Generator().manual_seed(seed)
    x, y = (c[torch.randperm(len(c), generator=g)[:AGREEMENT_ROWS]] for c in (clouds.x, clouds.y))
    first, second = (nearest(normalize(x @ w, dim=1), y, 1)[:, 0] for w in (one, other))
    return float((first == second).double().mean())


def rank_share(weight: Tensor, clouds: Clouds, pairs: Tensor) -> Tensor:
    """Share ``(s,)`` of target rows nearer than their mates to the mapped source rows of ``pairs`` ``(s, 2)``."""
    mapped = clouds.x[pairs[:, 0]] @ weight
    own = (mapped * clouds.y[pairs[:, 1]]).sum(1, keepdim=True)
    return (mapped @ clouds.y.T > own).double().mean(1)
