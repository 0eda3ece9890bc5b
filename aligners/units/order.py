"""Maps cut short: Matryoshka order and truncation, of one map or of a whole alignment; simplex targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..alignment import Alignment
from ..arrays import Array, as_matrix
from ..errors import RefusedError, UsageError
from ..linear.checks import check_number
from ..map import Map
from ..maps import Affine, Identity, Normalize
from ..measures.retrieval import overlap, search
from ..moments import Moments

__all__ = ["nested", "shortened", "simplex", "simplex_map", "truncated"]

JUDGED = 2000


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


def shortened(alignment: Alignment, dims: int, order: Array | None = None) -> Alignment:
    """Every map of ``alignment`` cut to the first ``dims`` of the shared space, unit length again.

    ``order`` ``(n, D)``: rows of the shared space, along whose principal axes it is turned first (`nested`); without
    them its dims are taken in the order that they have. All spaces meet in the short space and cannot leave it. With
    ``order`` the provenance says what is ``kept`` of those rows: the share of their squares, and of their ten nearest.
    """
    q, facts = alignment.shared_dim, dict(alignment.provenance)
    turn = Identity(q) if order is None else nested(Identity(q), order)
    short = truncated(turn, dims)
    kept = None if order is None else what_is_kept(turn, short, as_matrix(order, "order").double())
    maps = {name: m >> short for name, m in alignment.maps.items()}
    method = {"method": "truncate", "dims": dims, "of": facts.get("method"), "parts": [facts], "kept": kept}
    return Alignment(maps, {}, alignment.spaces, method)


def what_is_kept(turn: Map, short: Map, rows: Tensor) -> dict[str, float]:
    """What ``short`` keeps of ``rows``: shares of squares, and of ten nearest by cosine (2,000 rows asked)."""
    turned, cut = turn.forward(rows), short.forward(rows)
    squares = turned[:, : cut.shape[1]].square().sum() / turned.square().sum()
    asked = torch.arange(min(len(rows), JUDGED))
    k = min(10, len(rows) - 1)
    found = {"squares": float(squares)}
    if k > 0:
        whole, left = (search(side[asked], side, k=k, exclude=asked).top for side in (turned, cut))
        found["neighbours"] = float(overlap(left, whole).mean())
    return found


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
