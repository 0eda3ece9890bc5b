"""Binding: several spaces joined to one base through the items that each shares with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..alignment import Alignment
from ..errors import RefusedError, UsageError
from ..linear.checks import check_choice, check_number
from ..maps import Affine, Identity
from .base import MultiwayAligner, Sample
from .fused import Fused
from .fusion import Weights, choose, grouped, joined, retention
from .moments import ManyMoments

__all__ = ["Bind"]


@dataclass(frozen=True)
class Bind(MultiwayAligner):
    """Every space mapped into the ``base`` (the first by default), by the items that it shares with it.

    ``strength``: ridge shrunk to the rotation between the shared items (`RotationRidge`), in units of the space's mean
    variance; 0 is least squares, none the rotation alone. ``same``: "image=text,sound=text" says that the rows called
    image are of another modality in the space of those called text: they share no item with the base, take the map of
    text, and are moved by the difference of their means, which closes the gap between the modalities (Ex-MCR, OmniBind
    go through the shared modality likewise). The authors average seven trained projectors; the closed form has one
    optimum, so there is one.

    ``fuse``: "text=a+b,image=c+d" makes one space more of each modality out of the spaces named, whose rows go in side
    by side in that order: ``norm(sum_k w_k norm(g_k(x_k)))`` about the base's mean. ``weights`` "fixed": on the
    simplex, by the mean R@1 between modalities on half of the held-out items; "routed": asked of each row by a
    multinomial logistic regression of which space tells its mate best. The other half judges both, and whether each
    expert's own retrieval is retained.
    """

    name: ClassVar[str] = "bind"
    summary: ClassVar[str] = "several spaces joined to a base one through the items (a modality) each shares with it"
    paper: ClassVar[str] = "Wang et al. 2024, OmniBind and FreeBind; Zhang et al. 2024, Ex-MCR: closed form on dumps"

    base: str = ""
    same: str = ""
    strength: float | None = 1.0
    fuse: str = ""
    weights: Weights = "fixed"

    def __post_init__(self) -> None:
        check_number("bind: strength", self.strength, 0)
        check_choice("bind: weights", self.weights, ("fixed", "routed"))
        if not all(len(pair.split("=")) == 2 for pair in self.same.split(",") if pair):
            raise UsageError(f"bind: same: expected 'name=name,name=name', got '{self.same}'.")

    def base_of(self, names: Sequence[str]) -> str:
        """The space named, or the first. Raises `UsageError` where it is not there."""
        base = self.base or names[0]
        if base not in names:
            raise UsageError(f"bind: there is no space '{base}'; there are {', '.join(names)}.")
        return base

    def check(self, moments: ManyMoments, when: str = "") -> None:
        """Variance only: whether items are shared is asked of each space by itself."""
        moments.require_variance(self.name)

    def solve(self, moments: ManyMoments) -> Alignment:
        """Each space by itself."""
        base = self.base_of(moments.names)
        same = dict(pair.split("=") for pair in self.same.split(",") if pair)
        for name in (*same, *same.values()):
            if name not in moments.dims:
                raise UsageError(f"bind: there is no space '{name}'; there are {', '.join(moments.names)}.")
        maps: dict[str, Affine | Identity] = {base: Identity(moments.dims[base])}
        centre = moments.shift[base] + moments.mean(base)
        for name in moments.names:
            if name == base or name in same:
                continue
            maps[name] = self.bound(moments, name, base)
        for name, kin in same.items():
            of = maps.get(kin)
            if name == base or of is None or kin in same or moments.dims[name] != moments.dims[kin]:
                raise UsageError(
                    f"bind: same: '{name}={kin}' expects two spaces of equal dims, the first not the base and the "
                    "second not of another's space."
                )
            weight = of.weight if isinstance(of, Affine) else torch.eye(of.source_dim, dtype=centre.dtype)
            maps[name] = Affine.between(moments.shift[name] + moments.mean(name), weight, centre)
        back = {name: m.pinv() for name, m in maps.items() if isinstance(m, Affine)}
        return Alignment({name: maps[name] for name in moments.names}, back).with_provenance(base=base)

    def settled(self, sample: Sample) -> tuple[Alignment, Self, dict[str, Any] | None]:
        """The alignment of all items with the fused spaces in it; weights are chosen on items that were held out."""
        alignment, settled, found = super().settled(sample)
        if not self.fuse:
            return alignment, settled, found
        groups = grouped(self.fuse, sample.moments.names)
        held = sample.held_out()
        if held is None:
            raise RefusedError(f"bind: fuse: expected at least 50 items to choose weights, got {sample.moments.items}.")
        kept, items = held
        parts = self.fusable(self.solve(kept), kept, groups)
        chosen, facts = choose(parts, groups, items, self.weights)
        same = dict(pair.split("=") for pair in self.same.split(",") if pair)
        facts["retention"] = retention(chosen, groups, same, items)
        final = {
            m: replace(part, gate=chosen[m].gate, router=chosen[m].router)
            for m, part in self.fusable(alignment, sample.moments, groups).items()
        }
        small = {m: Fused.build({k: t.float() for k, t in f.tensors().items()}, f.settings()) for m, f in final.items()}
        wider = Alignment({**alignment.maps, **small}, alignment.back, alignment.spaces, alignment.provenance)
        return wider.with_provenance(fusion={"spaces": {m: list(s) for m, s in groups.items()}, **facts}), self, found

    def fusable(
        self, alignment: Alignment, moments: ManyMoments, groups: Mapping[str, Sequence[str]]
    ) -> dict[str, Fused]:
        """Each modality with equal weights, about the base's mean and as long as the base's rows."""
        base = self.base_of(moments.names)
        centre = moments.shift[base] + moments.mean(base)
        length = (float(moments.covariance(base).trace()) / moments.rows(base)) ** 0.5
        return {m: joined(alignment, spaces, centre, length) for m, spaces in groups.items()}

    def bound(self, moments: ManyMoments, name: str, base: str) -> Affine:
        """The map of a space by the items that it shares with the base."""
        here, there = moments.parts[name], moments.parts[base]
        joint = moments.joint[here, there]
        if not float(joint[-1, -1]) > 0:
            raise RefusedError(
                f"bind: {name} shares no item with the base {base}. Give shared items, another base (--set base=NAME), "
                "or say whose space it is (--set same=NAME=NAME)."
            )
        n = joint[-1, -1]
        mean_x, mean_y = joint[:-1, -1] / n, joint[-1, :-1] / n
        cross = (joint[:-1, :-1] - n * torch.outer(mean_x, mean_y)) / n
        u, _, vt = torch.linalg.svd(cross, full_matrices=False)
        weight: Tensor = u @ vt
        if self.strength is not None:
            both = moments.based[name]
            cov = both[:-1, :-1] / n - torch.outer(mean_x, mean_x)
            unit = cov.trace() / len(cov)
            mu = self.strength * unit
            # The best multiple of the rotation: with rows of any length a rotation alone would have the wrong one.
            rotation = weight * ((weight * cross).sum() / ((cov @ weight) * weight).sum())
            eye = torch.eye(len(cov), dtype=cov.dtype)
            weight = torch.linalg.solve(cov + (mu + 1e-10 * unit) * eye, cross + mu * rotation)
        return Affine.between(moments.shift[name] + mean_x, weight, moments.shift[base] + mean_y)
