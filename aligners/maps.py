"""Maps between spaces: immutable values that send ``(..., p)`` to ``(..., q)``.

A map is applied by calling it, joined by ``f >> g`` (first f, then g), and undone by `inverse`. A new kind writes
`forward`, `tensors` and, where it has any, `settings`; everything else is derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .errors import RefusedError, SutureError
from .map import Map, MapModule
from .multiway.fused import Fused
from .named.sparse_code import SparseCode
from .nonlinear.kinds import Landmark, Mixture, Residual
from .relative.map import Product, Relative

__all__ = ["MAP_KINDS", "Affine", "Chain", "Identity", "Map", "MapModule", "Normalize"]

# Beyond this condition number, float32 rounding alone spoils two of the seven digits that a row has.
MAX_CONDITION = 1e5


@dataclass(frozen=True, eq=False)
class Identity(Map):
    """``x -> x``."""

    kind: ClassVar[str] = "identity"
    dim: int

    @property
    def source_dim(self) -> int:
        """Width of the vectors."""
        return self.dim

    @property
    def target_dim(self) -> int:
        """Width of the vectors."""
        return self.dim

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x

    def tensors(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def settings(self) -> dict[str, Any]:
        """The width."""
        return {"dim": self.dim}

    def inverse(self) -> Identity:
        """Itself."""
        return self

    def module(self) -> nn.Module:
        """`nn.Identity`."""
        return nn.Identity()


@dataclass(frozen=True, eq=False)
class Affine(Map):
    """``x -> x @ weight + bias`` with ``weight`` ``(p, q)`` and ``bias`` ``(q,)``."""

    kind: ClassVar[str] = "affine"
    weight: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[1:]:
            raise SutureError(
                f"Affine: expected weight (p, q) and bias (q,), got {tuple(self.weight.shape)} and "
                f"{tuple(self.bias.shape)}."
            )
        # One layout in memory: a product with a transposed view rounds otherwise than with the same numbers in a file.
        object.__setattr__(self, "weight", self.weight.detach().contiguous())
        object.__setattr__(self, "bias", self.bias.detach().contiguous())

    @classmethod
    def between(cls, mean_x: Tensor, weight: Tensor, mean_y: Tensor) -> Affine:
        """``x -> (x - mean_x) @ weight + mean_y``, the form in which linear methods are solved."""
        return cls(weight, mean_y - mean_x @ weight)

    @property
    def source_dim(self) -> int:
        """``p``."""
        return self.weight.shape[0]

    @property
    def target_dim(self) -> int:
        """``q``."""
        return self.weight.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """``x @ weight + bias`` in one fused product."""
        weight, bias = self.weight.to(x), self.bias.to(x)
        if x.ndim == 2:
            return torch.addmm(bias, x, weight)
        return x @ weight + bias

    def tensors(self) -> dict[str, Tensor]:
        """``weight`` and ``bias``."""
        return {"weight": self.weight, "bias": self.bias}

    def to(self, dtype: torch.dtype) -> Affine:
        """The same map with its numbers kept in ``dtype``."""
        return Affine(self.weight.to(dtype), self.bias.to(dtype))

    def deviation(self) -> float:
        """``||W W' - I||_F`` on the smaller side: 0 for a rotation or an isometric embedding."""
        w = self.weight.double()
        gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        return float(torch.linalg.norm(gram - torch.eye(len(gram), dtype=w.dtype, device=w.device)))

    def inverse(self) -> Affine:
        """The exact inverse; refused when the map is not square or its condition number is above 1e5."""
        p, q = self.weight.shape
        if p != q:
            raise RefusedError(
                f"this map goes from {p} to {q} dims and has no exact inverse; in Python its pinv() gives the "
                "least-squares one, or fit the other direction."
            )
        condition = float(torch.linalg.cond(self.weight.double()))
        if not condition < MAX_CONDITION:
            raise RefusedError(
                f"this map has condition number {condition:.1e} (limit {MAX_CONDITION:.0e}): its inverse would be "
                "noise in the directions it shrank; in Python its pinv() gives the least-squares one, or fit the other "
                "direction."
            )
        return self.pinv()

    def pinv(self) -> Affine:
        """The least-squares way back, by the Moore-Penrose inverse of the weight."""
        back = torch.linalg.pinv(self.weight.double())
        return Affine(back.contiguous(), -self.bias.double() @ back).to(self.weight.dtype)

    def module(self) -> nn.Linear:
        """The map as `nn.Linear`, in float32."""
        # Made without its random start, which would move torch's global generator.
        linear = nn.Linear(self.source_dim, self.target_dim, device="meta").to_empty(device=self.weight.device)
        with torch.no_grad():
            linear.weight.copy_(self.weight.T)
            linear.bias.copy_(self.bias)
        return linear.requires_grad_(False)


