"""Several bound spaces of the same items as one: their mapped rows weighted and added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import RefusedError, SutureError
from ..map import Map

__all__ = ["Fused"]


@dataclass(frozen=True, eq=False)
class Fused(Map):
    """``[x_1, .., x_K] -> centre + length * norm(sum_k w_k u_k)`` with ``u_k = norm(x_k W_k + b_k - centre)``.

    Rows of K spaces side by side, ``dims`` wide each, into the base ``(q,)``: ``weight`` ``(sum of dims, q)`` the W_k
    one below the other, ``bias`` ``(K, q)``. The weights w are ``softmax([u_1, .., u_K] @ router + gate)``: ``gate``
    ``(K,)`` alone, the logarithms of fixed weights, or with a ``router`` ``(K q, K)``, which asks each row.
    """

    kind: ClassVar[str] = "fused"
    weight: Tensor
    bias: Tensor
    centre: Tensor
    gate: Tensor
    dims: tuple[int, ...]
    length: float
    router: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", tuple(self.dims))
        for name, tensor in self.tensors().items():
            object.__setattr__(self, name, tensor.detach().contiguous())
        k, q = self.bias.shape
        shapes = (tuple(self.weight.shape), tuple(self.centre.shape), tuple(self.gate.shape), len(self.dims))
        routed = self.router is None or self.router.shape == (k * q, k)
        if shapes != ((sum(self.dims), q), (q,), (k,), k) or not routed:
            raise SutureError(f"Fused: expected tensors that fit together for {k} spaces, got {shapes}.")

    @property
    def source_dim(self) -> int:
        """All dims together."""
        return sum(self.dims)

    @property
    def target_dim(self) -> int:
        """``q``."""
        return self.bias.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """Those that there are."""
        names = ("weight", "bias", "centre", "gate", "router")
        return {name: tensor for name in names if (tensor := getattr(self, name)) is not None}

    def settings(self) -> dict[str, Any]:
        """The width of each space, and the length of what comes out."""
        return {"dims": list(self.dims), "length": self.length}

    def mapped(self, x: Tensor) -> Tensor:
        """``u`` ``(..., K, q)``."""
        weights = torch.split(self.weight.to(x), list(self.dims))
        parts = zip(torch.split(x, list(self.dims), -1), weights, self.bias.to(x), strict=True)
        rows = torch.stack([row @ weight + bias for row, weight, bias in parts], -2) - self.centre.to(x)
        return normalize(rows, dim=-1, eps=torch.finfo(x.dtype).tiny ** 0.5)

    def gates(self, mapped: Tensor) -> Tensor:
        """The weights ``(..., K)`` of rows ``u``."""
        scores = self.gate.to(mapped)
        if self.router is not None:
            scores = mapped.flatten(-2) @ self.router.to(mapped) + scores
        return scores.softmax(-1).expand(mapped.shape[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """The weighted sum, at its length about the centre."""
        u = self.mapped(x)
        total = (self.gates(u)[..., None] * u).sum(-2)
        return self.centre.to(x) + self.length * normalize(total, dim=-1, eps=torch.finfo(x.dtype).tiny ** 0.5)

    def inverse(self) -> Map:
        """Refused."""
        raise RefusedError("a fused map has no inverse: several rows went into one; map each space by itself.")
