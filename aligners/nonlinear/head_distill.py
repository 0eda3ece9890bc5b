"""Distillation of an affine map through a frozen head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..aligner import Aligner, Needs
from ..alignment import Alignment
from ..errors import UsageError
from ..head import HeadJudge, LinearHead, require_takes
from ..linear.checks import check_number, check_rank
from ..linear.rotation_ridge import RotationRidge
from ..maps import Affine
from ..moments import Block
from ..survey import Survey
from .rows import training_rows

__all__ = ["HeadDistill"]

PULLS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)


@dataclass(frozen=True)
class HeadDistill(Aligner):
    """Affine f on whose rows a frozen linear ``head`` says what it says on the target's own.

    ``min_W,b mean_i KL(softmax((H y_i + h) / T) || softmax((H f(x_i) + h) / T)) + pull s ||W - W0||^2`` for f(x) = x W
    + b: the head's own soft answers are the labels (distillation, Hinton et al. 2015). W0, the start, is
    `RotationRidge` of the given ``strength``, scaled; s, the mean variance of a source dimension over that of a target
    dimension, makes pull free of units. ``pull`` left open: the best of 10 to 0.03 by the head's answers out of fold,
    at temperature 1. Where the target's rows have unit length, so have f's here.

    Only what the head sees is changed: W - W0 lies in the span of its c - 1 contrasts, so p (c - 1) numbers are trained
    and not p q. Convex, but for unit rows. Full-batch L-BFGS from W0 in coordinates in which the Hessian is about the
    identity, at most ``steps`` of it; deterministic. Trained on up to 50,000 pairs drawn by their keys.
    ``temperature``: T, the higher, the more the order of the less likely classes counts.
    """

    name: ClassVar[str] = "head-distill"
    summary: ClassVar[str] = "affine map trained so that a frozen head says of mapped rows what it says of the target's"
    paper: ClassVar[str] = "Hinton et al. 2015, Distilling the knowledge in a neural network (arXiv 1503.02531)"
    needs: ClassVar[Needs] = "a head"
    affine: ClassVar[bool] = True

    head: LinearHead | None = None
    temperature: float = 3.0
    strength: float = 1.0
    pull: float | None = None
    steps: int = 50

    @property
    def blocks(self) -> frozenset[Block]:
        """The moments that it needs with these hyper-parameters."""
        return frozenset(("xx", "xy", "y"))

    def __post_init__(self) -> None:
        for what in ("temperature", "strength", "pull"):
            check_number(f"head-distill: {what}", getattr(self, what), 0, above=True)
        check_rank("head-distill: steps", self.steps)

    def parameters(self) -> dict[str, Any]:
        """The hyper-parameters; the head is an input."""
        return {name: getattr(self, name) for name in ("temperature", "strength", "pull", "steps")}

    def variants(self, survey: Survey) -> Sequence[Self]:
        """One aligner for each pull, nearest to the start first."""
        return tuple(replace(self, pull=pull) for pull in (PULLS if self.pull is None else (self.pull,)))

    def settle(self, survey: Survey) -> Self:
        """The pull whose maps the head takes best out of fold."""
        tried = self.variants(survey)
        if len(tried) == 1:
            return self
        judge = HeadJudge(survey, self._head(survey))
        return max(tried, key=lambda aligner: float(judge(aligner)["head_match"].mean()))

    def _head(self, survey: Survey) -> LinearHead:
        if self.head is None:
            raise UsageError(
                "head-distill: expected the head that the map is for: HeadDistill(head), or `suture fit --head FILE`."
            )
        require_takes(self.head, survey)
        return self.head

    def align(self, survey: Survey) -> Alignment:
        """The trained map, at pull 1 where it is open."""
        head, moments, rows = self._head(survey), survey.moments, training_rows(survey)
        start = RotationRidge(strength=self.strength, scale=True).solve(moments)
        logits = Logits.of(head, self.temperature, start, rows.x, rows.y, unit=survey.target.unit)
        per_dim = moments.n * moments.source_dim, moments.n * moments.target_dim
        ratio = float(moments.square_x.sum() / per_dim[0] / (moments.square_y.sum() / per_dim[1]))
        pull = (1.0 if self.pull is None else self.pull) * ratio

        # The Hessian of the divergence is about (x'x / n) (x) curvature, that of the pull 2 pull I.
        variances, v = moments.eigen_x
        curvature, turn = torch.linalg.eigh(logits.curvature)
        curvature = curvature.clamp(min=1e-6 * float(curvature[-1]))
        weight_scale = (variances[:, None] / moments.n * curvature + 2 * pull).rsqrt()
        bias_scale, basis = curvature.rsqrt(), turn.T @ logits.basis
        dtype = rows.x.dtype
        z = ((rows.x - moments.mean_x.to(dtype)) @ v.to(dtype), weight_scale.to(dtype), bias_scale.to(dtype))
        turned = turn.T.to(dtype)
        counts = torch.ones(len(rows), dtype=dtype) if rows.weights is None else rows.weights.to(dtype)
        a = torch.zeros_like(z[1], requires_grad=True)
        b = torch.zeros_like(z[2], requires_grad=True)
        optimiser = torch.optim.LBFGS([a, b], max_iter=self.steps, line_search_fn="strong_wolfe", tolerance_grad=1e-5)
        losses = []

        def loss() -> Tensor:
            optimiser.zero_grad()
            step = z[1] * a
            each = logits.divergence(torch.addmm(z[2] * b, z[0], step) @ turned)
            total = counts @ each / counts.sum() + pull * step.square().sum()
            total.backward()
            losses.append(float(total.detach()))
            return total

        optimiser.step(loss)  # type: ignore[no-untyped-call]
        step, shift = weight_scale * a.detach().double(), bias_scale * b.detach().double()
        weight = v @ step @ basis
        mapping = Affine(start.weight + weight, start.bias + shift @ basis - moments.mean_x @ weight)
        objective = {"start": losses[0], "best": min(losses)}
        facts = {"pairs": len(rows), "classes": len(head.weight), "steps": len(losses), "objective": objective}
        return Alignment.one_sided(mapping).with_provenance(training=facts)


@dataclass(frozen=True, eq=False)
class Logits:
    """What the head says of rows f(x) = start(x) + d ``basis``, beside ``teacher`` ``(n, c)``, what it says of y.

    ``basis`` ``(r, q)``: an orthonormal one of the head's contrasts, the only directions in which its softmax changes.
    ``length``: squared length of start(x) and its components along the basis, where rows are scaled to unit length.
    """

    teacher: Tensor
    start: Tensor
    bias: Tensor
    basis: Tensor
    weight: Tensor
    length: tuple[Tensor, Tensor] | None
    curvature: Tensor

    @classmethod
    def of(cls, head: LinearHead, temperature: float, start: Affine, x: Tensor, y: Tensor, *, unit: bool) -> Logits:
        """For pairs ``x`` ``(n, p)`` and ``y`` ``(n, q)``."""
        weight, bias = head.weight.double() / temperature, head.bias.double() / temperature
        if len(weight) == 1:
            weight, bias = torch.cat([0 * weight, weight]), torch.cat([0 * bias, bias])
        contrasts = weight - weight.mean(0)
        _, s, vt = torch.linalg.svd(contrasts, full_matrices=False)
        basis = vt[s > 1e-9 * s[0]]
        teacher = (y.double() @ weight.T + bias).log_softmax(1)
        p = teacher.exp()
        fisher = torch.diag(p.mean(0)) - p.T @ p / len(p)
        inner = weight @ basis.T
        rows = start(x)
        length = (rows.square().sum(1), rows @ basis.T.to(rows)) if unit else None
        own = rows @ weight.T.to(rows)
        return cls(teacher.to(x), own, bias.to(x), basis, inner.T.to(x), length, inner.T @ fisher @ inner)

    def divergence(self, d: Tensor) -> Tensor:
        """KL(teacher || head(start(x) + d basis)) of each row, for ``d`` ``(n, r)``."""
        scores = torch.addmm(self.start, d, self.weight)
        if self.length is not None:
            square, along = self.length
            scores = scores / (square + (d * (2 * along + d)).sum(1)).clamp(min=1e-12).sqrt()[:, None]
        return (self.teacher.exp() * (self.teacher - (scores + self.bias).log_softmax(1))).sum(1)
