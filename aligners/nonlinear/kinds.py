"""Maps that are an affine map and something more: a residual network, kernel features, or several affine maps mixed.

None of them folds into a linear layer or has an inverse; `module` puts them into a model whole, and the other direction
is fitted, not inverted.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import RefusedError, SutureError
from ..map import Map

__all__ = ["Landmark", "Mixture", "Residual"]


@dataclass(frozen=True, eq=False)
class _Bent(Map):
    """What the three have in common: ``weight`` ``(..., p, q)``, and other tensors as fields."""

    weight: Tensor

    def __post_init__(self) -> None:
        for name, tensor in self.tensors().items():
            object.__setattr__(self, name, tensor.detach().contiguous())
        shapes = {name: tuple(t.shape) for name, t in self.tensors().items()}
        if not self._fits():
            raise SutureError(f"{type(self).__name__}: expected tensors that fit together, got shapes {shapes}.")

    def _fits(self) -> bool:
        raise NotImplementedError

    @property
    def source_dim(self) -> int:
        """``p``."""
        return self.weight.shape[-2]

    @property
    def target_dim(self) -> int:
        """``q``."""
        return self.weight.shape[-1]

    def tensors(self) -> dict[str, Tensor]:
        """The fields that are tensors."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def inverse(self) -> Map:
        """Refused: there is none in closed form."""
        raise RefusedError(f"a {self.kind} map has no inverse in closed form; fit the other direction.")


@dataclass(frozen=True, eq=False)
class Residual(_Bent):
    """``x -> x @ weight + bias + gelu(x @ inner + inner_bias) @ outer``.

    ``weight`` ``(p, q)``, ``bias`` ``(q,)``, ``inner`` ``(p, h)``, ``inner_bias`` ``(h,)``, ``outer`` ``(h, q)``.
    """

    kind: ClassVar[str] = "residual"
    bias: Tensor
    inner: Tensor
    inner_bias: Tensor
    outer: Tensor

    def _fits(self) -> bool:
        (p, q), h = self.weight.shape, len(self.inner_bias)
        return (self.bias.shape, self.inner.shape, self.outer.shape) == ((q,), (p, h), (h, q))

    def forward(self, x: Tensor) -> Tensor:
        """The affine part and what the network adds to it."""
        hidden = torch.nn.functional.gelu(x @ self.inner.to(x) + self.inner_bias.to(x))
        return x @ self.weight.to(x) + self.bias.to(x) + hidden @ self.outer.to(x)


@dataclass(frozen=True, eq=False)
class Landmark(_Bent):
    """``x -> x @ weight + bias + exp(-gamma ||x - centre - landmarks||^2) @ outer``.

    ``weight`` ``(p, q)``, ``bias`` ``(q,)``, ``centre`` ``(p,)``, ``landmarks`` ``(k, p)``, ``outer`` ``(k, q)``.
    """

    kind: ClassVar[str] = "landmark"
    bias: Tensor
    centre: Tensor
    landmarks: Tensor
    outer: Tensor
    gamma: float

    def _fits(self) -> bool:
        (p, q), k = self.weight.shape, len(self.landmarks)
        shapes = (self.bias.shape, self.centre.shape, self.landmarks.shape, self.outer.shape)
        return shapes == ((q,), (p,), (k, p), (k, q))

    def settings(self) -> dict[str, Any]:
        """The width of the kernel."""
        return {"gamma": self.gamma}

    def forward(self, x: Tensor) -> Tensor:
        """The affine part and what the kernel features add to it."""
        features = gaussian(x - self.centre.to(x), self.landmarks.to(x), self.gamma)
        return x @ self.weight.to(x) + self.bias.to(x) + features @ self.outer.to(x)


@dataclass(frozen=True, eq=False)
class Mixture(_Bent):
    """``x -> sum_k g_k(x) (x @ weight_k + bias_k)`` with ``g(x) = softmax_k(-sharpness ||x - centres_k||^2)``.

    ``weight`` ``(k, p, q)``, ``bias`` ``(k, q)``, ``centres`` ``(k, p)``.
    """

    kind: ClassVar[str] = "mixture"
    bias: Tensor
    centres: Tensor
    sharpness: float

    def _fits(self) -> bool:
        k, p, q = self.weight.shape
        return (self.bias.shape, self.centres.shape) == ((k, q), (k, p))

    def settings(self) -> dict[str, Any]:
        """How quickly one cell gives way to the next."""
        return {"sharpness": self.sharpness}

    def forward(self, x: Tensor) -> Tensor:
        """Every cell's map, weighted by how near its centre is."""
        gates = soft_cells(x, self.centres.to(x), self.sharpness)
        out = gates @ self.bias.to(x)
        for k, weight in enumerate(self.weight.to(x)):  # one product at a time: k of them at once are k times the rows
            out = out + gates[..., k : k + 1] * (x @ weight)
        return out


def squared_distances(x: Tensor, points: Tensor) -> Tensor:
    """``||x_i - points_j||^2`` ``(..., k)`` of rows ``(..., p)``, which should be centred for its precision."""
    squares = x.square().sum(-1, keepdim=True) + points.square().sum(1)
    return (squares - 2 * (x @ points.T)).clamp(min=0)


def gaussian(x: Tensor, landmarks: Tensor, gamma: float) -> Tensor:
    """``exp(-gamma ||x_i - l_j||^2)`` ``(..., k)``."""
    return (-gamma * squared_distances(x, landmarks)).exp()


def soft_cells(x: Tensor, centres: Tensor, sharpness: float) -> Tensor:
    """``softmax_k(-sharpness ||x - c_k||^2)`` ``(..., k)``; ``||x||^2`` is the same for all k and left out."""
    middle = centres.mean(0)
    centres = centres - middle
    return (sharpness * (2 * ((x - middle) @ centres.T) - centres.square().sum(1))).softmax(-1)
