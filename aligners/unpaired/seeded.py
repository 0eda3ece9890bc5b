"""Seeded alignment: a few known pairs and many rows that share no item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..aligner import Needs
from .base import UnpairedAligner
from .clouds import Clouds
from .signatures import by_signatures

__all__ = ["Seeded"]


@dataclass(frozen=True)
class Seeded(UnpairedAligner):
    """A rotation from a few known pairs ("seeds") and unpaired rows of both spaces.

    1. Signature of a row: its cosines to the seeds of its own side, each standardised over the rows
       (``r_i = z(x_i . s_1), ..., z(x_i . s_k)``). Signatures of both sides can be compared.
    2. Soft pairs: each row with the mean of the ``neighbours`` rows of the other side whose signatures are most
       similar; orthogonal Procrustes on them.
    3. `refine`: ``rounds`` of pulling mapped rows to their nearest targets and solving again, the seeds kept in with
       ``seed_weight`` each, projected to the orthogonal group at the end.
    """

    name: ClassVar[str] = "seeded"
    summary: ClassVar[str] = "rotation from a few known pairs and many rows that share no item"
    paper: ClassVar[str] = (
        "relative representations (Moschella et al. 2023) as the start, refinement after mini-vec2vec (Dar 2025)"
    )
    needs: ClassVar[Needs] = "few pairs"
    fewest_seeds: ClassVar[int] = 5

    def start(self, clouds: Clouds, seed: int) -> Tensor:
        """Procrustes ``(p, q)`` on the soft pairs of the signatures, both directions, and on the seeds."""
        return by_signatures(clouds, self.neighbours, self.seed_weight)

    @property
    def advice(self) -> str:
        """What to try when the spaces could not be aligned."""
        return "Check the seed pairs, name more of them, or give more rows of both spaces."
