"""Judging by a head: what a frozen classifier makes of mapped rows, beside what it makes of the target's own.

No labels are needed, only the head. It says which directions of the target space matter to it; neighbours, by which
`auto` judges else, give all of them the same right.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn.functional import normalize

from .aligner import Aligner
from .choose import cross_fit, require_held_out
from .errors import RefusedError
from .survey import Survey

__all__ = ["HeadJudge", "LinearHead", "require_takes"]


class LinearHead(Protocol):
    """``softmax(x weight' + bias)``; `suture.stitching.models.Head` is one."""

    @property
    def weight(self) -> Tensor:
        """``(c, q)``; one row is the log-odds of the second of two classes."""

    @property
    def bias(self) -> Tensor:
        """``(c,)``."""

    def log_probabilities(self, x: Tensor) -> Tensor:
        """``(n, q)`` to ``(n, c)``."""


class HeadJudge:
    """Rates an aligner by ``head_match``: minus KL(head(y) || head(f(x))) of each sampled pair, f fitted without it.

    0 is the best. Mapped rows are scaled to unit length where the target's are. Raises `RefusedError` for a head of
    another width than the target, or too few pairs to hold some out.
    """

    def __init__(self, survey: Survey, head: LinearHead) -> None:
        require_held_out(survey)
        require_takes(head, survey)
        self._survey, self._head = survey, head
        self._own = head.log_probabilities(survey.sample.y)

    def __call__(self, aligner: Aligner) -> dict[str, Tensor]:
        """Per pair ``head_match``, and ``same_class``: whether the head chooses what it chose on the target's row."""
        mapped = cross_fit(aligner, self._survey)
        if self._survey.target.unit:
            mapped = normalize(mapped, dim=-1)
        came = self._head.log_probabilities(mapped)
        match = (self._own.exp() * (came - self._own)).sum(1)
        return {"head_match": match, "same_class": (came.argmax(1) == self._own.argmax(1)).double()}


def require_takes(head: LinearHead, survey: Survey) -> None:
    """Raises `RefusedError` for a head of another width than the target."""
    if head.weight.shape[1] != survey.target.dim:
        raise RefusedError(
            f"the head takes {head.weight.shape[1]} dims, the target has {survey.target.dim}; fit the map from the new "
            "encoder (source) to the one that the head knows (target)."
        )
