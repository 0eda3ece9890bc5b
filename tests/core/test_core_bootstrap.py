"""The bootstrap promises 95 %: it is held to it."""

import numpy as np
import pytest
import torch
from core_examples import generator, rows
from scipy import stats

from suture.aligners import SutureError
from suture.aligners.measures.bootstrap import Bootstrap, resampled_sums


def width(interval) -> float:
    return interval.high - interval.low


def test_the_interval_of_a_mean_covers_the_truth_as_often_as_it_says():
    data = (torch.rand(300, 150, generator=generator(3)) < 0.3).double()  # such as recall@1 of 150 queries
    found = [Bootstrap({"a": row}, draws=400, seed=i).mean("a") for i, row in enumerate(data)]
    coverage = np.mean([i.low <= 0.3 <= i.high for i in found])
    assert 0.90 <= coverage <= 0.98
    narrow = [Bootstrap({"a": row}, draws=400, seed=i).mean("a", level=0.5) for i, row in enumerate(data)]
    assert 0.40 <= np.mean([i.low <= 0.3 <= i.high for i in narrow]) <= 0.60


def test_it_agrees_with_scipy():
    a = rows(200)
    mine = Bootstrap({"a": a}, draws=4000).mean("a")
    theirs = stats.bootstrap((a.numpy(),), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert mine.estimate == pytest.approx(float(a.mean()))
    assert mine.low == pytest.approx(theirs.low, abs=0.01)
    assert mine.high == pytest.approx(theirs.high, abs=0.01)


def test_differences_of_what_was_measured_on_the_same_queries_are_paired():
    a = rows(300)
    b = a + 0.1 * rows(300, seed=1)
    paired = Bootstrap({"a": a, "b": b}).difference("a", "b")
    unpaired = Bootstrap({"a": a, "b": b[torch.randperm(300, generator=generator())]}).difference("a", "b")
    assert paired.estimate == pytest.approx(unpaired.estimate)
    assert width(paired) < 0.2 * width(unpaired)
    nothing = Bootstrap({"a": a, "b": a.clone()}).difference("a", "b")
    assert (nothing.estimate, nothing.low, nothing.high) == (0, 0, 0)


def test_ratio_is_draw_by_draw():
    a = rows(300).abs() + 1
    boot = Bootstrap({"a": a, "b": 2 * a})
    assert boot.ratio("b", "a").as_json() == pytest.approx({"estimate": 2, "low": 2, "high": 2})


def test_groups_widen_the_interval_of_repeated_queries():
    a = rows(50)
    groups = torch.arange(50).repeat(8) * 1000 - 7
    repeated = {"a": a.repeat(8)}
    honest, naive = Bootstrap(repeated, groups).mean("a"), Bootstrap(repeated).mean("a")
    alone = Bootstrap({"a": a}).mean("a")
    assert width(honest) == pytest.approx(width(alone), rel=0.1)
    assert width(naive) == pytest.approx(width(alone) / 8**0.5, rel=0.1)
    assert honest.estimate == pytest.approx(naive.estimate)


def test_groups_of_one_change_nothing_but_the_order():
    a = rows(60)
    assert Bootstrap({"a": a}, torch.arange(60)).mean("a") == Bootstrap({"a": a}).mean("a")


def test_queries_without_a_value_are_left_out():
    a = rows(100)
    holes = a.clone()
    holes[::2] = torch.nan
    boot = Bootstrap({"holes": holes, "full": a})
    assert boot.mean("holes").estimate == pytest.approx(float(a[1::2].mean()))
    assert width(boot.mean("holes")) == pytest.approx(width(Bootstrap({"a": a[1::2]}).mean("a")), rel=0.2)
    rare = torch.full((100,), torch.nan, dtype=torch.float64)
    rare[3] = 5.0
    one = Bootstrap({"rare": rare}).mean("rare")
    assert (one.estimate, one.low, one.high) == (5, 5, 5)  # a third of the draws have no value at all


def test_a_seed_decides_and_nothing_else():
    columns = {"a": rows(50), "b": rows(50, seed=1)}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = Bootstrap(columns, seed=4).mean("a")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert Bootstrap(columns, seed=4).mean("a") == one
    assert Bootstrap(columns, seed=5).mean("a") != one
    assert Bootstrap({"b": columns["b"], "a": columns["a"]}, seed=4).mean("a") == one


def test_every_draw_has_as_many_rows_as_there_are():
    sums = resampled_sums(torch.ones(37, 1, dtype=torch.float64), 50, 0)
    assert torch.equal(sums, torch.full((50, 1), 37.0, dtype=torch.float64))


def test_columns_of_different_lengths_are_refused():
    for columns in ({}, {"a": torch.ones(0)}, {"a": torch.ones(2), "b": torch.ones(3)}):
        with pytest.raises(SutureError, match="one non-zero length"):
            Bootstrap(columns)
    with pytest.raises(SutureError, match="one group per query, got 3 for 2"):
        Bootstrap({"a": torch.ones(2)}, torch.arange(3))
