"""Maps from elsewhere joined block by block on a few pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..arrays import Array, as_matrix
from ..errors import UsageError
from ..linear.checks import check_number
from ..maps import Affine
from ..pairs import mix

__all__ = ["block_weights", "held_out_r2", "recombined", "weighted"]

FOLDS = 5


def recombined(
    maps: Sequence[Affine], x: Array, y: Array, *, blocks: int = 1, alpha: float = 0.1, positive: bool = False
) -> Affine:
    """``sum_k sum_b a_kb (x T_k)[b]``: maps from elsewhere joined block by block on a few pairs ``(n, p)``, ``(n, q)``.

    aTLAS (Zhang et al. 2024) on maps instead of task vectors: K maps and ``blocks`` equal parts of the target's dims,
    so K times ``blocks`` numbers, by least squares with a penalty ``alpha`` towards the mean of all maps, in units of
    their mean square; ``positive`` keeps all of them at 0 or above (scipy's NNLS).
    """
    return weighted(maps, block_weights(maps, x, y, blocks=blocks, alpha=alpha, positive=positive))


def block_weights(
    maps: Sequence[Affine], x: Array, y: Array, *, blocks: int = 1, alpha: float = 0.1, positive: bool = False
) -> Tensor:
    """The numbers a ``(K, blocks)`` of `recombined`. Raises `UsageError` on maps between other spaces."""
    from scipy.optimize import nnls

    check_number("recombined: alpha", alpha, 0)
    if not maps or len({(m.source_dim, m.target_dim) for m in maps}) > 1:
        raise UsageError("expected one or more maps between the same two spaces.")
    q = maps[0].target_dim
    if not 0 < blocks <= q:
        raise UsageError(f"expected 1 to {q} blocks, got {blocks}.")
    rows, there = as_matrix(x, "x").double(), as_matrix(y, "y").double()
    out = [m.forward(rows) for m in maps]
    weights = torch.zeros(len(maps), blocks, dtype=torch.float64)
    uniform = torch.full((len(maps),), 1 / len(maps), dtype=torch.float64)
    for b, part in enumerate(torch.arange(q).tensor_split(blocks)):  # blocks do not meet: each is solved by itself
        design = torch.stack([o[:, part].reshape(-1) for o in out], 1)
        pull = (alpha * design.square().sum() / len(maps)).sqrt()
        left = torch.cat([design, pull * torch.eye(len(maps), dtype=torch.float64)])
        right = torch.cat([there[:, part].reshape(-1), pull * uniform])
        weights[:, b] = (
            torch.from_numpy(nnls(left.numpy(), right.numpy())[0])
            if positive
            else torch.linalg.lstsq(left, right).solution
        )
    return weights


def weighted(maps: Sequence[Affine], weights: Tensor) -> Affine:
    """The maps added up, each block of the target's dims by its own ``weights`` ``(K, blocks)``."""
    q = maps[0].target_dim
    sizes = torch.tensor([len(part) for part in torch.arange(q).tensor_split(weights.shape[1])])
    columns = weights.repeat_interleave(sizes, 1)
    total = [(m.weight.double() * w, m.bias.double() * w) for m, w in zip(maps, columns, strict=True)]
    return Affine(torch.stack([w for w, _ in total]).sum(0), torch.stack([b for _, b in total]).sum(0))


def held_out_r2(
    maps: Mapping[str, Affine], x: Array, y: Array, *, blocks: int, alpha: float, positive: bool, seed: int = 0
) -> dict[str, float] | None:
    """``1 - sum ||y - f(x)||^2 / sum ||y - mean||^2`` of the recombined map, each fold of five pairs fitted without it.

    Beside it: the mean of all maps, and every map by itself, which are not fitted on these pairs at all. None of fewer
    than ten pairs, or of pairs whose targets are all the same.
    """
    rows, there = as_matrix(x, "x").double(), as_matrix(y, "y").double()
    if len(rows) < 2 * FOLDS:
        return None
    fold = mix(torch.arange(len(rows)), seed).argsort().argsort().remainder(FOLDS)
    own = list(maps.values())
    guesses = {"recombined": torch.empty_like(there)}
    for k in range(FOLDS):
        held = fold == k
        weights = block_weights(own, rows[~held], there[~held], blocks=blocks, alpha=alpha, positive=positive)
        guesses["recombined"][held] = weighted(own, weights).forward(rows[held])
    guesses |= {name: m.forward(rows) for name, m in maps.items()}
    guesses["mean of all"] = torch.stack([m.forward(rows) for m in own]).mean(0)
    spread = (there - there.mean(0)).square().sum()
    if not float(spread) > 0:
        return None
    return {name: float(1 - (there - guess).square().sum() / spread) for name, guess in guesses.items()}
