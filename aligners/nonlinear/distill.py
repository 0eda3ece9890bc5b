"""Similarity distillation of an affine map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..aligner import Aligner
from ..alignment import Alignment
from ..linear.checks import check_number, check_rank, check_variance
from ..linear.rotation_ridge import RotationRidge
from ..maps import Affine
from ..moments import Block, Moments
from ..pairs import Pairs
from ..survey import Survey
from .rows import hold_out, training_rows
from .similarity import Frame, divergence
from .training import Progress, train

__all__ = ["Distill"]


@dataclass(frozen=True)
class Distill(Aligner):
    """Affine f whose similarities match the target space's own.

    ``min_W mean_i KL(softmax_j(cos(y_i, y_j) / T) || softmax_j(cos(y_i, f(x_j)) / T)) + pull p q / n^2 ||W - W0||^2``

    over batches: the target's row is the query and the mapped rows are the gallery, as retrieval will see them
    (similarity distillation in the manner of ISD, Tejankar et al. 2021, from a teacher that is frozen). W0, the start,
    is `RotationRidge` of the given ``strength``, scaled: centred Procrustes but for directions that hardly vary; in
    units in which its rotation has length 1 W is pulled back to it, the more so the fewer pairs n there are for the p q
    numbers (``pull``). The mean of the source always goes to the mean of the target: a bias left free learns the
    queries of the pairs, not those to come (2,000 pairs of minilm-l6 -> mpnet-base lost 3 % nDCG@10 by it alone).

    ``temperature`` T: the lower, the more only the nearest neighbours count; towards infinity cosines are matched by
    squared error. At most ``steps`` steps of Adam with a first ``rate``, each on ``batch`` pairs; ``patience`` looks,
    ten steps apart, without a gain end it. 0 steps are the start itself.

    Trained on up to 50,000 pairs drawn by their keys. A tenth of them (at most 1,000) is held out from W0 and from
    training, to stop early by; what training added to that W0 is then added to the W0 of all pairs.
    """

    name: ClassVar[str] = "distill"
    summary: ClassVar[str] = "affine map trained so that its similarities match the target space's own"
    paper: ClassVar[str] = "objective of Tejankar et al. 2021, ISD (arXiv 2012.09259), for a map between frozen spaces"
    affine: ClassVar[bool] = True

    temperature: float = 0.2
    strength: float = 10.0
    pull: float = 2.5
    steps: int = 150
    batch: int = 512
    rate: float = 1e-3
    patience: int = 4
    seed: int = 0

    @property
    def blocks(self) -> frozenset[Block]:
        """The moments that it needs with these hyper-parameters."""
        return frozenset(("xx", "xy", "y"))

    def __post_init__(self) -> None:
        for what in ("temperature", "strength", "rate"):
            check_number(f"distill: {what}", getattr(self, what), 0, above=True)
        check_number("distill: pull", self.pull, 0)
        for what in ("batch", "patience"):
            check_rank(f"distill: {what}", getattr(self, what))
        check_rank("distill: steps", self.steps, least=0)

    def align(self, survey: Survey, progress: Progress | None = None) -> Alignment:
        """The trained map; ``progress(step, steps)`` is told how far it is."""
        distilled = distil(self, survey, progress)
        return Alignment.one_sided(distilled.mapping).with_provenance(training=distilled.facts)

    def start(self, moments: Moments) -> Affine:
        """W0, where training starts."""
        return RotationRidge(strength=self.strength, scale=True).solve(moments)


@dataclass(frozen=True, eq=False)
class Distilled:
    """The ``mapping`` from all pairs, the one ``seen`` that knows nothing of the ``held`` pairs, and what happened."""

    mapping: Affine
    seen: Affine
    rows: Pairs
    held: Pairs
    frame: Frame
    facts: dict[str, Any]


def distil(aligner: Distill, survey: Survey, progress: Progress | None = None) -> Distilled:
    """What `Distill` does, with all that a method which goes on from there needs."""
    check_variance(aligner.name, survey.moments)
    rows, held = hold_out(aligner.name, training_rows(survey))
    frame = Frame(survey.moments - Moments.of(held.x, held.y, held.weights, aligner.blocks))
    x, x_held = frame.scaled(rows.x), frame.scaled(held.x)
    start, centre = frame.weight(aligner.start(frame.moments)).to(x), frame.centre(x)
    weight = start.clone()
    pull = aligner.pull * weight.numel() / len(x) ** 2 / min(weight.shape)

    def loss(some: Tensor) -> Tensor:
        weights = None if rows.weights is None else rows.weights[some]
        fit = divergence(torch.addmm(centre, x[some], weight), rows.y[some], aligner.temperature, weights)
        return fit + pull * (weight - start).square().sum()

    def held_out() -> Tensor:
        return divergence(torch.addmm(centre, x_held, weight), held.y, aligner.temperature, held.weights)

    facts = train(
        [weight],
        loss,
        held_out,
        len(x),
        steps=aligner.steps,
        batch=aligner.batch,
        rate=aligner.rate,
        patience=aligner.patience,
        seed=aligner.seed,
        progress=progress,
    )
    moments = survey.moments
    gained = frame.affine(weight).weight - frame.affine(start).weight
    mapping = Affine.between(moments.mean_x, aligner.start(moments).weight + gained, moments.mean_y)
    facts |= {"pairs": len(x), "held_out_pairs": len(held), "moved": float(torch.linalg.norm(weight - start))}
    return Distilled(mapping, frame.affine(weight), rows, held, frame, facts)
