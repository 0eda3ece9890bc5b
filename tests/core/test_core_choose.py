"""Choosing on held-out pairs: no row is ever judged by a map that saw it."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from core_examples import rotation, rows

from suture.aligners import (
    Affine,
    Aligner,
    Alignment,
    LinearAligner,
    Pairs,
    Procrustes,
    RefusedError,
    Ridge,
    RotationRidge,
    Survey,
)
from suture.aligners.choose import Candidate, LabelJudge, NeighbourJudge, best, cross_fit, shuffled, winner
from suture.aligners.fit import edge
from suture.aligners.measures.retrieval import Relevant
from suture.aligners.pairs import mix
from suture.aligners.survey import FOLDS


@dataclass(frozen=True)
class ByHeart(Aligner):
    """Reads rows, and knows every pair that it has seen: the worst over-fitter there can be."""

    name: ClassVar[str] = "by-heart"
    summary: ClassVar[str] = "least squares on the rows"
    paper: ClassVar[str] = "none"

    def align(self, survey: Survey) -> Alignment:
        s = survey.sample
        weight = torch.linalg.lstsq(s.x, s.y, driver="gelsd").solution
        return Alignment.one_sided(Affine(weight, torch.zeros(s.target_dim, dtype=weight.dtype)))


@dataclass(frozen=True)
class Fixed(LinearAligner):
    """A map that is known before any pair."""

    name: ClassVar[str] = "fixed"
    summary: ClassVar[str] = "turns by a rotation given"
    paper: ClassVar[str] = "none"
    seed: int = 0
    label: str = ""

    def solve(self, moments) -> Affine:
        return Affine(rotation(moments.source_dim, self.seed), torch.zeros(moments.source_dim, dtype=torch.float64))


def noise(n: int = 60, p: int = 40, groups: int | None = None) -> Survey:
    keys = None if groups is None else mix(torch.arange(n) % groups)
    return Survey.of(Pairs.of(rows(n, p), rows(n, p, seed=1), keys))


@pytest.mark.parametrize("aligner", [Ridge(alpha=1e-9), ByHeart()], ids=lambda a: a.name)
def test_cross_fit_never_uses_a_rows_own_fold(aligner):
    """Targets are noise in as many dims as rows: a map that has seen a row hits it, any other map misses."""
    survey = noise()
    mapped = cross_fit(aligner, survey)
    y = survey.sample.y
    hit = torch.cosine_similarity(mapped, y)
    assert abs(float(hit.mean())) < 4 / (60 * 40) ** 0.5 + 0.05
    seen = aligner.align(survey).translate()(survey.sample.x)
    assert float(torch.cosine_similarity(seen, y).mean()) > 0.7  # the plant works: the leak would show


@pytest.mark.parametrize("aligner", [Ridge(alpha=1e-9), ByHeart()], ids=lambda a: a.name)
def test_twins_are_held_out_together(aligner):
    """Every pair stands twice: held out alone, its twin would give it away."""
    x, y = rows(60, 40).repeat(2, 1), rows(60, 40, seed=1).repeat(2, 1)
    keys = mix(torch.arange(60)).repeat(2)

    def hits(survey: Survey) -> float:
        return float(torch.cosine_similarity(cross_fit(aligner, survey), survey.sample.y).mean())

    assert abs(hits(Survey.of(Pairs.of(x, y, keys)))) < 0.15
    assert hits(Survey.of(Pairs.of(x, y))) > 0.3  # with keys that hide the twins


@pytest.mark.parametrize("aligner", [Ridge(alpha=0.1), Procrustes(), ByHeart()], ids=lambda a: a.name)
def test_cross_fit_is_a_loop_over_folds(aligner):
    x = rows(200, 6)
    survey = Survey.of(Pairs.of(x, x @ rotation(6) + 0.1 * rows(200, 6, seed=2)))
    mapped = cross_fit(aligner, survey)
    for fold in range(5):
        rest = survey.sample[survey.fold != fold]
        f = aligner.align(Survey.of(rest)).translate()
        held = survey.fold == fold
        torch.testing.assert_close(mapped[held], f(survey.sample.x[held]), rtol=1e-8, atol=1e-8)


def test_a_method_that_reads_rows_is_held_out_on_all_pairs():
    """The sample is a part of the pairs only: the rest of them must be read for each fold, and nothing else."""
    n = 3000
    x = rows(n, 6)
    keys = mix(torch.arange(n) // 3)
    y = x @ rotation(6) + 0.1 * rows(n, 6, seed=2)
    survey = Survey.of(Pairs.of(x, y, keys), sample_rows=600)
    for parts in (None, 1, 2):
        for fold in range(FOLDS):
            held = set(survey.sample.keys[survey.fold == fold].tolist())
            rest = survey.rest(fold, parts)
            read = torch.cat([block.keys for block in rest.stream.blocks(100)])
            assert all(len(block.keys) <= 100 for block in rest.stream.blocks(100))
            assert rest.moments is survey.without_fold(fold, parts)  # what was solved from them is shared
            assert rest.moments.n == len(read)
            assert set(rest.sample.keys.tolist()) <= set(read.tolist())
            total = sum(part.n for part in survey.parts[:parts])
            assert not held & set(read.tolist())
            outside = total - survey.without_fold(fold, parts).n
            assert total - len(read) >= outside
            if parts is None:
                assert len(read) == n - 3 * len(held)
    everything = Survey.of(Pairs.of(x, y, keys), sample_rows=n)
    assert everything.rest(0).stream.rows == int((everything.fold != 0).sum())


def test_only_real_values_at_an_edge_of_the_grid_are_told():
    grid = [RotationRidge(strength=s) for s in (0.1, 1.0, 10.0)]
    assert edge(grid[2], [Procrustes(), *grid]) == {"strength": (10.0, 0.1, 10.0)}
    assert edge(grid[0], [Procrustes(), *grid]) == {"strength": (0.1, 0.1, 10.0)}
    assert edge(grid[1], [Procrustes(), *grid]) == {}
    assert edge(Procrustes(), [Procrustes(), *grid]) == {}


def test_a_part_of_the_pairs_is_a_part_of_the_pairs():
    n = 4096
    x = rows(n, 3)
    y = torch.where((torch.arange(n) < 256)[:, None], x, -x)  # the first block only is the identity
    survey = Survey.of(Pairs.of(x, y))
    near = torch.cosine_similarity(cross_fit(Ridge(alpha=1e-6), survey, 1), survey.sample.x)
    first = Survey.of(Pairs.of(x, y)).parts[0].n
    assert first == n / 4
    assert float(near.mean()) < 0  # a quarter of the blocks: three of four are turned round


def test_the_planted_method_wins():
    x = rows(400, 16)
    survey = Survey.of(Pairs.of(x, x @ rotation(16, 3) + 0.1 * rows(400, 16, seed=1)))
    tried = [Fixed(seed=s) for s in (1, 2, 3, 4)]
    assert best(tried, survey) == Fixed(seed=3)
    judge = NeighbourJudge(survey)
    rated = [Candidate(a, judge(a)) for a in tried]
    assert winner(rated).aligner == Fixed(seed=3)
    assert winner(rated).judged_by == "kept@3"
    assert float(judge(Fixed(seed=3))["recall@1"].mean()) > 0.95
    assert float(judge(Fixed(seed=1))["overlap@10"].mean()) < 0.1


def test_more_freedom_loses_where_it_only_fits_noise():
    x = rows(100, 16)
    survey = Survey.of(Pairs.of(x, x @ rotation(16, 3) + 0.3 * rows(100, 16, seed=1)))
    tried = [Ridge(alpha=1e-9), Procrustes()]
    assert best(tried, survey) == Procrustes()


def test_ties_go_to_the_earlier():
    x = rows(100, 5)
    survey = Survey.of(Pairs.of(x, x @ rotation(5)))
    first, second = Fixed(label="first"), Fixed(label="second")
    assert best([first, second], survey) is first
    assert best([second, first], survey) is second
    score = {"overlap@10": torch.tensor([0.5, torch.nan, 1.0])}
    assert winner([Candidate(first, score), Candidate(second, dict(score))]).aligner is first
    assert winner([Candidate(second, score), Candidate(first, dict(score))]).aligner is second


def test_labels_judge_the_map_that_would_be_served():
    x = rows(300, 8)
    survey = Survey.of(Pairs.of(x, x @ rotation(8, 3)))
    gallery, turn = rows(500, 8, seed=5), rotation(8, 3)
    right = torch.arange(40)
    judge = LabelJudge(
        survey, gallery[:40] @ turn, lambda: torch.split(gallery, 100), Relevant(right, right, gallery[:40])
    )
    perfect, other = judge(Fixed(seed=3)), judge(Fixed(seed=1))
    assert float(perfect["ndcg@10"].min()) == 1
    assert list(perfect) == ["ndcg@10", "recall@1", "mrr"]
    assert float(other["ndcg@10"].mean()) < 0.3


def test_too_few_pairs_are_refused_with_their_number():
    for survey, words in ((noise(12), "12 pairs in 12 groups"), (noise(60, groups=3), "60 pairs in 3 groups")):
        with pytest.raises(RefusedError, match=words):
            cross_fit(Procrustes(), survey)
        with pytest.raises(RefusedError, match=words):
            best([Procrustes(), Ridge()], survey)
        assert best([Procrustes()], survey) == Procrustes()


def test_shuffled_pairs_are_the_same_rows_otherwise_paired():
    pairs = Pairs.of(rows(50, 3), rows(50, 2, seed=1))
    mixed = shuffled(pairs, 0)
    assert torch.equal(mixed.x, pairs.x)
    assert sorted(mixed.y[:, 0].tolist()) == sorted(pairs.y[:, 0].tolist())
    assert not torch.equal(mixed.y, pairs.y)
    assert torch.equal(shuffled(pairs, 0).y, mixed.y)
    assert not torch.equal(shuffled(pairs, 1).y, mixed.y)
