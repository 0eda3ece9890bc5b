"""Fusing bound spaces: weights, fixed or asked of each row, that are best for finding mates across modalities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..alignment import Alignment
from ..errors import RefusedError, UsageError
from ..maps import Affine
from .fused import Fused
from .many import Gathered

__all__ = ["Weights", "choose", "grouped", "joined", "recall", "retention"]

Weights = Literal["fixed", "routed"]
TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 4.0)
TURNS = 5
FEWEST = 40


def grouped(text: str, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``"text=a+b,image=c+d"`` as the spaces of each modality. Raises `UsageError` on anything else."""
    found = {}
    for part in text.split(","):
        modality, equals, members = part.partition("=")
        spaces = tuple(members.split("+"))
        unknown = [space for space in spaces if space not in names]
        if not equals or not modality or unknown or modality in found or len(set(spaces)) < len(spaces):
            raise UsageError(
                f"bind: fuse: expected 'modality=space+space,modality=space' of the spaces {', '.join(names)}, got "
                f"'{text}'."
            )
        found[modality] = spaces
    if len(found) < 2:
        raise UsageError(f"bind: fuse: expected two modalities or more, between which mates are found, got '{text}'.")
    if clash := sorted(set(found) & set(names)):
        raise UsageError(f"bind: fuse: {clash[0]} is the name of a space; give the modality another.")
    return found


def joined(alignment: Alignment, spaces: Sequence[str], centre: Tensor, length: float) -> Fused:
    """Equal weights for ``spaces`` of an alignment whose maps are affine (or the base's identity)."""
    maps = [alignment.map_of(space) for space in spaces]
    q = len(centre)
    eye, zero = torch.eye(q, dtype=centre.dtype), torch.zeros(q, dtype=centre.dtype)
    weights = [(m.weight.double(), m.bias.double()) if isinstance(m, Affine) else (eye, zero) for m in maps]
    return Fused(
        torch.cat([w for w, _ in weights]),
        torch.stack([b for _, b in weights]),
        centre,
        torch.full((len(maps),), -math.log(len(maps)), dtype=centre.dtype),
        tuple(m.source_dim for m in maps),
        length,
    )


@dataclass(frozen=True, eq=False)
class Mapped:
    """Of the items that all spaces of a modality have: their numbers ``(n,)`` and u ``(n, K, q)`` by `Fused.mapped`."""

    items: Tensor
    u: Tensor

    def of(self, items: Tensor) -> Tensor:
        """u of those ``items``, all of them among these."""
        return self.u[torch.searchsorted(self.items, items)]


def mapped(fused: Mapping[str, Fused], groups: Mapping[str, Sequence[str]], items: Gathered) -> dict[str, Mapped]:
    """What every modality knows of the items."""
    found = {}
    for modality, spaces in groups.items():
        there = torch.stack([items.places[space] >= 0 for space in spaces]).all(0).nonzero()[:, 0]
        rows = [items.rows[space][items.places[space][there]].double() for space in spaces]
        found[modality] = Mapped(there, fused[modality].mapped(torch.cat(rows, 1)))
    return found


def pairs(sides: Mapping[str, Mapped], some: Tensor) -> Iterator[tuple[str, str, Tensor]]:
    """Ordered pairs of modalities and the items ``some`` ``(items,)`` (a mask) that both have."""
    for a, b in permutations(sides, 2):
        both = sides[a].items[torch.isin(sides[a].items, sides[b].items)]
        both = both[some[both]]
        if len(both) > 1:
            yield a, b, both


def recall(a: Tensor, b: Tensor) -> float:
    """R@1 of rows ``a`` among rows ``b`` ``(n, q)``, of unit length, row i of both being mates."""
    return float(((a @ b.T).argmax(1) == torch.arange(len(a))).double().mean())


def fuse(fused: Fused, u: Tensor) -> Tensor:
    """Unit rows ``(n, q)`` about the centre."""
    return normalize((fused.gates(u)[..., None] * u).sum(-2), dim=-1)


def table(fused: Mapping[str, Fused], sides: Mapping[str, Mapped], some: Tensor) -> dict[str, float]:
    """R@1 of every ordered pair of modalities on those items."""
    return {
        f"{a} -> {b}": recall(fuse(fused[a], sides[a].of(both)), fuse(fused[b], sides[b].of(both)))
        for a, b, both in pairs(sides, some)
    }


def mean(values: Mapping[str, float]) -> float:
    """Their mean."""
    return sum(values.values()) / len(values)


def simplex_grid(spaces: int) -> list[tuple[float, ...]]:
    """Weights that add up to 1 in tenths (fifths of four spaces or more), the most even first."""
    steps = 10 if spaces < 4 else 5

    def spread(left: int, places: int) -> Iterator[tuple[int, ...]]:
        if places == 1:
            yield (left,)
            return
        for first in range(left + 1):
            yield from ((first, *rest) for rest in spread(left - first, places - 1))

    found = [tuple(n / steps for n in each) for each in spread(steps, spaces)]
    return sorted(found, key=lambda w: sum(v * v for v in w))


def fixed(fused: dict[str, Fused], sides: Mapping[str, Mapped], some: Tensor) -> dict[str, Fused]:
    """The weights of one modality after the other that are best for the mean R@1 of all pairs, until none changes."""
    best = mean(table(fused, sides, some))
    for _ in range(TURNS):
        before = best
        for modality, own in fused.items():
            for weights in simplex_grid(len(own.dims)):
                gate = torch.tensor(weights, dtype=torch.float64).clamp(min=1e-30).log()
                tried = {**fused, modality: replace(own, gate=gate)}
                now = mean(table(tried, sides, some))
                if now > best + 1e-12:
                    best, fused = now, tried
        if best == before:
            break
    return fused


