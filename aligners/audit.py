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

__all__ = ["ENOUGH", "Audit", "Likeness", "Pairing", "audit"]

ENOUGH = 200  # below this many pairs a map is too weak to blame the pairs for a low score
SURE = 0.98
TOLERATED = 0.02
Pairing = Literal["clean", "mispaired", "unrelated", "unknown"]
PROBE = RotationRidge(strength=1.0, scale=True)


@dataclass(frozen=True, eq=False)
class Likeness:
    """What the scores of pairs say beside those of shuffled ones.

    ``auc``: chance that a pair outscores a shuffled one. ``wrong``: share that looks shuffled, twice that of pairs
    below the median of the null. ``separation``: the auc of the pairs that are right, once these are taken out: auc =
    (1 - wrong) separation + wrong / 2. ``suspect`` ``(n,)``: whether a pair is below the 95 % quantile of the null.

    ``verdict``: "unrelated" (auc at chance), "mispaired" (over 2 % suspects, most of which look shuffled, and right
    pairs are told from wrong ones with an AUC of at least .98), "unknown" (it cannot be told here) or "clean".
    """

    auc: float
    wrong: float
    separation: float
    suspect: Tensor
    verdict: Pairing

    @classmethod
    def of(cls, true: Tensor, null: Tensor) -> Likeness:
        """Of the scores ``true`` ``(n,)`` of pairs and ``null`` ``(n,)`` of the same rows shuffled."""
        n, auc = len(true), auc_of(true, null)
        suspect = true < null.quantile(0.95)
        # Half of the wrong pairs, and hardly any right one, lie below the median of the null (Storey 2002).
        wrong = min(2 * float((true < null.median()).double().mean()), 1.0)
        separation = (auc - wrong / 2) / (1 - wrong) if wrong < 1 else 0.5
        verdict: Pairing
        if auc < 0.5 + max(0.05, 3 * (6 * n) ** -0.5):
            verdict = "unrelated"
        elif int(suspect.sum()) <= TOLERATED * n:
            verdict = "clean"
        else:
            # A weak map misses some right pairs, but leaves hardly any below the median of the null.
            told = max(auc, separation) >= SURE and wrong * n >= 0.5 * int(suspect.sum())
            verdict = "mispaired" if told else "unknown"
        return cls(auc, wrong, separation, suspect, verdict)


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found on ``rows`` sampled pairs; ``suspects`` are keys. See `Likeness` for the rest.

    Of too few pairs nothing is known: ``auc`` and ``separation`` are None, the ``verdict`` is "unknown".
    """

    rows: int
    auc: float | None
    separation: float | None
    suspects: Tensor
    verdict: Pairing

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
    found = Likeness.of(true, null)
    return Audit(len(sample), found.auc, found.separation, sample.keys[found.suspect], found.verdict)


def auc_of(high: Tensor, low: Tensor) -> float:
    """The chance that a draw of ``high`` exceeds one of ``low`` (Mann & Whitney 1947), ties counting half."""
    ordered = low.sort().values
    below = torch.searchsorted(ordered, high) + torch.searchsorted(ordered, high, right=True)
    return float(below.double().mean()) / (2 * len(low))
