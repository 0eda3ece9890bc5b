"""Generalised Procrustes: every space turned towards the mean of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..alignment import Alignment
from ..errors import RefusedError
from ..linear.checks import check_number, check_rank
from ..maps import Affine
from .base import MultiwayAligner, affine, ranks
from .moments import ManyMoments

__all__ = ["GeneralisedProcrustes", "SharedResponse"]

TOLERANCE = 1e-6


@dataclass(frozen=True)
class GeneralisedProcrustes(MultiwayAligner):
    """``min sum_k sum_i ||s_k x_ki R_k + t_k - g_i||^2``, ``g_i`` the mean of item i over the spaces that have it.

    R_k ``(p_k, D)`` is a rotation into the widest space's D dims, isometric for narrower spaces (the same as padding
    them with zeros); t_k is solved with it, so that spaces with different items missing still agree. Starts at the
    space that shares most items with the others, each other one turned to those that stand already; then each in its
    turn to the mean of all, until the loss changes by less than 1e-6 of itself, at most ``rounds`` times. ``scale``:
    s_k starts where all spaces are equally wide and is solved in turn too, the sum of squares held, so that nothing
    collapses; else it is 1. The axes of the shared space are the principal ones of the mean, so that it can be cut
    short.

    ``strength``: after it, ridge of every space onto the mean, shrunk to its own rotation (as in `RotationRidge`):
    less than an isometry, better for retrieval; none leaves the rotation.
    """

    name: ClassVar[str] = "gpa"
    summary: ClassVar[str] = "many spaces, each turned towards the mean of all; rows may be missing"
    paper: ClassVar[str] = (
        "Gower 1975, Generalized Procrustes analysis; ten Berge, Kiers & Commandeur 1993 (missing rows)"
    )

    scale: bool = True
    strength: float | None = None
    rounds: int = 100

    def __post_init__(self) -> None:
        check_number("gpa: strength", self.strength, 0)
        check_rank("gpa: rounds", self.rounds)

    def solve(self, moments: ManyMoments) -> Alignment:
        """By turns."""
        scales = {n: widths(moments, n) ** -0.5 if self.scale else 1.0 for n in moments.names}
        turned, facts = consensus(moments, scales, max(moments.dims.values()), self.rounds, scale=self.scale)
        maps, back = {}, {}
        for name, v in turned.items():
            r, t, s = v[:-1], v[-1], scales[name]
            maps[name] = affine(s * r, t, moments.shift[name])
            back[name] = Affine.between(t, torch.linalg.pinv(s * r), moments.shift[name])
            if self.strength is not None:
                maps[name] = corrected(moments, name, turned, scales, self.strength)
                back[name] = maps[name].pinv()
        return Alignment(maps, back).with_provenance(alternation=facts)


@dataclass(frozen=True)
class SharedResponse(MultiwayAligner):
    """``x_ki ~ m_k + s_i W_k'`` with ``W_k'W_k = I``: one response s in ``rank`` dims, of which each space has a view.

    The deterministic shared response model (Chen et al. 2015, eq. 3): W_k is the rotation of ``X_k'S``, S the mean of
    ``X_k W_k``, in turns, at most ``rounds``. ``rank`` none: chosen by any-to-any matching of held-out items.
    """

    name: ClassVar[str] = "srm"
    summary: ClassVar[str] = "many spaces as views of one response in a few dims"
    paper: ClassVar[str] = "Chen et al. 2015, A reduced-dimension fMRI shared response model"

    rank: int | None = None
    rounds: int = 100

    def __post_init__(self) -> None:
        check_rank("srm: rank", self.rank)
        check_rank("srm: rounds", self.rounds)

    def candidates(self, moments: ManyMoments) -> Sequence[SharedResponse]:
        """Ranks from 16 on, doubled, and the narrowest space's dims."""
        return [self] if self.rank is not None else [replace(self, rank=rank) for rank in ranks(moments)]

    def solve(self, moments: ManyMoments) -> Alignment:
        """By turns."""
        most = min(moments.dims.values())
        rank = most if self.rank is None else self.rank
        if rank > most:
            raise RefusedError(f"srm: expected a rank of at most {most}, the dims of the narrowest space, got {rank}.")
        turned, facts = consensus(moments, dict.fromkeys(moments.names, 1.0), rank, self.rounds)
        maps = {n: affine(v[:-1], v[-1], moments.shift[n]) for n, v in turned.items()}
        back = {n: Affine.between(v[-1], v[:-1].T, moments.shift[n]) for n, v in turned.items()}
        return Alignment(maps, back).with_provenance(alternation=facts)


def widths(moments: ManyMoments, name: str) -> float:
    """Mean squared distance of a space's rows from their mean."""
    return float(moments.covariance(name).trace()) / moments.rows(name)


