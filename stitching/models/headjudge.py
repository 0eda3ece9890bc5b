"""Choosing between methods by what a decoder makes of their maps: no labels are needed, only the head."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from ...aligners.aligner import Aligner
from ...aligners.choose import cross_fit, require_held_out
from ...aligners.errors import RefusedError
from ...aligners.survey import Survey
from .headfile import Head

__all__ = ["HeadJudge"]


class HeadJudge:
    """Rates an aligner by ``head_match``: minus KL(head(y) || head(f(x))) of each sampled pair, f fitted without it.

    0 is the best. The head says which directions of the target space matter to it; neighbours, by which `auto` judges
    else, give all of them the same right. Mapped rows are scaled to unit length where the target's are. Raises
    `RefusedError` for a head of another width than the target, or too few pairs to hold some out.
    """

    def __init__(self, survey: Survey, head: Head) -> None:
        require_held_out(survey)
        if head.dim != survey.target.dim:
            raise RefusedError(
                f"the head takes {head.dim} dims, the target has {survey.target.dim}; fit the map from the new encoder "
                "(source) to the one that the head knows (target)."
            )
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
