"""Residual networks on top of an affine map: by squared error, and by similarity distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..aligner import Aligner
from ..alignment import Alignment
from ..linear.checks import check_number, check_rank, check_variance
from ..linear.ridge import Ridge
from ..maps import Affine
from ..moments import Moments
from ..pairs import Pairs
from ..survey import Survey
from .distill import Distill, distil
from .kinds import Residual
from .rows import hold_out, training_rows
from .similarity import Frame, divergence
from .training import Progress, train

__all__ = ["MLP", "DistillMLP"]


@dataclass(frozen=True, eq=False)
class Base:
    """Where a network starts: the affine map of all pairs, that of all but ``held``, and the ``rows`` to train on."""

    mapping: Affine
    seen: Affine
    rows: Pairs
    held: Pairs
    frame: Frame
    facts: dict[str, Any]


@dataclass(frozen=True)
class MLP(Aligner):
    """``f(x) = x W + b + gelu(x W1 + b1) W2``, W and b the ridge solution (GCV), the rest by squared error and Adam.

    The residual adapter of Drift-Adapter. W2 starts at zero, so f starts exactly at ridge, and it ends where a tenth of
    the pairs (at most 1,000, unseen by ridge and by training) was fitted best: never worse than ridge on them, and
    ridge itself where nothing was gained (``best_step`` 0 in the provenance). Trained on up to 50,000 pairs; what the
    network learned is then put on top of the ridge of all pairs. ``hidden``: width of the network, whose input is
    centred and scaled so that pre-activations start with mean 0 and variance 1. ``decay``: penalty on ||W2||^2.
    ``steps``, ``batch``, ``rate``, ``patience``: as in `Distill`; 0 steps are ridge itself.
    """

    name: ClassVar[str] = "mlp"
    summary: ClassVar[str] = "ridge and a small residual network on top of it, stopped early"
    paper: ClassVar[str] = "residual adapter of Drift-Adapter 2025 (arXiv 2509.23471)"

    hidden: int = 256
    steps: int = 300
    batch: int = 512
    rate: float = 1e-3
    decay: float = 0.1
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_number(f"{self.name}: rate", self.rate, 0, above=True)
        check_number(f"{self.name}: decay", self.decay, 0)
        for what in ("hidden", "batch", "patience"):
            check_rank(f"{self.name}: {what}", getattr(self, what))
        check_rank(f"{self.name}: steps", self.steps, least=0)

    def base(self, survey: Survey) -> Base:
        """Ridge."""
        rows, held = hold_out(self.name, training_rows(survey))
        without = survey.moments - Moments.of(held.x, held.y, held.weights)
        return Base(Ridge().solve(survey.moments), Ridge().solve(without), rows, held, Frame(without), {})

    def error(self, mapped: Tensor, target: Tensor, weights: Tensor | None, spread: Tensor) -> Tensor:
        """Squared error as a share of the target's variance ``spread``: 1 - R^2."""
        each = (mapped - target).square().sum(1)
        return (each.mean() if weights is None else weights.to(each) @ each / weights.to(each).sum()) / spread

    def align(self, survey: Survey, progress: Progress | None = None) -> Alignment:
        """The trained map; ``progress(step, steps)`` is told how far it is."""
        check_variance(self.name, survey.moments)
        base = self.base(survey)
        frame, unit = base.frame, base.frame.unit
        sides = [
            (frame.scaled(some.x), some.y / unit.to(some.y), base.seen.forward(some.x) / unit.to(some.y), some.weights)
            for some in (base.rows, base.held)
        ]
        (x, _, start, _), dim = sides[0], survey.moments.source_dim
        spread = (frame.moments.square_y.sum() / frame.moments.n / unit.square()).to(x)
        generator = torch.Generator().manual_seed(self.seed)
        # Pre-activations of variance 1: rows of the frame have mean square length `spread`.
        inner = torch.randn(dim, self.hidden, generator=generator, dtype=x.dtype) / spread.sqrt()
        inner_bias, outer = x.new_zeros(self.hidden), x.new_zeros(self.hidden, start.shape[1])

        def fit(side: tuple[Tensor, Tensor, Tensor, Tensor | None], some: Tensor | slice) -> Tensor:
            x, y, start, weights = side
            hidden = torch.nn.functional.gelu(torch.addmm(inner_bias, x[some], inner))
            mapped = torch.addmm(start[some], hidden, outer)
            return self.error(mapped, y[some], None if weights is None else weights[some], spread)

        def loss(some: Tensor) -> Tensor:
            return fit(sides[0], some) + self.decay * outer.square().sum()

        facts = train(
            [inner, inner_bias, outer],
            loss,
            lambda: fit(sides[1], slice(None)),
            len(x),
            steps=self.steps,
            batch=self.batch,
            rate=self.rate,
            patience=self.patience,
            seed=self.seed,
            progress=progress,
        )
        # Out of the frame and into the spaces' own units.
        inner = inner.double() * (frame.stretch / unit)
        inner_bias = inner_bias.double() - frame.moments.mean_x @ inner
        numbers = (base.mapping.weight, base.mapping.bias, inner, inner_bias, outer.double() * unit)
        dtype = survey.moments.dtype
        facts |= {"pairs": len(x), "held_out_pairs": len(base.held)}
        mapping = Residual(*(n.to(dtype) for n in numbers))
        return Alignment.one_sided(mapping).with_provenance(training=facts, **base.facts)


@dataclass(frozen=True)
class DistillMLP(MLP):
    """`MLP` on top of `Distill`, with its objective: in-batch similarities of the target space as teacher.

    ``f(x) = x W + b + gelu(x W1 + b1) W2``, W and b from `Distill` with its defaults at the same ``temperature`` and
    seed.
    """

    name: ClassVar[str] = "distill-mlp"
    summary: ClassVar[str] = "the distilled map and a small residual network, trained by the same similarities"
    paper: ClassVar[str] = "objective of Tejankar et al. 2021, ISD (arXiv 2012.09259); network of Drift-Adapter 2025"

    temperature: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("distill-mlp: temperature", self.temperature, 0, above=True)

    def base(self, survey: Survey) -> Base:
        """The distilled affine map."""
        d = distil(Distill(temperature=self.temperature, seed=self.seed), survey)
        return Base(d.mapping, d.seen, d.rows, d.held, d.frame, {"affine_training": d.facts})

    def error(self, mapped: Tensor, target: Tensor, weights: Tensor | None, spread: Tensor) -> Tensor:
        """How far the similarities are from the target's own."""
        return divergence(mapped, target, self.temperature, weights)
