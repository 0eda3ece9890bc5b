"""Maps put together and cut short: Matryoshka order, truncation, simplex targets, blocks recombined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..arrays import Array, as_matrix
from ..errors import RefusedError, UsageError
from ..linear.checks import check_number
from ..map import Map
from ..maps import Affine, Normalize
from ..moments import Moments

__all__ = ["nested", "recombined", "simplex", "simplex_map", "truncated"]


def nested(mapping: Map, target: Array) -> Map:
    """``mapping`` followed by the principal axes of ``target`` ``(n, q)``, the space it ends in, about no mean.

    The order of a Matryoshka space (Kusupati et al. 2022) after the fact: prefixes of the result keep as much as any so
    many dims can. All of it is a rotation, so cosines of whole rows are unchanged; the same rotation, alone, turns rows
    of the target itself (`nested(Identity(q), target)`).
    """
    y = as_matrix(target, "target").double()
    if y.shape[1] != mapping.target_dim:
        raise UsageError(f"expected rows of {mapping.target_dim} dims, as the map gives, got {y.shape[1]}.")
    axes = torch.linalg.eigh(y.T @ y).eigenvectors.flip(1)
    axes = axes * torch.where(axes.gather(0, axes.abs().argmax(0)[None])[0] < 0, -1.0, 1.0)
    return mapping >> Affine(axes, torch.zeros(len(axes), dtype=axes.dtype))


def truncated(mapping: Map, dims: int) -> Map:
    """``mapping``, its first ``dims`` dims, and unit length again, without which prefixes cannot be compared."""
    q = mapping.target_dim
    if not 0 < dims <= q:
        raise UsageError(f"expected 1 to {q} dims to keep, got {dims}.")
    cut = Affine(torch.eye(q, dims, dtype=torch.float64), torch.zeros(dims, dtype=torch.float64))
    return mapping >> cut >> Normalize(dims)


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
    moments = Moments.of(rows, simplex(classes)[which.long()])
    scatter = moments.block("xx")
    mu = alpha * scatter.trace() / len(scatter)
    weight = torch.linalg.solve(scatter + mu * torch.eye(len(scatter), dtype=scatter.dtype), moments.block("xy"))
    return Affine.between(moments.mean_x, weight, moments.mean_y)


def recombined(
    maps: Sequence[Affine], x: Array, y: Array, *, blocks: int = 1, alpha: float = 0.1, positive: bool = False
) -> Affine:
    """``sum_k sum_b a_kb (x T_k)[b]``: maps from elsewhere joined block by block on a few pairs ``(n, p)``, ``(n, q)``.

    aTLAS (Zhang et al. 2024) on maps instead of task vectors: K maps and ``blocks`` equal parts of the target's dims,
    so K times ``blocks`` numbers, by least squares with a penalty ``alpha`` towards the mean of all maps, in units of
    their mean square; ``positive`` keeps all of them at 0 or above (scipy's NNLS).
    """
    from scipy.optimize import nnls

    check_number("recombined: alpha", alpha, 0)
    if not maps or len({(m.source_dim, m.target_dim) for m in maps}) > 1:
        raise UsageError("expected one or more maps between the same two spaces.")
    q = maps[0].target_dim
    if not 0 < blocks <= q:
        raise UsageError(f"expected 1 to {q} blocks, got {blocks}.")
    rows, there = as_matrix(x, "x").double(), as_matrix(y, "y").double()
    out = [m.forward(rows) for m in maps]
    weights = torch.zeros(len(maps), q, dtype=torch.float64)
    for part in torch.arange(q).tensor_split(blocks):  # blocks of the target do not meet: each is solved by itself
        design = torch.stack([o[:, part].reshape(-1) for o in out], 1)
        pull = (alpha * design.square().sum() / len(maps)).sqrt()
        uniform = torch.full((len(maps),), 1 / len(maps), dtype=torch.float64)
        a = torch.cat([design, pull * torch.eye(len(maps), dtype=torch.float64)])
        b = torch.cat([there[:, part].reshape(-1), pull * uniform])
        found = torch.from_numpy(nnls(a.numpy(), b.numpy())[0]) if positive else torch.linalg.lstsq(a, b).solution
        weights[:, part] = found[:, None].expand(-1, len(part))
    weight = sum(
        (m.weight.double() * w for m, w in zip(maps, weights, strict=True)), torch.zeros_like(maps[0].weight).double()
    )
    bias = sum((m.bias.double() * w for m, w in zip(maps, weights, strict=True)), torch.zeros(q, dtype=torch.float64))
    return Affine(weight, bias)
