"""Linear methods with a shared space of their own."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from ..aligner import LinearAligner
from ..alignment import Alignment
from ..maps import Affine
from ..moments import Moments

__all__ = ["TwoSided", "two_sided"]


@dataclass(frozen=True)
class TwoSided(LinearAligner):
    """A method that sends both sides into a shared space. It writes `align_moments`; `solve` goes through it."""

    @abstractmethod
    def align_moments(self, moments: Moments) -> Alignment:
        """The affine maps of both sides into the shared space, and the way back to the target."""

    def solve(self, moments: Moments) -> Affine:
        """From source into the shared space and on to the target."""
        mapping = self.align_moments(moments).translate()
        assert isinstance(mapping, Affine)  # affine maps join to an affine map
        return mapping


def two_sided(
    moments: Moments, into_x: Tensor, into_y: Tensor, *, out_y: Tensor, out_x: Tensor | None = None
) -> Alignment:
    """``x -> (x - mean_x) @ into_x``, ``y -> (y - mean_y) @ into_y``; ways back ``z -> z @ out + mean``.

    ``into_x`` ``(p, k)``, ``into_y`` ``(q, k)``, ``out_y`` ``(k, q)``, ``out_x`` ``(k, p)``.
    """
    zero = into_x.new_zeros(into_x.shape[1])
    back = {"target": Affine(out_y, moments.mean_y)}
    if out_x is not None:
        back["source"] = Affine(out_x, moments.mean_x)
    return Alignment(
        {
            "source": Affine.between(moments.mean_x, into_x, zero),
            "target": Affine.between(moments.mean_y, into_y, zero),
        },
        back,
    )
