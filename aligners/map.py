"""What a map is: the base of every kind. The kinds are listed in `maps`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from .arrays import A, through
from .errors import RefusedError, SutureError

__all__ = ["Map", "MapModule"]


class Map(ABC):
    """One map ``(..., source_dim) -> (..., target_dim)``."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def source_dim(self) -> int:
        """Width of the vectors that go in."""

    @property
    @abstractmethod
    def target_dim(self) -> int:
        """Width of the vectors that come out."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """``(..., p)`` float32 or float64 to ``(..., q)`` of the same dtype and device."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The numbers that make up the map, by name."""

    def settings(self) -> dict[str, Any]:
        """What else is needed to build the map again, as plain JSON values."""
        return {}

    @classmethod
    def build(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """The map that has these `tensors` and `settings`."""
        return cls(**tensors, **settings)

    def __call__(self, x: A) -> A:
        """Map ``x`` ``(..., p)``; numpy in, numpy out; dtype and device are kept.

        Rows of float16 are mapped in float32 and rounded once at the end. Raises `SutureError` on another width.
        """
        return through(self.forward, x, self.source_dim, type(self).__name__)

    def __rshift__(self, other: Map) -> Map:
        """First this map, then ``other``; stays `Affine` where both are."""
        if self.target_dim != other.source_dim:
            raise SutureError(
                f"cannot join maps: the first gives {self.target_dim} dims and the second takes {other.source_dim}."
            )
        from .maps import chain  # here, because that file is made of this one

        return chain(self, other)

    def inverse(self) -> Map:
        """The exact inverse. Raises `RefusedError` where there is none, naming what can be had instead."""
        raise RefusedError(f"a {self.kind} map has no inverse: it does not keep all that it is given.")

    def module(self) -> nn.Module:
        """The same map as a torch module whose numbers are buffers: it moves, casts and exports with its model."""
        return MapModule(self)


class MapModule(nn.Module):
    """A `Map` inside a torch model. Input and output ``(..., p)`` and ``(..., q)`` tensors."""

    def __init__(self, mapping: Map) -> None:
        super().__init__()
        self._type, self._settings = type(mapping), mapping.settings()
        self._names = list(mapping.tensors())
        for name, tensor in mapping.tensors().items():
            self.register_buffer(name, tensor.to(torch.float32, copy=True))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., p)`` to ``(..., q)``."""
        return self._type.build({name: getattr(self, name) for name in self._names}, self._settings).forward(x)
