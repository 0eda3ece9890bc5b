"""The strategies as ways of scoring: which queries meet which view of the gallery, and how much each counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...aligners.maps import Affine
from .inputs import Inputs
from .maps import Maps
from .scan import Block, Channel, System, View, named_rows

__all__ = ["GRID", "Systems"]

GRID = tuple(i / 10 for i in range(1, 10))  # what a mixing weight is chosen from
HALF = 0.5
SAMPLE = 2000  # gallery rows from which spreads and ranges are taken


def unit_of(view: str) -> View:
    """That view with rows of length 1."""
    return lambda block: normalize(block[view], dim=1)


@dataclass(frozen=True, eq=False)
class Spread:
    """The standard deviation of a channel over random query-gallery pairs, and its largest magnitude there."""

    deviation: float
    largest: float


class Systems:
    """Every way of scoring that the inputs allow.

    ``views``: by name, what a gallery block is seen as. ``missing``: by strategy, why it is not offered.
    """

    def __init__(self, inputs: Inputs, maps: Maps) -> None:
        self.inputs, self.maps = inputs, maps
        self.views: dict[str, View] = {
            "old": lambda block: normalize(block.raw, dim=1),
            "mapped": lambda block: maps.forward(block.raw),
            "map": unit_of("mapped"),
            "new": lambda block: normalize(block.fetch_new(), dim=1),
            "shuffled": lambda block: normalize(maps.shuffled(block.raw), dim=1),
            "random": lambda block: normalize(maps.random(block.raw), dim=1),
        }
        new = normalize(inputs.queries.new, dim=1)
        self.new = Channel(new, "new")
        self.map = Channel(new, "map")
        self.bridge = Channel(normalize(maps.bridge(inputs.queries.new), dim=1), "old")
        extended = maps.expanded(inputs.queries.new)[:, : inputs.gallery.dim]
        self.expanded = Channel(normalize(extended, dim=1), "old")
        self.nulls = {name: Channel(new, name) for name in ("shuffled", "random")}
        self.missing: dict[str, str] = {}
        self.old: Channel | None = None
        self.turned: Channel | None = None
        self.both: Tensor | None = None
        if inputs.queries.old is None:
            for name in ("stay", "dual", "dual-tuned", "dual-concat"):
                self.missing[name] = "needs the queries by the old encoder too (--old-queries)"
        else:
            self.old = Channel(normalize(inputs.queries.old, dim=1), "old")
            if isinstance(maps.forward, Affine):
                # new query . (g W + b) = (W new query) . g + a number per query: one vector on the old index.
                self.turn = maps.forward.weight.float().T
                self.turned = Channel(new @ self.turn, "old")
                self.both = torch.cat([self.old.queries, new], dim=1)
            else:
                for name in ("dual", "dual-tuned"):
                    self.missing[name] = "one query vector needs an affine map; see dual-concat"
        if inputs.pool is None:
            self.missing["re-embed"] = "needs new vectors of all gallery rows (--pool)"
        elif not inputs.pool.full:
            known = f"{inputs.pool.size} of {inputs.gallery.count}"
            self.missing["re-embed"] = f"needs new vectors of all gallery rows, the pool has {known}"
        self._sample: Block | None = None
        self._spreads: dict[int, Spread] = {}

    @property
    def sample(self) -> Block:
        """At most 2,000 gallery rows, evenly spaced."""
        if self._sample is None:
            count = self.inputs.gallery.count
            rows = torch.linspace(0, count - 1, min(count, SAMPLE)).long()
            pool = self.inputs.pool if self.inputs.full_pool else None
            self._sample = named_rows(self.inputs.gallery, rows, pool, self.views)
        return self._sample

    def spread(self, channel: Channel) -> Spread:
        """How far the scores of a channel spread over random query-gallery pairs."""
        if id(channel) not in self._spreads:
            products = channel.queries[:SAMPLE] @ self.sample[channel.view].T
            self._spreads[id(channel)] = Spread(float(products.std()), float(products.abs().max()))
        return self._spreads[id(channel)]

    def simple(self) -> dict[str, System]:
        """Those of a single channel."""
        found = {"stay": self.old, "bridge": self.bridge, "map": self.map, "expanded": self.expanded}
        found |= self.nulls
        return {name: System(name, ((c, 1.0),)) for name, c in found.items() if c is not None}

    def oracle(self) -> System:
        """New queries on the new vectors that are known."""
        return System("re-embed", ((self.new, 1.0),), on_new=True)

    def duals(self) -> dict[str, Callable[[float | Tensor], System]]:
        """The two ways to serve both encoders, each to be given its mixing weight ``a``, or one a query ``(m, 1)``."""
        ways: dict[str, Callable[[float | Tensor], System]] = {}
        for name, second in (("dual", self.turned), ("dual-concat", self.map)):
            if self.old is not None and second is not None:
                ways[name] = self._dual(name, self.old, second)
        return ways

    def coefficients(self, name: str, a: float) -> tuple[float, float]:
        """What the old and the new product of a dual are multiplied with, spreads divided out; they sum to 1."""
        second = self.turned if name == "dual" else self.map
        assert self.old is not None
        assert second is not None
        old, new = (1 - a) / self.spread(self.old).deviation, a / self.spread(second).deviation
        return old / (old + new), new / (old + new)

    def scale(self, system: System) -> Tensor:
        """What the scores of a dual are multiplied with ``(m, 1)`` to be cosines, as `DualSearch` gives them."""
        (old, c_old), (second, c_new) = system.terms
        if second is self.turned:
            return 1 / (c_old * old.queries + c_new * second.queries).norm(dim=1, keepdim=True)
        length = 0.5**0.5 / (torch.as_tensor(c_old).square() + torch.as_tensor(c_new).square()).sqrt()
        return length.expand(len(old.queries), 1)

    def _dual(self, name: str, old: Channel, second: Channel) -> Callable[[float | Tensor], System]:
        def made(a: float | Tensor) -> System:
            shares = [(1 - a) / self.spread(old).deviation, a / self.spread(second).deviation]
            # Any factor serves, but scores must lie within +-3.
            whole = shares[0] + shares[1] * max(1.0, self.spread(second).largest)
            label = f"{name}@{a}" if isinstance(a, float) else name
            return System(label, ((old, shares[0] / whole), (second, shares[1] / whole)))

        return made
