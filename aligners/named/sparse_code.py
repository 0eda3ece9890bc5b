"""Sparse codes: a row as a few named concepts, none of them negative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import RefusedError, SutureError
from ..map import Map

__all__ = ["SparseCode"]

STEPS = 100


@dataclass(frozen=True, eq=False)
class SparseCode(Map):
    """``x -> argmin_{s >= 0} ||u - s E||^2 / 2 + penalty sum(s)``, u = ``x - centre`` at unit length, E unit rows.

    ``concepts`` E ``(k, p)``, ``centre`` ``(p,)``. A hundred steps of FISTA (Beck & Teboulle 2009), the same for every
    row, so that a row does not depend on its batch; ``step`` is one over the largest eigenvalue of ``E E'``.
    """

    kind: ClassVar[str] = "sparse-code"
    concepts: Tensor
    centre: Tensor
    penalty: float
    step: float

    def __post_init__(self) -> None:
        if self.concepts.ndim != 2 or self.centre.shape != self.concepts.shape[1:]:
            raise SutureError(
                f"SparseCode: expected concepts (k, p) and centre (p,), got {tuple(self.concepts.shape)} and "
                f"{tuple(self.centre.shape)}."
            )
        for name, tensor in self.tensors().items():
            object.__setattr__(self, name, tensor.detach().contiguous())

    @classmethod
    def of(cls, concepts: Tensor, centre: Tensor, penalty: float) -> SparseCode:
        """The code by ``concepts`` of any length, none of them zero."""
        unit = normalize(concepts, dim=1)
        if not bool((torch.linalg.vector_norm(unit, dim=1) > 0.5).all()):
            raise RefusedError("concepts: expected concepts that differ from their mean, one of them is the mean.")
        return cls(unit, centre, penalty, 1 / float(torch.linalg.matrix_norm(unit, 2)) ** 2)

    @property
    def source_dim(self) -> int:
        """``p``."""
        return self.concepts.shape[1]

    @property
    def target_dim(self) -> int:
        """``k``."""
        return self.concepts.shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """Concepts and centre."""
        return {"concepts": self.concepts, "centre": self.centre}

    def settings(self) -> dict[str, Any]:
        """Penalty and step."""
        return {"penalty": self.penalty, "step": self.step}

    def forward(self, x: Tensor) -> Tensor:
        """The codes ``(..., k)``."""
        e = self.concepts.to(x)
        u = normalize(x - self.centre.to(x), dim=-1, eps=torch.finfo(x.dtype).tiny ** 0.5)
        gram, pull = e @ e.T, u @ e.T - self.penalty
        code = ahead = torch.zeros_like(pull)
        for momentum in self.momenta():
            found = (ahead - self.step * (ahead @ gram - pull)).clamp(min=0)
            ahead = found + momentum * (found - code)
            code = found
        return code

    @staticmethod
    def momenta() -> list[float]:
        """How far each step goes on beyond what it found."""
        found, t = [], 1.0
        for _ in range(STEPS):
            later = (1 + (1 + 4 * t * t) ** 0.5) / 2
            found.append((t - 1) / later)
            t = later
        return found

    def inverse(self) -> Map:
        """Refused."""
        raise RefusedError("a sparse code has no inverse: it keeps what the concepts say; a way back can be fitted.")
