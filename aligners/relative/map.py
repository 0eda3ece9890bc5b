"""Relative maps: a row as its similarities to anchors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import RefusedError, SutureError
from ..map import Map

__all__ = ["Product", "Quantised", "Readout", "Relative"]

Readout = Literal["linear", "cosine", "angular", "euclidean", "l1", "linf", "geodesic"]
Quantised = Literal["none", "coordinates", "similarities", "smooth"]
NO_WAY_BACK = "a {} map has no inverse: it keeps similarities to anchors only; a way back can be fitted, not derived."


@dataclass(frozen=True, eq=False)
class Relative(Map):
    """``x -> ((sim(x - centre, anchor_j) - shift_j) * gain_j)_j``, to unit length if ``unit``, times ``weight``.

    ``anchors`` ``(k, p)`` are centred already, ``centre`` ``(p,)``, ``shift`` and ``gain`` ``(k,)``. ``readout``: what
    sim is; "linear" is the inner product with the anchors, which for a basis change or whitening are the dual ones.
    "geodesic" needs the graph: ``nodes`` ``(m, p)``, centred, and their path lengths ``paths`` ``(m, k)`` to the
    anchors; a row enters it by its ``neighbours`` nearest nodes. ``quantised``: "coordinates" are rounded to multiples
    of ``step`` before, "similarities" after, "smooth" is ``s - sin(2 pi s / step) step / (2 pi)``.
    """

    kind: ClassVar[str] = "relative"
    anchors: Tensor
    centre: Tensor
    shift: Tensor
    gain: Tensor
    nodes: Tensor | None = None
    paths: Tensor | None = None
    readout: Readout = "cosine"
    unit: bool = False
    weight: float = 1.0
    quantised: Quantised = "none"
    step: float = 0.1
    neighbours: int = 10

    def __post_init__(self) -> None:
        for name, tensor in self.tensors().items():
            object.__setattr__(self, name, tensor.detach().contiguous())
        (k, p), shapes = self.anchors.shape, {name: tuple(t.shape) for name, t in self.tensors().items()}
        graph = self.nodes is not None and self.paths is not None and self.paths.shape == (len(self.nodes), k)
        fits = (self.centre.shape, self.shift.shape, self.gain.shape) == ((p,), (k,), (k,))
        if not fits or graph != (self.readout == "geodesic"):
            raise SutureError(f"Relative: expected tensors that fit together and a graph if geodesic, got {shapes}.")

    @property
    def source_dim(self) -> int:
        """``p``."""
        return self.anchors.shape[1]

    @property
    def target_dim(self) -> int:
        """``k``."""
        return self.anchors.shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """Those that there are."""
        names = ("anchors", "centre", "shift", "gain", "nodes", "paths")
        return {name: tensor for name in names if (tensor := getattr(self, name)) is not None}

    def settings(self) -> dict[str, Any]:
        """What is no tensor."""
        names = ("readout", "unit", "weight", "quantised", "step", "neighbours")
        return {name: getattr(self, name) for name in names}

    def to(self, dtype: torch.dtype) -> Relative:
        """The same map with its numbers kept in ``dtype``."""
        return Relative.build({name: t.to(dtype) for name, t in self.tensors().items()}, self.settings())

    def forward(self, x: Tensor) -> Tensor:
        """Similarities to the anchors, finished."""
        if self.quantised == "coordinates":
            x = (x / self.step).round() * self.step
        s = self._similarities(x - self.centre.to(x))
        if self.quantised == "similarities":
            s = (s / self.step).round() * self.step
        elif self.quantised == "smooth":
            s = s - torch.sin(2 * math.pi * s / self.step) * (self.step / (2 * math.pi))
        s = (s - self.shift.to(x)) * self.gain.to(x)
        return (_unit(s) if self.unit else s) * self.weight

    def _similarities(self, z: Tensor) -> Tensor:
        anchors = self.anchors.to(z)
        if self.readout == "linear":
            return z @ anchors.T
        if self.readout in ("cosine", "angular"):
            cosine = _unit(z) @ _unit(anchors).T
            return cosine if self.readout == "cosine" else cosine.clamp(-1, 1).arccos() / math.pi
        if self.readout == "geodesic":
            assert self.nodes is not None  # checked above
            assert self.paths is not None
            away, entry = distances(z, self.nodes.to(z), 2.0).topk(self.neighbours, dim=-1, largest=False)
            return (away[..., None] + self.paths.to(z)[entry]).amin(-2)
        return distances(z, anchors, {"euclidean": 2.0, "l1": 1.0, "linf": math.inf}[self.readout])

    def inverse(self) -> Map:
        """Refused."""
        raise RefusedError(NO_WAY_BACK.format(self.kind))


@dataclass(frozen=True, eq=False)
class Product(Map):
    """Several relative maps of the same rows, side by side, or averaged (``average``)."""

    kind: ClassVar[str] = "product"
    parts: tuple[Relative, ...]
    average: bool = False

    @property
    def source_dim(self) -> int:
        """``p``."""
        return self.parts[0].source_dim

    @property
    def target_dim(self) -> int:
        """All their widths together, or their common one."""
        return self.parts[0].target_dim if self.average else sum(part.target_dim for part in self.parts)

    def tensors(self) -> dict[str, Tensor]:
        """Those of the parts, numbered."""
        return {f"{name}_{i}": t for i, part in enumerate(self.parts) for name, t in part.tensors().items()}

    def settings(self) -> dict[str, Any]:
        """Those of each part."""
        return {"parts": [part.settings() for part in self.parts], "average": self.average}

    @classmethod
    def build(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Product:
        """The product of the parts so described."""
        parts = []
        for i, own in enumerate(settings["parts"]):
            mine = {name.rpartition("_")[0]: t for name, t in tensors.items() if name.rpartition("_")[2] == str(i)}
            parts.append(Relative.build(mine, own))
        return cls(tuple(parts), settings["average"])

    def forward(self, x: Tensor) -> Tensor:
        """Every part."""
        blocks = [part.forward(x) for part in self.parts]
        return torch.stack(blocks).mean(0) if self.average else torch.cat(blocks, dim=-1)

    def inverse(self) -> Map:
        """Refused."""
        raise RefusedError(NO_WAY_BACK.format(self.kind))


def distances(z: Tensor, points: Tensor, p: float) -> Tensor:
    """``||z_i - points_j||_p`` ``(..., k)`` by differences, exact for rows near a point, whatever the batch."""
    flat = z.reshape(-1, z.shape[-1])
    away = torch.cdist(flat, points, p=p, compute_mode="donot_use_mm_for_euclid_dist")
    return away.reshape(*z.shape[:-1], len(points))


def _unit(rows: Tensor) -> Tensor:
    return normalize(rows, dim=-1, eps=torch.finfo(rows.dtype).tiny ** 0.5)
