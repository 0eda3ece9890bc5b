"""Audit of the pairing: are the rows that were put together really the same items?

Every sampled pair is scored by the cosine, both sides centred, between the target row and its out-of-fold mapped mate;
the null is the same against shuffled targets. A wrong pair scores like the null. Aggregate scores cannot see a tenth of
the pairs being wrong; this can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .choose import cross_fit, shuffled
from .linear.checks import check_variance
from .linear.rotation_ridge import RotationRidge
from .survey import Survey

__all__ = ["Audit", "audit"]

ENOUGH = 200  # below this many pairs a map is too weak to blame the pairs for a low score
SURE = 0.98
TOLERATED = 0.02
PROBE = RotationRidge(strength=1.0, scale=True)


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found on ``rows`` sampled pairs.

    ``auc``: chance that a pair outscores a shuffled one. ``separation``: the same for the pairs that are right, once
    the share that looks shuffled is taken out: auc = (1 - w) separation + w / 2, with w twice the share of pairs below
    the median of the null. ``suspects``: keys of the pairs below the 95 % quantile of the null.

    ``verdict``: "unrelated" (auc at chance), "mispaired" (over 2 % suspects, most of which look shuffled, and right
    pairs are told from wrong ones with an AUC of at least .98), "unknown" (it cannot be told here) or "clean".
    """

    rows: int
    auc: float | None
    separation: float | None
    suspects: Tensor
    verdict: Literal["clean", "mispaired", "unrelated", "unknown"]

    @property
    def suspect_share(self) -> float:
        """Share of the sampled pairs that are suspect."""
        return len(self.suspects) / self.rows

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "rows": self.rows,
            "auc": self.auc,
            "separation": self.separation,
            "suspects": len(self.suspects),
            "suspect_share": self.suspect_share,
            "verdict": self.verdict,
        }


def audit(survey: Survey) -> Audit:
    """Audit the sampled pairs of a survey. Raises `RefusedError` where all rows of a side are the same."""
    sample = survey.sample
    if len(sample) < ENOUGH or not survey.can_hold_out:
        return Audit(len(sample), None, None, sample.keys[:0], "unknown")
    check_variance("the check of the pairs", survey.moments)
    centre = survey.moments.mean_y
    mapped = cross_fit(PROBE, survey).double() - centre
    true = torch.cosine_similarity(mapped, sample.y.double() - centre)
    null = torch.cosine_similarity(mapped, shuffled(sample, survey.seed).y.double() - centre)
    auc = auc_of(true, null)
    suspects = sample.keys[true < null.quantile(0.95)]
    # Half of the wrong pairs, and hardly any right one, lie below the median of the null (Storey 2002).
    wrong = min(2 * float((true < null.median()).double().mean()), 1.0)
    separation = (auc - wrong / 2) / (1 - wrong) if wrong < 1 else 0.5
    verdict: Literal["clean", "mispaired", "unrelated", "unknown"]
    if auc < 0.5 + max(0.05, 3 * (6 * len(sample)) ** -0.5):
        verdict = "unrelated"
    elif len(suspects) <= TOLERATED * len(sample):
        verdict = "clean"
    else:
        # A weak map misses some right pairs, but leaves hardly any below the median of the null.
        told = max(auc, separation) >= SURE and wrong * len(sample) >= 0.5 * len(suspects)
        verdict = "mispaired" if told else "unknown"
    return Audit(len(sample), auc, separation, suspects, verdict)


def auc_of(high: Tensor, low: Tensor) -> float:
    """The chance that a draw of ``high`` exceeds one of ``low`` (Mann & Whitney 1947), ties counting half."""
    ordered = low.sort().values
    below = torch.searchsorted(ordered, high) + torch.searchsorted(ordered, high, right=True)
    return float(below.double().mean()) / (2 * len(low))
