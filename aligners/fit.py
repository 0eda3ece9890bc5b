"""The front door of fitting: survey in, alignment with its whole table out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar

import torch

from .aligner import Aligner
from .alignment import Alignment
from .choose import Candidate, Judge, NeighbourJudge, winner
from .heldout import held_out, learning_curve
from .linear.blend import Blend
from .linear.procrustes import Procrustes
from .linear.procrustes_diagonal import ProcrustesDiagonal
from .linear.ridge import Ridge
from .linear.rotation_ridge import RotationRidge
from .measures.bootstrap import Bootstrap
from .nonlinear.distill import Distill
from .nonlinear.landmark import LandmarkKernel
from .nonlinear.local import Local
from .nonlinear.mlp import MLP, DistillMLP
from .survey import Survey

__all__ = ["Family", "candidates", "fit"]

T = TypeVar("T")
Family = Literal["affine", "any"]
Track = Callable[[Sequence[T], str], Iterable[T]]


DISTILL_FROM = 2000  # pairs; with fewer, distillation gains less than the choice between candidates can tell


def candidates(family: Family = "affine", pairs: float = 0) -> tuple[Aligner, ...]:
    """What ``auto`` compares for that many ``pairs``, simplest first; "any" adds the maps that are not affine."""
    affine: tuple[Aligner, ...] = (Procrustes(), ProcrustesDiagonal(), RotationRidge(), Ridge(), Blend())
    if pairs >= DISTILL_FROM:
        affine = (*affine, Distill())
    return affine if family == "affine" else (*affine, Local(), LandmarkKernel(), MLP(), DistillMLP())


def untracked(items: Sequence[T], what: str) -> Iterable[T]:
    """The items, with nobody watching."""
    return items


def fit(
    survey: Survey,
    aligners: Sequence[Aligner] | None = None,
    *,
    judge: Judge | None = None,
    track: Track[Any] = untracked,
) -> Alignment:
    """The best of ``aligners`` (by default those of ``auto``), refitted on all pairs, with the table in its provenance.

    Judged by ``judge``, else by kept@3 out of fold (`NeighbourJudge`); the earlier wins an exact tie. Where there are
    too few pairs to hold any out, one aligner can still be fitted, and its ``held_out`` says why it is null. Raises
    `RefusedError` where a choice has to be made and cannot. Where the best reads rows, the learning curve is that of
    the best that does not (each entry says whose it is): training a dozen more maps for it would cost minutes.
    """
    tried = [
        v for a in (candidates(pairs=survey.moments.n) if aligners is None else aligners) for v in a.variants(survey)
    ]
    facts: dict[str, Any] = {}
    if not survey.can_hold_out:
        groups = len(torch.unique(survey.sample.keys))
        reason = (
            f"{len(survey.sample)} pairs in {groups} groups are too few to hold some out (20 pairs in 5 groups are "
            "needed, some of them in each of 5 folds)"
        )
        facts = {"held_out": None, "held_out_reason": reason}
        if judge is None and len(tried) == 1:
            return tried[0].fit_survey(survey).with_provenance(**facts, candidates=[])
    if judge is None:
        judge = NeighbourJudge(survey)
    rated = [Candidate(a, judge(a)) for a in track(tried, "comparing methods")]
    chosen = winner(rated)
    steps = track(("final", "held out", "curve"), "fitting")
    facts |= {"candidates": table(rated, chosen, survey.seed), "judged_by": chosen.judged_by}
    facts |= {"edge": edge(chosen.aligner, tried)}
    for step in steps:
        if step == "final":
            alignment = chosen.aligner.fit_survey(survey)
        elif step == "held out" and survey.can_hold_out:
            facts["held_out"] = held_out(chosen.aligner, survey)
        elif survey.can_hold_out:
            quick = [c for c in rated if not c.aligner.reads_rows]
            measured = winner(quick) if quick and chosen.aligner.reads_rows else chosen
            facts["learning_curve"] = learning_curve(measured.aligner, survey)
    return alignment.with_provenance(**facts)


def edge(chosen: Aligner, tried: Sequence[Aligner]) -> dict[str, tuple[float, float, float]]:
    """The real-valued parameters of ``chosen`` that ended at an edge of the values ``tried``: value, lowest, highest.

    A better one may lie beyond. (A rank at the edge has reached the dims.)
    """
    grids = {
        name: sorted(other.parameters()[name] for other in tried if type(other) is type(chosen))
        for name, value in chosen.parameters().items()
        if isinstance(value, float)
    }
    return {
        name: (chosen.parameters()[name], grid[0], grid[-1])
        for name, grid in grids.items()
        if len(set(grid)) > 2 and chosen.parameters()[name] in (grid[0], grid[-1])
    }


def table(rated: Sequence[Candidate], chosen: Candidate, seed: int) -> list[dict[str, Any]]:
    """Each candidate with its score, the paired difference to the ``chosen`` one, and its witnesses; best first."""
    boot = Bootstrap({str(i): c.score for i, c in enumerate(rated)}, seed=seed)
    best = str(next(i for i, c in enumerate(rated) if c is chosen))
    rows = [
        {
            "method": c.aligner.name,
            "params": c.aligner.parameters(),
            c.judged_by: boot.mean(str(i)).as_json(),
            "difference": boot.difference(str(i), best).as_json(),
            "witness": {name: float(v.nanmean()) for name, v in c.metrics.items() if name != c.judged_by},
        }
        for i, c in enumerate(rated)
    ]
    return sorted(rows, key=lambda row: -row[chosen.judged_by]["estimate"])