@dataclass(frozen=True, eq=False)
class Normalize(Map):
    """``x -> x / ||x||``; a zero row stays zero."""

    kind: ClassVar[str] = "normalize"
    dim: int

    @property
    def source_dim(self) -> int:
        """Width of the vectors."""
        return self.dim

    @property
    def target_dim(self) -> int:
        """Width of the vectors."""
        return self.dim

    def forward(self, x: Tensor) -> Tensor:
        """Rows of unit Euclidean length, or less where their squares are too small to be numbers."""
        return nn.functional.normalize(x, dim=-1, eps=torch.finfo(x.dtype).tiny ** 0.5)

    def tensors(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def settings(self) -> dict[str, Any]:
        """The width."""
        return {"dim": self.dim}


@dataclass(frozen=True, eq=False)
class Chain(Map):
    """Maps applied one after the other, left to right."""

    kind: ClassVar[str] = "chain"
    maps: tuple[Map, ...]

    def __post_init__(self) -> None:
        dims = [(part.source_dim, part.target_dim) for part in self.maps]
        if not dims or any(a[1] != b[0] for a, b in pairwise(dims)):
            raise SutureError(f"Chain: expected maps each of which takes what the last one gives, got dims {dims}.")

    @property
    def source_dim(self) -> int:
        """Width that the first map takes."""
        return self.maps[0].source_dim

    @property
    def target_dim(self) -> int:
        """Width that the last map gives."""
        return self.maps[-1].target_dim

    def forward(self, x: Tensor) -> Tensor:
        """Each map in its turn."""
        for each in self.maps:
            x = each.forward(x)
        return x

    def tensors(self) -> dict[str, Tensor]:
        """Those of the parts, numbered."""
        return {f"{i}.{name}": t for i, part in enumerate(self.maps) for name, t in part.tensors().items()}

    def settings(self) -> dict[str, Any]:
        """Kind and settings of each part."""
        return {"maps": [{"kind": part.kind, "settings": part.settings()} for part in self.maps]}

    @classmethod
    def build(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Chain:
        """The chain of the parts so described."""
        parts = []
        for i, part in enumerate(settings["maps"]):
            own = {name.removeprefix(f"{i}."): t for name, t in tensors.items() if name.startswith(f"{i}.")}
            parts.append(build_map(part["kind"], own, part["settings"]))
        return cls(tuple(parts))

    def inverse(self) -> Map:
        """The inverses of the parts, right to left; raises where one of them has none."""
        return chain(*(part.inverse() for part in reversed(self.maps)))

    def module(self) -> nn.Sequential:
        """The modules of the parts in sequence."""
        return nn.Sequential(*(part.module() for part in self.maps))


MAP_KINDS: dict[str, type[Map]] = {
    "affine": Affine,
    "chain": Chain,
    "fused": Fused,
    "identity": Identity,
    "landmark": Landmark,
    "mixture": Mixture,
    "normalize": Normalize,
    "product": Product,
    "relative": Relative,
    "residual": Residual,
    "sparse-code": SparseCode,
}


def build_map(kind: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Map:
    """The map of that ``kind``. Raises `SutureError` for one that this version does not know."""
    if kind not in MAP_KINDS:
        raise SutureError(f"unknown map kind '{kind}' (known: {', '.join(MAP_KINDS)}); a newer suture may have it.")
    return MAP_KINDS[kind].build(tensors, settings)


def chain(*maps: Map) -> Map:
    """The maps joined left to right: nested chains flattened, identities dropped, neighbouring affine maps fused."""
    parts: list[Map] = []
    for each in (inner for m in maps for inner in (m.maps if isinstance(m, Chain) else (m,))):
        last = parts[-1] if parts else None
        if isinstance(last, Identity):
            parts[-1] = each
        elif isinstance(last, Affine) and isinstance(each, Affine):
            parts[-1] = _fuse(last, each)
        elif last is None or not isinstance(each, Identity):
            parts.append(each)
    return parts[0] if len(parts) == 1 else Chain(tuple(parts))


def _fuse(first: Affine, second: Affine) -> Affine:
    weight, bias = second.weight.double(), second.bias.double()
    dtype = torch.promote_types(first.weight.dtype, second.weight.dtype)
    return Affine(first.weight.double() @ weight, first.bias.double() @ weight + bias).to(dtype)
