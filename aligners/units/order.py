"""Maps cut short: Matryoshka order and truncation, of one map or of a whole alignment."""

from __future__ import annotations

import torch
from torch import Tensor

from ..alignment import Alignment
from ..arrays import Array, as_matrix
from ..errors import UsageError
from ..map import Map
from ..maps import Affine, Identity, Normalize
from ..measures.retrieval import overlap, search

__all__ = ["nested", "shortened", "truncated"]

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
