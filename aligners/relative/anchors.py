"""Which pairs serve as anchors."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import UsageError
from ..pairs import Pairs
from ..survey import Survey

__all__ = ["CHOICES", "Choice", "anchor_pairs", "farthest_points"]

Choice = Literal["uniform", "top-k", "fps", "kmeans", "stratified"]
CHOICES = ("uniform", "top-k", "fps", "kmeans", "stratified")


def anchor_pairs(method: str, survey: Survey, count: int, choice: Choice, *, top: int, seed: int) -> Pairs:
    """``count`` pairs whose source rows were chosen, in float64; the same items serve in the target.

    "uniform": without replacement. "top-k": uniform among the ``top`` first pairs of the stream, which should be sorted
    by frequency. "fps": `farthest_points` of the rows at unit length from a random one on. "kmeans": the rows nearest
    by cosine to the centres of as many clusters, topped up where two centres share one. "stratified": as many of each
    group (pairs with the same key) as possible. All but top-k choose from the survey's sample.
    Raises `UsageError` where there are fewer pairs than anchors, or no groups.
    """
    pool = _first(survey, top) if choice == "top-k" else survey.sample
    n = len(pool)
    if count > n:
        raise UsageError(f"{method}: expected at most as many anchors as the {n} pairs to choose from, got {count}.")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(n, generator=generator)
    if choice in ("uniform", "top-k"):
        chosen = order[:count]
    elif choice == "fps":
        chosen = farthest_points(normalize(pool.x.double(), dim=1), count, int(order[0]))
    elif choice == "kmeans":
        chosen = _centres(normalize(pool.x.double(), dim=1), count, order, seed)
    else:
        chosen = _strata(method, pool.keys[order], count, order)
    some = pool[chosen]
    return Pairs(some.x.double(), some.y.double(), some.keys)


def _first(survey: Survey, top: int) -> Pairs:
    kept, seen = [], 0
    for block in survey.stream.blocks():
        some = Pairs(block.x, block.y, block.keys, block.weights)[: top - seen].in_working_precision()
        kept.append(some)
        seen += len(some)
        if seen >= top:
            break
    return Pairs.joined(kept)


def farthest_points(rows: Tensor, count: int, first: int) -> Tensor:
    """``count`` rows, each the one farthest (Euclid) from all before it, from row ``first`` on (Gonzalez 1985)."""
    chosen = [first]
    away = (rows - rows[first]).square().sum(1)
    while len(chosen) < count:
        away[chosen[-1]] = -1  # never twice, not even among duplicates
        chosen.append(int(away.argmax()))
        away = torch.minimum(away, (rows - rows[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen)


def _centres(rows: Tensor, count: int, order: Tensor, seed: int) -> Tensor:
    found = KMeans(count, n_init=1, random_state=seed).fit(rows.numpy())
    centres = normalize(torch.from_numpy(np.asarray(found.cluster_centers_)), dim=1)
    nearest = (centres @ rows.T).argmax(1).tolist()
    return torch.tensor(list(dict.fromkeys([*nearest, *order.tolist()]))[:count])


def _strata(method: str, keys: Tensor, count: int, order: Tensor) -> Tensor:
    _, group, sizes = torch.unique(keys, return_inverse=True, return_counts=True)
    if len(sizes) == len(keys):
        raise UsageError(f"{method}: stratified anchors need pairs in groups, got {len(keys)} keys that all differ.")
    # The turn of a row is its place within its group: all first ones come before all second ones.
    by_group = group.argsort(stable=True)
    starts = sizes.cumsum(0) - sizes
    turn = torch.empty_like(group)
    turn[by_group] = torch.arange(len(group)) - starts.repeat_interleave(sizes)
    return order[turn.argsort(stable=True)[:count]]
