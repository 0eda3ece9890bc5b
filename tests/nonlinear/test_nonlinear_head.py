"""A map trained for a head: the optimum of its objective, and nothing changed that the head does not see."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from nonlinear_worlds import planted
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import normalize

from suture.aligners import Affine, HeadDistill, Pairs, RefusedError, RotationRidge, Survey, UsageError
from suture.aligners.choose import cross_fit
from suture.stitching.models import Head, HeadJudge

P, Q, C = 6, 5, 3


def head(classes: int = C, dim: int = Q, *, size: float = 1.0) -> Head:
    g = torch.Generator().manual_seed(1)
    return Head(size * torch.randn(classes, dim, generator=g), torch.randn(classes, generator=g))


def world(n: int = 80, p: int = P, q: int = Q) -> tuple[Tensor, Tensor]:
    x, y = planted(n, p, q)
    return torch.as_tensor(x).double(), torch.as_tensor(y).double()


def mapped(aligner: HeadDistill, x: Tensor, y: Tensor, **given: Any) -> Affine:
    mapping = aligner.fit(x, y, **given).translate()
    assert isinstance(mapping, Affine)
    return mapping


def gap(knows: Head, y: Tensor, came: Tensor) -> float:
    own, other = knows.log_probabilities(y), knows.log_probabilities(came)
    return float((own.exp() * (own - other)).sum(1).mean())


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_it_is_the_least_of_its_objective(temperature: float) -> None:
    x, y = world()
    aligner = HeadDistill(head(), temperature=temperature, strength=2.0, pull=0.5, steps=200)
    start = RotationRidge(strength=2.0, scale=True).fit(x, y).translate()
    assert isinstance(start, Affine)
    weight, bias = (t.numpy().astype(np.float64) for t in (head().weight, head().bias))
    pull = 0.5 * float(x.var(0).mean() / y.var(0).mean())

    def softmax(scores: Any) -> Any:
        shifted = np.exp(scores - scores.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)

    teacher = softmax((y.numpy() @ weight.T + bias) / temperature)

    def objective(numbers: Any) -> Any:
        w, b = numbers[: P * Q].reshape(P, Q), numbers[P * Q :]
        student = softmax(((x.numpy() @ w + b) @ weight.T + bias) / temperature)
        away = w - start.weight.numpy()
        value = (teacher * np.log(teacher / student)).sum(1).mean() + pull * (away**2).sum()
        slope = (student - teacher) @ weight / (temperature * len(x))
        return value, np.concatenate([(x.numpy().T @ slope + 2 * pull * away).ravel(), slope.sum(0)])

    came = mapped(aligner, x, y)
    best = minimize(
        objective,
        np.concatenate([start.weight.numpy().ravel(), start.bias.numpy()]),
        jac=True,
        options={"gtol": 1e-9, "maxiter": 2000},
    )
    value = objective(np.concatenate([came.weight.numpy().ravel(), came.bias.numpy()]))[0]
    assert value == pytest.approx(best.fun, rel=1e-6)
    np.testing.assert_allclose(came.weight, best.x[: P * Q].reshape(P, Q), atol=1e-3)
    assert best.fun < 0.95 * objective(np.concatenate([start.weight.numpy().ravel(), start.bias.numpy()]))[0]


def test_what_the_head_does_not_see_stays_as_it_was() -> None:
    x, y = world()
    start = RotationRidge(strength=1.0, scale=True).fit(x, y).translate()
    assert isinstance(start, Affine)
    away = mapped(HeadDistill(head(), pull=0.1), x, y).weight - start.weight
    contrasts = (head().weight - head().weight.mean(0)).double()
    unseen = torch.eye(Q, dtype=torch.float64) - torch.linalg.pinv(contrasts) @ contrasts
    assert float(away.abs().max()) > 1e-2
    assert float((away @ unseen).abs().max()) < 1e-7


def test_a_strong_pull_leaves_the_weights_where_they_start() -> None:
    x, y = world()
    start = RotationRidge(strength=1.0, scale=True).fit(x, y).translate()
    assert isinstance(start, Affine)
    torch.testing.assert_close(mapped(HeadDistill(head(), pull=1e9), x, y).weight, start.weight, rtol=0, atol=1e-6)


def test_units_do_not_matter() -> None:
    x, y = world()
    aligner = HeadDistill(head(), pull=0.3)
    one, other = mapped(aligner, x, y), mapped(aligner, 1000 * x + 5, y)
    torch.testing.assert_close(other(1000 * x + 5), one(x), rtol=1e-4, atol=1e-4)


def test_one_row_of_weights_is_two_classes() -> None:
    x, y = world()
    one = head(1)
    two = Head(torch.cat([0 * one.weight, one.weight]), torch.cat([0 * one.bias, one.bias]))
    maps = [mapped(HeadDistill(h, pull=0.3), x, y) for h in (one, two)]
    torch.testing.assert_close(maps[0].weight, maps[1].weight)


def test_a_pair_of_weight_two_is_that_pair_twice() -> None:
    x, y = world()
    weights = torch.ones(len(x))
    weights[:20] = 2
    aligner = HeadDistill(head(), pull=0.3, steps=200)
    once = mapped(aligner, x, y, weights=weights)
    twice = mapped(aligner, torch.cat([x, x[:20]]), torch.cat([y, y[:20]]))
    torch.testing.assert_close(once.weight, twice.weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("unit", [False, True])
def test_the_head_takes_its_rows_better_than_those_of_the_start(unit: bool) -> None:
    x, y = world(600, 12, 10)
    y = y + 0.3 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    knows = head(4, 10, size=3.0)

    def served(rows: Tensor) -> Tensor:
        return normalize(rows, dim=1) if unit else rows

    y = served(y)
    start = RotationRidge(strength=1.0, scale=True).fit(x[:200], y[:200]).translate()
    alignment = HeadDistill(knows).fit(x[:200], y[:200])
    assert alignment.provenance["params"]["pull"] in (10, 3, 1, 0.3, 0.1, 0.03)
    assert (
        alignment.provenance["training"]["objective"]["best"] < alignment.provenance["training"]["objective"]["start"]
    )
    came = alignment.translate()
    assert gap(knows, y[200:], served(came(x[200:]))) < 0.95 * gap(knows, y[200:], served(start(x[200:])))


def test_the_pull_is_the_one_that_the_head_takes_best() -> None:
    x, y = world(150)
    survey = Survey.of(Pairs.of(x, y))
    judge = HeadJudge(survey, head())
    settled = HeadDistill(head()).settle(survey)
    scores = {a.pull: float(judge(a)["head_match"].mean()) for a in HeadDistill(head()).variants(survey)}
    assert settled.pull == max(scores, key=lambda pull: scores[pull])
    assert cross_fit(settled, survey).shape == y.shape


def test_refusals() -> None:
    x, y = world()
    with pytest.raises(UsageError, match=r"HeadDistill\(head\)"):
        HeadDistill().fit(x, y)
    with pytest.raises(RefusedError, match="takes 9 dims, the target has 5"):
        HeadDistill(head(C, 9)).fit(x, y)
    with pytest.raises(RefusedError, match="20 pairs"):
        HeadDistill(head()).fit(x[:10], y[:10])
    with pytest.raises(UsageError, match="pull"):
        replace(HeadDistill(head()), pull=0.0)
