"""Alignment: maps of several spaces into one shared space, with everything one must know to trust them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .errors import RefusedError, SutureError, UsageError
from .maps import Affine, Identity, Map

__all__ = ["Alignment", "Space"]


@dataclass(frozen=True, eq=False)
class Space:
    """What is remembered of one space.

    ``unit``: whether every row had unit Euclidean length. ``fingerprint``: an order-free hash of the rows' keys.
    ``canaries`` ``(c, dim)`` are a few of its rows and ``canary_keys`` ``(c,)`` their keys, by which another dump of
    the same space is recognised. ``familiarity``: mean cosine of other rows of this space with their nearest canary,
    and the same for rows with shuffled coordinates.
    """

    dim: int
    unit: bool
    fingerprint: str = ""
    mean: Tensor | None = None
    canaries: Tensor | None = None
    canary_keys: Tensor | None = None
    familiarity: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Alignment:
    """Named ``maps`` of each space into one shared space, and the way ``back`` where it is not the exact inverse.

    For one-sided methods the shared space is the target's own, and its map is the identity. ``provenance`` holds plain
    JSON values: method, parameters, rows, held-out scores and whatever else was known when the map was made. Tensors
    that are ``attached`` travel in the file with it; no map reads them, and a map made of this one has none.
    """

    maps: Mapping[str, Map]
    back: Mapping[str, Map] = field(default_factory=dict)
    spaces: Mapping[str, Space] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    attached: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dims = {name: m.target_dim for name, m in self.maps.items()}
        if len(set(dims.values())) != 1:
            raise SutureError(f"expected all maps of an alignment to end in one shared space, got dims {dims}.")
        for name in (*self.maps, *self.back, *self.spaces):
            if not name or "." in name:
                raise UsageError(f"expected a name of a space without dots, got '{name}'.")
        for name, way in self.back.items():
            came, expected = (way.source_dim, way.target_dim), (self.shared_dim, self.map_of(name).source_dim)
            if came != expected:
                raise SutureError(f"expected a way back to '{name}' of dims {expected}, got {came}.")
        for name, space in self.spaces.items():
            if space.dim != self.map_of(name).source_dim:
                raise SutureError(
                    f"expected the space '{name}' to have the {self.maps[name].source_dim} dims that its map takes, "
                    f"got {space.dim}."
                )

    @classmethod
    def one_sided(cls, mapping: Map) -> Alignment:
        """The alignment of two spaces by one map of "source" into "target"."""
        return cls({"source": mapping, "target": Identity(mapping.target_dim)})

    @property
    def shared_dim(self) -> int:
        """Width of the shared space."""
        return next(iter(self.maps.values())).target_dim

    @property
    def sides(self) -> tuple[str, ...]:
        """The names of the spaces."""
        return tuple(self.maps)

    def map_of(self, name: str) -> Map:
        """The map of that space into the shared one. Raises `UsageError` for a name that is not there."""
        if name not in self.maps:
            raise UsageError(f"there is no space '{name}' in this alignment; it has {', '.join(self.maps)}.")
        return self.maps[name]

    def translate(self, a: str = "source", b: str = "target") -> Map:
        """The map from space ``a`` into the own coordinates of space ``b``.

        Raises `RefusedError` where the shared space cannot be left exactly and the method gives no way back.
        """
        there, into = self.map_of(a), self.map_of(b)
        if a == b:
            return Identity(there.source_dim)
        return there >> (self.back[b] if b in self.back else into.inverse())

    def between(self, a: str, b: str) -> Alignment:
        """The alignment of ``a`` (its source) and ``b`` (its target) alone, by `translate`."""
        mapping = self.translate(a, b)
        spaces = {side: self.spaces[n] for side, n in (("source", a), ("target", b)) if n in self.spaces}
        facts = {
            "method": self.provenance.get("method"),
            "of": {"source": a, "target": b},
            "parts": [{**self.provenance}],
        }
        return replace(Alignment.one_sided(mapping), spaces=spaces, provenance=facts)

    def translates(self, a: str, b: str) -> bool:
        """Whether `translate` from ``a`` to ``b`` has an answer."""
        try:
            self.translate(a, b)
        except RefusedError:
            return False
        return True

    def to(self, dtype: torch.dtype) -> Alignment:
        """The same alignment with the numbers of its affine maps kept in ``dtype``."""

        def cast(maps: Mapping[str, Map]) -> dict[str, Map]:
            return {name: m.to(dtype) if isinstance(m, Affine) else m for name, m in maps.items()}

        return replace(self, maps=cast(self.maps), back=cast(self.back))

    def with_provenance(self, **facts: Any) -> Alignment:
        """The same alignment with these facts added to its provenance."""
        return replace(self, provenance={**self.provenance, **facts})

    def inverse(self) -> Alignment:
        """Source and target exchanged, by the exact inverse of the map between them.

        Raises `RefusedError` where the map has none.
        """
        forward = self.translate("source", "target")
        return self._renewed(forward.inverse(), (self,), swap=True, made="invert")

    def __rshift__(self, other: Alignment) -> Alignment:
        """From this alignment's source to the other's target, through the space they have in common."""
        first, second = self.translate("source", "target"), other.translate("source", "target")
        ours, theirs = self.spaces.get("target"), other.spaces.get("source")
        if ours and theirs and ours.unit != theirs.unit:
            words = {True: "unit rows", False: "rows of any length"}
            raise RefusedError(
                f"cannot compose: the first map ends in a space of {words[ours.unit]} and the second starts from one "
                f"of {words[theirs.unit]}; these are not the same space."
            )
        return self._renewed(first >> second, (self, other), swap=False, made="compose")

    @staticmethod
    def _renewed(mapping: Map, parts: tuple[Alignment, ...], *, swap: bool, made: str) -> Alignment:
        names = ("target", "source") if swap else ("source", "target")
        ends = (parts[0].spaces.get(names[0]), parts[-1].spaces.get(names[1]))
        return Alignment(
            maps={"source": mapping, "target": Identity(mapping.target_dim)},
            spaces={name: s for name, s in zip(("source", "target"), ends, strict=True) if s is not None},
            provenance={"method": made, "parts": [dict(p.provenance) for p in parts]},
        )