def consensus(
    moments: ManyMoments, scales: Mapping[str, float], dim: int, rounds: int, *, scale: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """``[R_k; t_k]`` ``(p_k + 1, dim)`` of each space, on its scaled and shifted rows, and what the alternation did."""
    joint, own = scaled(moments, scales)
    parts, names = moments.parts, moments.names
    turned: dict[str, Tensor] = {}
    waiting = sorted(names, key=lambda n: -float(moments.shared[names.index(n)].sum() - moments.rows(n)))
    turned[waiting[0]] = first(own[waiting[0]], dim)
    waiting = waiting[1:]
    while waiting:  # next the space that shares most items with those that stand
        there = [names.index(n) for n in turned]
        name = max(waiting, key=lambda n: float(moments.shared[names.index(n), there].sum()))
        cross = sum(joint[parts[name], parts[k]] @ v for k, v in turned.items())
        assert isinstance(cross, Tensor)
        turned[name] = placed(own[name], cross, fresh=True)
        waiting.remove(name)
    size = spread(own, turned)
    before, after, turns = float("inf"), loss(joint, own, parts, turned), 0
    while turns < rounds and before - after > TOLERANCE * after and after > 1e-12 * float(joint.trace()):
        for name in names:
            cross = sum(joint[parts[name], parts[k]] @ v for k, v in turned.items())
            assert isinstance(cross, Tensor)
            turned[name] = placed(own[name], cross, scale=scale)
        if scale:
            factor = (size / spread(own, turned)) ** 0.5
            turned = {name: v * factor for name, v in turned.items()}
        before, after, turns = after, loss(joint, own, parts, turned), turns + 1
    settled = before - after <= TOLERANCE * after or after <= 1e-12 * float(joint.trace())
    facts: dict[str, Any] = {"rounds": turns, "settled": bool(settled), "loss": after}
    if not settled:
        facts["advice"] = f"the loss still fell after {turns} rounds: give more (--set rounds={2 * turns})"
    return principal(joint, moments, turned), facts


def scaled(moments: ManyMoments, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
    """``joint`` and ``own`` of rows times their space's scale."""
    factors = [torch.tensor([*[scales[n]] * d, 1.0], dtype=torch.float64) for n, d in moments.dims.items()]
    every = torch.cat(factors)
    own = {n: moments.own[n] * torch.outer(f, f) for n, f in zip(moments.names, factors, strict=True)}
    return moments.joint * torch.outer(every, every), own


def first(own: Tensor, dim: int) -> Tensor:
    """The space that is there first: centred, along its principal axes where the shared space is narrower."""
    p, mean = len(own) - 1, own[:-1, -1] / own[-1, -1]
    if dim >= p:
        r = torch.eye(p, dim, dtype=own.dtype)
    else:
        r = torch.linalg.eigh(own[:-1, :-1] - own[-1, -1] * torch.outer(mean, mean)).eigenvectors.flip(1)[:, :dim]
    return torch.cat([r, -(mean @ r)[None]])


def placed(own: Tensor, cross: Tensor, *, fresh: bool = False, scale: bool = False) -> Tensor:
    """``[s R; t]`` nearest to the mean, given ``cross = sum z' g``; ``fresh`` where the space has no part in it yet."""
    # Of a space that is not in g yet the sums in cross are over shared items only, weighted alike.
    rows = own[-1, -1] if not fresh else cross.new_tensor(1.0)
    mean_x, mean_g = own[:-1, -1] / own[-1, -1], cross[-1] / rows
    centred = cross[:-1] - torch.outer(mean_x, cross[-1])
    u, singular, vt = torch.linalg.svd(centred, full_matrices=False)
    r = u @ vt
    if scale:
        r *= singular.sum() / (own[:-1, :-1].trace() - own[-1, -1] * mean_x @ mean_x)
    t = -(mean_x @ r) if fresh else mean_g - mean_x @ r
    return torch.cat([r, t[None]])


def loss(joint: Tensor, own: Mapping[str, Tensor], parts: Mapping[str, slice], turned: Mapping[str, Tensor]) -> float:
    """``sum_k sum_i ||z_ki V_k - g_i||^2 = sum_k tr(V_k' own_k V_k) - tr(V' joint V)``."""
    v = torch.cat([turned[name] for name in parts])
    return spread(own, turned) - float((v * (joint @ v)).sum())


def spread(own: Mapping[str, Tensor], turned: Mapping[str, Tensor]) -> float:
    """Sum of squares of all mapped rows."""
    return sum(float((v * (own[name] @ v)).sum()) for name, v in turned.items())


def principal(joint: Tensor, moments: ManyMoments, turned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same, turned so that the mean varies most along the first axis of the shared space, and so on."""
    v = torch.cat([turned[name] for name in moments.names])
    # The column of ones of each space sums the items' means once over: sum_i g_i.
    ones = torch.zeros(len(joint), dtype=joint.dtype)
    for part in moments.parts.values():
        ones[part.stop - 1] = 1.0
    total = ones @ joint @ v
    gram = v.T @ joint @ v - torch.outer(total, total) / moments.items
    axes = torch.linalg.eigh(gram).eigenvectors.flip(1)
    axes = axes * torch.where(axes.gather(0, axes.abs().argmax(0)[None])[0] < 0, -1.0, 1.0)
    centre = (total / moments.items) @ axes
    found = {}
    for name in moments.names:
        both = turned[name] @ axes
        both[-1] -= centre
        found[name] = both
    return found


def corrected(
    moments: ManyMoments, name: str, turned: Mapping[str, Tensor], scales: Mapping[str, float], strength: float
) -> Affine:
    """Ridge of a space onto the mean, shrunk to its own rotation by ``strength`` times its mean variance."""
    joint, own = scaled(moments, scales)
    v = torch.cat([turned[n] for n in moments.names])
    cross, mine = (joint @ v)[moments.parts[name]], own[name]
    mean_x, mean_g = mine[:-1, -1] / mine[-1, -1], cross[-1] / mine[-1, -1]
    sxx = mine[:-1, :-1] - mine[-1, -1] * torch.outer(mean_x, mean_x)
    sxg = cross[:-1] - torch.outer(mean_x, cross[-1])
    mu = strength * sxx.trace() / len(sxx)
    # Kept positive definite where the strength is 0 and some direction does not vary.
    eye = torch.eye(len(sxx), dtype=sxx.dtype) * (mu + 1e-10 * sxx.trace() / len(sxx))
    weight = torch.linalg.solve(sxx + eye, sxg + mu * turned[name][:-1])
    return affine(scales[name] * weight, mean_g - mean_x @ weight, moments.shift[name])
