"""VecMap: signatures that need neither pairs nor coordinates, then self-learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import SutureError
from ..linear.checks import check_number, check_rank
from ..polar import polar
from .base import UnpairedAligner
from .clouds import Clouds, sampled_rows
from .csls import crowding, csls, mutual_pairs
from .refine import EXACT

__all__ = ["VecMap", "sorted_similarities"]

BETTER = 1e-6


@dataclass(frozen=True)
class VecMap(UnpairedAligner):
    """The unsupervised start and the stochastic self-learning of Artetxe, Labaka & Agirre 2018.

    Start: with ``X = U S V'``, ``M = U S U'`` is the square root of the Gram matrix; each row of M sorted is a
    signature of its item that depends neither on the order of the others nor on coordinates. Rows of both sides are
    matched by CSLS on signatures, both directions. Self-learning: orthogonal Procrustes on the dictionary, a new
    dictionary by CSLS, where a similarity is kept with probability ``keep``, doubled after ``patience`` rounds without
    improvement, until all are kept. Dropped similarities are left out; in the authors' code they become 0 and win
    against negative ones. Unequal numbers of rows are sampled to the smaller. ``signature_rows``: at most so many rows.
    ``most_rounds`` of self-learning without settling are an error.
    """

    name: ClassVar[str] = "vecmap"
    summary: ClassVar[str] = "rotation without pairs: sorted similarities, then self-learning"
    paper: ClassVar[str] = "Artetxe, Labaka & Agirre 2018 (arXiv 1805.06297)"

    signature_rows: int = 2000
    keep: float = 0.1
    patience: int = 5
    most_rounds: int = 300

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("signature_rows", "patience", "most_rounds"):
            check_rank(f"vecmap: {field}", getattr(self, field))
        check_number("vecmap: keep", self.keep, 0, 1, above=True)

    def start(self, clouds: Clouds, seed: int) -> Tensor:
        """Signatures, then self-learning. Raises `SutureError` where that does not end."""
        few = min(len(clouds.x), len(clouds.y), self.signature_rows)
        none = clouds.seeds[:0, 0]
        x, y = (r[sampled_rows(len(r), few, seed, none)] for r in (clouds.x, clouds.y))
        pairs = dictionary(csls(sorted_similarities(x), sorted_similarities(y)))
        known = clouds.x[clouds.seeds[:, 0]].T @ clouds.y[clouds.seeds[:, 1]] * self.seed_weight
        g = torch.Generator().manual_seed(seed)
        keep, best, waited = self.keep, -torch.inf, 0
        for turn in range(self.most_rounds):
            weight = polar(x[pairs[:, 0]].T @ y[pairs[:, 1]] + known)
            cosine = normalize(x @ weight, dim=1) @ y.T
            score = float(cosine.amax(1).mean() + cosine.amax(0).mean()) / 2
            if turn == 0 and len(mutual_pairs(cosine)) >= EXACT * few:
                return weight  # both sides hold the same items, and the signatures have found them
            waited = 0 if score > best + BETTER else waited + 1
            best = max(score, best)
            if waited >= self.patience:
                if keep >= 1:
                    return weight
                keep, waited = min(1.0, 2 * keep), 0
            near, far = crowding(cosine, 10, 1), crowding(cosine, 10, 0)
            pairs = dictionary(cosine.mul_(2).sub_(near[:, None]).sub_(far), keep, g)
        raise SutureError(
            f"vecmap: expected self-learning to settle within {self.most_rounds} rounds, the similarity still rises "
            f"({best:.4f}). Allow more (--set most_rounds={2 * self.most_rounds}) or less patience (--set patience=5)."
        )


def sorted_similarities(rows: Tensor) -> Tensor:
    """Signatures ``(n, n)`` of centred unit ``rows`` ``(n, p)``: sorted rows of ``(X X')^1/2``, unit, centred, unit."""
    u, s, _ = torch.linalg.svd(rows, full_matrices=False)
    ordered = normalize(((u * s) @ u.T).sort(dim=1).values, dim=1)
    return normalize(ordered - ordered.mean(0), dim=1)


def dictionary(scores: Tensor, keep: float = 1.0, g: torch.Generator | None = None) -> Tensor:
    """Pairs ``(n + m, 2)``: the best column of each row and the best row of each column of the scores that are kept."""
    if keep < 1:
        scores = scores.masked_fill(torch.rand(scores.shape, generator=g) >= keep, -torch.inf)
    n, m = scores.shape
    there = torch.stack([torch.arange(n), scores.argmax(1)], 1)
    back = torch.stack([scores.argmax(0), torch.arange(m)], 1)
    return torch.cat([there, back])
