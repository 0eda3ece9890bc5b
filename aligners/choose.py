"""Held-out choice between methods: cross-fitted on the survey's sample, judged by what retrieval will see.

Every sampled pair is mapped by a map that was fitted without its fold, and judged on the gallery side: the target's own
row as query, its nearest mapped rows as answer. Right are its own mate, for one half, and its three nearest rows by
both encoders together, for the other (kept@3). The mate alone saturates between spaces that are close; the neighbours
alone favour, where pairs are few, the map that turns the source rigidly, noise and all. The target's own ten nearest
(overlap@10) are a witness: a map that bends the source to imitate them loses what only the source knew, and new queries
find less on the whole mapped gallery (docs/metrics.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .aligner import Aligner, LinearAligner
from .errors import RefusedError
from .maps import Map
from .measures.retrieval import Relevant, overlap, rank_metrics, search
from .pairs import Pairs
from .survey import Survey

__all__ = ["Candidate", "Judge", "LabelJudge", "NeighbourJudge", "best", "cross_fit", "shuffled", "winner"]

T = TypeVar("T", bound=Aligner)
AGREED = 3  # near the top, as in a gallery many times the size of the sample
Judge = Callable[[Aligner], dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Candidate:
    """An aligner and its per-query ``metrics`` ``(m,)``; it is judged by the first, the others are witnesses."""

    aligner: Aligner
    metrics: dict[str, Tensor]

    @property
    def judged_by(self) -> str:
        """The name of the metric that decides."""
        return next(iter(self.metrics))

    @property
    def score(self) -> Tensor:
        """That metric, per query."""
        return self.metrics[self.judged_by]


def fold_map(aligner: Aligner, survey: Survey, fold: int, parts: int | None = None) -> Map:
    """The translation fitted without the sampled pairs of that ``fold``, from the first ``parts`` of the survey.

    A method that reads rows reads those again.
    """
    if isinstance(aligner, LinearAligner) and not aligner.reads_rows:
        return aligner.align_moments(survey.without_fold(fold, parts)).translate()
    train = survey.rest(fold, parts)
    return aligner.settle(train).align(train).translate()


def cross_fit(aligner: Aligner, survey: Survey, parts: int | None = None) -> Tensor:
    """The sampled source rows ``(m, q)`` mapped out of fold. Raises `RefusedError` where nothing can be held out.

    The last answer is remembered with the survey: a table and a curve ask again for what a choice has just judged.
    """
    require_held_out(survey)
    memory: dict[tuple[Aligner, int | None], Tensor] = survey.__dict__.setdefault("_crossed", {})
    parts = None if parts == len(survey.parts) else parts
    if (aligner, parts) in memory:
        return memory[aligner, parts]
    mapped: Tensor | None = None
    for fold, rows in survey.folds():
        out = fold_map(aligner, survey, fold, parts)(survey.sample.x[rows])
        mapped = out.new_empty((len(survey.sample), out.shape[1])) if mapped is None else mapped
        mapped[rows] = out
    assert mapped is not None  # there are always folds
    memory.clear()
    memory[aligner, parts] = mapped
    return mapped


def require_held_out(survey: Survey) -> None:
    """Raises `RefusedError` unless the survey's sample can be split in folds."""
    if not survey.can_hold_out:
        groups = len(torch.unique(survey.sample.keys))
        raise RefusedError(
            f"expected at least 20 pairs in at least 5 groups, some of them in each of 5 folds, to choose on held-out "
            f"rows; got {len(survey.sample)} pairs in {groups} groups. Give more pairs, or leave nothing to choose: "
            "--method procrustes, or another method with its parameters set."
        )


class NeighbourJudge:
    """Rates an aligner by kept@3 on the survey's sample; holds the neighbours, found once."""

    def __init__(self, survey: Survey) -> None:
        require_held_out(survey)
        self._survey = survey
        self._own = torch.arange(len(survey.sample))
        x, y = survey.sample.x, survey.sample.y
        self._truth = search(y, y, exclude=self._own).top
        both = torch.cat([of_equal_spread(x), of_equal_spread(y)], dim=1)
        self._agreed = search(both, both, k=AGREED, exclude=self._own).top

    def __call__(self, aligner: Aligner) -> dict[str, Tensor]:
        """Per-query ``kept@3``, by which is judged, ``overlap@10``, and the mate's ``recall@1`` and ``mrr``."""
        return self.rate(cross_fit(aligner, self._survey))

    def rate(self, mapped: Tensor) -> dict[str, Tensor]:
        """The same for rows ``(m, q)`` that are mapped already."""
        y = self._survey.sample.y
        found = search(y, mapped, exclude=self._own, relevant=Relevant.mates(mapped))
        assert found.rank is not None  # asked for above
        ranks = rank_metrics(found.rank, self._own, len(y))
        return {
            "kept@3": (overlap(found.top[:, :AGREED], self._agreed) + ranks["recall@1"]) / 2,
            "overlap@10": overlap(found.top, self._truth),
            "recall@1": ranks["recall@1"],
            "mrr": ranks["mrr"],
        }


def of_equal_spread(rows: Tensor) -> Tensor:
    """Rows ``(m, d)`` whose cosines, between rows drawn at random, have a standard deviation of 1."""
    unit = normalize(rows, dim=1)
    spread = torch.linalg.vecdot(unit, unit.roll(len(unit) // 2, 0)).std()
    return unit / spread.clamp(min=1e-6).sqrt()


class LabelJudge:
    """Rates an aligner by labelled queries: nDCG@10 of target-space ``queries`` ``(m, q)`` on the mapped gallery.

    ``gallery`` hands out the source-space rows block by block, as often as asked; ``relevant`` holds the right answers
    with their source-space vectors. The map is the one that would be served: fitted on all pairs.
    """

    def __init__(
        self, survey: Survey, queries: Tensor, gallery: Callable[[], Iterable[Tensor]], relevant: Relevant
    ) -> None:
        self._survey, self._queries, self._gallery, self._relevant = survey, queries, gallery, relevant

    def __call__(self, aligner: Aligner) -> dict[str, Tensor]:
        """Per-query ``ndcg@10``, ``recall@1`` and ``mrr``."""
        mapping = aligner.align(self._survey).translate()
        relevant = replace(self._relevant, vectors=mapping(self._relevant.vectors))
        found = search(self._queries, map(mapping, self._gallery()), k=1, relevant=relevant)
        assert found.rank is not None  # asked for above
        metrics = rank_metrics(found.rank, relevant.query, len(self._queries))
        return {name: metrics[name] for name in ("ndcg@10", "recall@1", "mrr")}


def winner(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the highest mean score; the earlier, that is the simpler, on an exact tie."""
    return max(candidates, key=lambda c: float(c.score.nanmean()))


def best(aligners: Sequence[T], survey: Survey, watched: Callable[[Sequence[T]], Iterable[T]] = iter) -> T:
    """The one of ``aligners``, simplest first, with the best kept@3 out of fold; ``watched`` may show how far it is."""
    if len(aligners) == 1:
        return aligners[0]
    judge = NeighbourJudge(survey)
    scores = [float(Candidate(aligner, judge(aligner)).score.mean()) for aligner in watched(aligners)]
    return aligners[scores.index(max(scores))]


def shuffled(pairs: Pairs, seed: int) -> Pairs:
    """The same rows with the targets handed round: the null against which a map must stand out."""
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    return Pairs(pairs.x, pairs.y[order], pairs.keys, pairs.weights)