def routed(fused: dict[str, Fused], sides: Mapping[str, Mapped], some: Tensor) -> dict[str, Fused]:
    """Multinomial logistic regression of which space tells a row's mate best from the others, on all of u.

    Its temperature, one for all, is the best for the mean R@1.
    """
    from sklearn.linear_model import LogisticRegression

    learnt = {}
    for modality, own in fused.items():
        k = len(own.dims)
        rows, labels = [], []
        for a, b, both in pairs(sides, some):
            if a == modality and k > 1:
                u, mates = sides[a].of(both), fuse(fused[b], sides[b].of(both))
                rows.append(u.flatten(1))
                labels.append(torch.stack([margin(u[:, i], mates) for i in range(k)], 1).argmax(1))
        if not rows:
            continue
        x, best = torch.cat(rows), torch.cat(labels)
        if len(torch.unique(best)) < 2:
            continue  # one space is the best for every row: there is nothing to ask
        model = LogisticRegression(max_iter=1000).fit(x.numpy(), best.numpy())
        router, gate = x.new_zeros(x.shape[1], k), x.new_full((k,), math.log(1e-30))
        coef, bias = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
        if len(model.classes_) == 2:  # the library keeps one score for two
            coef, bias = torch.cat([-coef, coef]) / 2, torch.cat([-bias, bias]) / 2
        router[:, model.classes_], gate[model.classes_] = coef.T, bias
        learnt[modality] = (router, gate)
    tried = [
        {**fused, **{m: replace(fused[m], router=r / t, gate=g / t) for m, (r, g) in learnt.items()}}
        for t in TEMPERATURES
    ]
    return max(tried, key=lambda each: mean(table(each, sides, some)))


def margin(rows: Tensor, mates: Tensor) -> Tensor:
    """By how much each row ``(n, q)`` is nearer to its own mate than to the nearest other."""
    scores = rows @ mates.T
    own = scores.diagonal().clone()
    scores.fill_diagonal_(-torch.inf)
    return own - scores.amax(1)


def choose(
    fused: Mapping[str, Fused], groups: Mapping[str, Sequence[str]], items: Gathered, weights: Weights
) -> tuple[dict[str, Fused], dict[str, Any]]:
    """The maps with weights chosen on half of ``items``, and what the other half says of them.

    Facts: mean weight of each space; R@1 of every pair of modalities fused, with equal weights, and by the best single
    space of each that the first half would have chosen. Raises `RefusedError` where too few items are in all spaces.
    """
    sides = mapped(fused, groups, items)
    turn = torch.arange(len(items.keys)).remainder(2).bool()  # keys are scrambled: their order is a draw
    first, second = list(pairs(sides, ~turn)), list(pairs(sides, turn))
    fewest = min((len(both) for *_, both in (*first, *second)), default=0)
    if len(first) < 2 or len(second) < 2 or fewest < FEWEST // 2:
        raise RefusedError(
            f"bind: fuse: expected at least {FEWEST} held-out items that all spaces of two modalities have, to choose "
            f"weights and to judge them, got {2 * fewest}. Give more items, or fuse fewer spaces."
        )
    equal = dict(fused)
    found = (fixed if weights == "fixed" else routed)(equal, sides, ~turn)
    single = {m: alone(equal, m, sides, ~turn) for m in equal}
    shown = {
        m: {s: round(float(w), 4) for s, w in zip(groups[m], found[m].gates(sides[m].u).mean(0), strict=True)}
        for m in found
    }
    chosen, even, one = (table(each, sides, turn) for each in (found, equal, single))
    ways = {
        way: {"fused": round(chosen[way], 4), "equal": round(even[way], 4), "single": round(one[way], 4)}
        for way in chosen
    }
    return found, {"weights": shown, "recall@1": ways, "items": sum(len(both) for *_, both in second) // len(second)}


def alone(fused: dict[str, Fused], modality: str, sides: Mapping[str, Mapped], some: Tensor) -> Fused:
    """The modality by the one of its spaces that is best while the others stay equal."""
    tried = []
    for i in range(len(fused[modality].dims)):
        gate = torch.full((len(fused[modality].dims),), math.log(1e-30), dtype=torch.float64)
        gate[i] = 0.0
        tried.append(replace(fused[modality], gate=gate))
    return max(tried, key=lambda each: mean(table({**fused, modality: each}, sides, some)))


def retention(
    fused: Mapping[str, Fused], groups: Mapping[str, Sequence[str]], kin: Mapping[str, str], items: Gathered
) -> dict[str, dict[str, float]]:
    """Whether fusing keeps what an expert did best: R@1 between the two modalities of its own space, own and fused.

    ``kin``: a space and the one of another modality in whose space its rows lie. On the half that judges.
    """
    sides = mapped(fused, groups, items)
    turn = torch.arange(len(items.keys)).remainder(2).bool()
    home = {space: modality for modality, spaces in groups.items() for space in spaces}
    found = {}
    for one, other in kin.items():
        for a, b in ((one, other), (other, one)):
            if a not in home or b not in home or home[a] == home[b]:
                continue
            both = next((x for m, n, x in pairs(sides, turn) if (m, n) == (home[a], home[b])), None)
            if both is None:
                continue
            x, y = (items.rows[s][items.places[s][both]].double() for s in (a, b))
            x, y = (normalize(rows - rows.mean(0), dim=1) for rows in (x, y))
            together = [fuse(fused[home[s]], sides[home[s]].of(both)) for s in (a, b)]
            found[f"{a} -> {b}"] = {"own": round(recall(x, y), 4), "fused": round(recall(*together), 4)}
    return found
