"""The objective of similarity distillation, and the frame in which it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import normalize

from ..maps import Affine
from ..moments import Moments

__all__ = ["Frame", "divergence"]


def divergence(mapped: Tensor, target: Tensor, temperature: float, weights: Tensor | None = None) -> Tensor:
    """``mean_i KL(softmax_j(y_i.y_j / T) || softmax_j(y_i.f_j / T))`` of cosines, for f = ``mapped`` and y ``(b, q)``.

    The target's own row is the query and the rows of the batch are the gallery: on the left they are where the new
    encoder puts them, on the right where the map does. ``weights`` ``(b,)``: how much each query counts.
    """
    y = normalize(target, dim=1)
    teacher = (y @ y.T / temperature).log_softmax(1)
    student = (y @ normalize(mapped, dim=1).T / temperature).log_softmax(1)
    each = (teacher.exp() * (teacher - student)).sum(1)
    return each.mean() if weights is None else weights.to(each) @ each / weights.to(each).sum()


@dataclass(frozen=True, eq=False)
class Frame:
    """Units in which a map is trained: rows centred, both clouds equally wide, target rows of length about 1.

    In it centred Procrustes is a rotation R about the means whatever the units of the dumps, and one learning rate
    fits all. A map of the frame sends ``scaled(x)`` to ``scaled(x) @ W + centre``.
    """

    moments: Moments

    @property
    def stretch(self) -> Tensor:
        """``sqrt(tr Yc'Yc / tr Xc'Xc)``: what makes the source's cloud as wide as the target's."""
        return (self.moments.square_y.sum() / self.moments.square_x.sum()).sqrt()

    @property
    def unit(self) -> Tensor:
        """Root mean square length of a target row."""
        return (self.moments.square_y.sum() / self.moments.n + self.moments.mean_y.square().sum()).sqrt()

    def scaled(self, x: Tensor) -> Tensor:
        """Source rows ``(n, p)`` in the frame."""
        return (x - self.moments.mean_x.to(x)) * (self.stretch / self.unit).to(x)

    def centre(self, like: Tensor) -> Tensor:
        """The target's mean ``(q,)`` in the frame."""
        return (self.moments.mean_y / self.unit).to(like)

    def weight(self, mapping: Affine) -> Tensor:
        """The weight ``(p, q)`` that ``mapping``, which brings the means together, has in the frame."""
        return mapping.weight / self.stretch

    def affine(self, weight: Tensor) -> Affine:
        """The map of the frame with ``weight`` ``(p, q)``, in the spaces' own units."""
        return Affine.between(self.moments.mean_x, weight.double() * self.stretch, self.moments.mean_y)
