"""The bounded subset of pairs that a method is trained on, and the part of it that it does not see."""

from __future__ import annotations

from torch import Tensor

from ..errors import RefusedError
from ..pairs import Pairs, mix
from ..survey import Survey

__all__ = ["TRAINING_ROWS", "hold_out", "training_rows"]

TRAINING_ROWS = 50_000


def training_rows(survey: Survey, limit: int = TRAINING_ROWS) -> Pairs:
    """At most ``limit`` pairs in memory, drawn by their keys and sorted by those dice.

    One pass. Which pairs they are, and (where keys differ) in which order, depends on keys and seed alone, not on the
    order of the stream. Of more pairs than ``limit`` the share ``limit / rows`` is taken, so it can be a few less.
    """
    share = min(1.0, limit / max(survey.stream.rows, 1))
    bound = int(share * 2.0**64) - (1 << 63)  # dice are uniform over all int64
    kept = []
    for block in survey.stream.blocks():
        pairs = Pairs(block.x, block.y, block.keys, block.weights)
        if share < 1:
            pairs = pairs[_dice(pairs.keys, survey) < bound]
        kept.append(pairs.in_working_precision())
    drawn = Pairs.joined(kept)
    return drawn[_dice(drawn.keys, survey).argsort(stable=True)[:limit]]


def _dice(keys: Tensor, survey: Survey) -> Tensor:
    return mix(keys, survey.seed + 2)


def hold_out(method: str, pairs: Pairs, share: float = 0.1, most: int = 1000) -> tuple[Pairs, Pairs]:
    """`training_rows` as those to train on and those (whole groups, a ``share``, at most about ``most``) to stop by.

    Raises `RefusedError` where fewer than 20 pairs, or only one big group, leave nothing to train on.
    """
    n = len(pairs)
    count = min(most, max(5, round(share * n)))
    if n >= 20:
        count = int((pairs.keys == pairs.keys[count - 1]).nonzero()[-1]) + 1
    if n < 20 or n - count < n // 2:
        raise RefusedError(
            f"{method}: expected at least 20 pairs in several groups, to hold some out and train on the others, got "
            f"{n} pairs; procrustes needs no held-out rows."
        )
    return pairs[count:], pairs[:count]
