"""Similarity distillation: what it promises beyond the contract."""

import pytest
import torch
from nonlinear_worlds import normal, planted
from torch.nn.functional import normalize

from suture.aligners import MLP, Affine, Distill, DistillMLP, Moments, Pairs, Ridge, RotationRidge, Survey
from suture.aligners.nonlinear.distill import distil
from suture.aligners.nonlinear.kinds import Residual
from suture.aligners.nonlinear.similarity import Frame, divergence
from suture.aligners.nonlinear.training import train


def unit_world(n: int = 600, p: int = 16, q: int = 20, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit rows; the source shows some latent directions much less than the target does."""
    z = normal(n, 10, seed=seed)
    stretch = torch.diag(torch.linspace(0.2, 2, 10, dtype=torch.float64))
    x = z @ stretch @ normal(10, p, seed=1) + 0.3 * normal(n, p, seed=seed + 2)
    y = z @ normal(10, q, seed=3) + 0.3 * normal(n, q, seed=seed + 4) + 2 * normal(q, seed=5)
    return normalize(x, dim=1), normalize(y, dim=1)


def test_divergence_is_a_divergence() -> None:
    y, f = normal(40, 8, seed=1), normal(40, 8, seed=2)
    assert float(divergence(y, y, 0.2)) == pytest.approx(0, abs=1e-12)
    assert float(divergence(3 * y, 5 * y, 0.2)) == pytest.approx(0, abs=1e-12)
    assert float(divergence(f, y, 0.2)) > 0
    # One query, by hand: the teacher from y alone, the student from the mapped gallery.
    yn, fn = normalize(y, dim=1), normalize(f, dim=1)
    p, q = (yn[0] @ yn.T / 0.2).softmax(0), (yn[0] @ fn.T / 0.2).softmax(0)
    only_first = torch.zeros(40, dtype=torch.float64)
    only_first[0] = 3
    assert float(divergence(f, y, 0.2, only_first)) == pytest.approx(float((p * (p / q).log()).sum()))


def test_limits_of_the_temperature() -> None:
    """Hot: half the variance of what cosines differ by. Cold: how far the mate is from being the nearest."""
    y, f = normal(40, 8, seed=1), normal(40, 8, seed=2)
    own, mapped = normalize(y, dim=1) @ normalize(y, dim=1).T, normalize(y, dim=1) @ normalize(f, dim=1).T
    hot = float((own - mapped).var(1, correction=0).mean()) / 2
    assert 1e6 * float(divergence(f, y, 1e3)) == pytest.approx(hot, rel=1e-2)
    cold = float((mapped.amax(1) - mapped.diagonal()).mean())
    assert 1e-4 * float(divergence(f, y, 1e-4)) == pytest.approx(cold, rel=1e-2)


def test_without_a_step_each_method_is_its_start() -> None:
    x, y = unit_world(200)
    moments = Moments.of(x, y)
    starts = [
        (Distill(steps=0), RotationRidge(strength=10.0, scale=True).solve(moments)),
        (Distill(steps=0, strength=0.5), RotationRidge(strength=0.5, scale=True).solve(moments)),
        (MLP(steps=0), Ridge().solve(moments)),
        (DistillMLP(steps=0), Distill().fit(x, y).translate()),
    ]
    for aligner, start in starts:
        found = aligner.fit(x, y)
        assert found.provenance["training"]["steps"] == 0
        torch.testing.assert_close(found.translate()(x), start(x), rtol=0, atol=1e-9)


def test_the_hidden_layer_is_fed_centred_rows_of_variance_one() -> None:
    """Whatever mean and unit the dumps have: a network whose units all start on one side of 0 is a linear map."""
    x, y = unit_world(400)
    rows = 50 * x + 7
    network = MLP(steps=0, hidden=200).fit(rows, y).translate()
    assert isinstance(network, Residual)
    train = distil(Distill(steps=0), Survey.of(Pairs.of(rows, y))).rows.x
    before = train @ network.inner + network.inner_bias
    assert float(before.mean(0).abs().max()) < 0.25  # of rows held out, too
    assert float(before.square().mean()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_never_worse_than_its_start_on_what_it_held_out_and_better_on_new_rows(seed: int) -> None:
    x, y = unit_world(seed=seed)
    alignment = Distill(seed=seed).fit(x[:400], y[:400])
    facts = alignment.provenance["training"]
    assert facts["objective"]["best"] <= facts["objective"]["start"]
    assert facts["best_step"] > 0
    start = Distill().start(Moments.of(x[:400], y[:400]))
    new = divergence(alignment.translate()(x[400:]), y[400:], 0.2)
    assert float(new) < 0.95 * float(divergence(start(x[400:]), y[400:], 0.2))


def test_a_start_that_cannot_be_improved_is_kept() -> None:
    x, y = planted(200, 8, 8, noise=0.0, latent=8)
    y = x @ torch.linalg.qr(normal(8, 8, seed=3))[0]
    moments = Moments.of(x, y)
    alignment = Distill(strength=1e6).fit(x, y)
    facts = alignment.provenance["training"]
    assert facts["objective"]["start"] == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(alignment.translate()(x), Distill(strength=1e6).start(moments)(x), rtol=0, atol=1e-3)


def test_the_held_out_pairs_are_unseen_by_start_and_training() -> None:
    """Their targets spoiled, what the start is made of stays the same, and only they look worse."""
    x, y = unit_world()
    pairs = Pairs.of(x, y)
    held = distil(Distill(steps=20), Survey.of(pairs)).held.keys
    spoiled = y.clone()
    spoiled[torch.isin(pairs.keys, held)] = 0.7
    first, second = (distil(Distill(steps=20, patience=1000), Survey.of(Pairs.of(x, t))) for t in (y, spoiled))
    torch.testing.assert_close(first.frame.moments.block("xy"), second.frame.moments.block("xy"), rtol=0, atol=1e-9)
    assert second.facts["objective"]["start"] > 1.2 * first.facts["objective"]["start"]


def test_a_stronger_pull_stays_nearer_to_the_start() -> None:
    x, y = unit_world()
    moved = [Distill(pull=k, steps=60, patience=100).fit(x, y).provenance["training"]["moved"] for k in (0.0, 3e3, 3e5)]
    assert moved[0] > 1.3 * moved[1] > 2 * moved[2]


def test_the_units_of_the_dumps_do_not_matter() -> None:
    x, y = unit_world()
    plain, scaled = Distill().fit(x, y).translate(), Distill().fit(1000 * x + 5, 0.01 * y).translate()
    torch.testing.assert_close(100 * scaled(1000 * x + 5), plain(x), rtol=0, atol=1e-5)


def test_the_frame_and_back() -> None:
    x, y = planted(100, 6, 9)
    frame = Frame(Moments.of(3 * x, 7 * y))
    ridge = Ridge().solve(frame.moments)
    mapped = frame.scaled(3 * x) @ frame.weight(ridge) + frame.centre(x)
    torch.testing.assert_close(mapped * frame.unit, ridge(3 * x))
    torch.testing.assert_close(frame.affine(frame.weight(ridge))(x), ridge(x))


def test_progress_is_told() -> None:
    x, y = unit_world(200)
    seen: list[tuple[int, int]] = []
    Distill(steps=30, patience=100).align(Survey.of(Pairs.of(x, y)), progress=lambda *step: seen.append(step))
    assert seen == [(0, 30), (10, 30), (20, 30), (30, 30)]


def test_training_stops_early_and_restores_the_best() -> None:
    """The held-out optimum lies on the way to the training optimum: it is passed, noticed and returned to."""
    weight = torch.zeros(1, dtype=torch.float64)
    facts = train(
        [weight],
        lambda some: (weight - 1).square().sum(),
        lambda: (weight - 0.2).square().sum(),
        10,
        steps=1000,
        batch=5,
        rate=0.01,
        patience=3,
        seed=0,
    )
    assert facts["stopped"] == "early"
    assert facts["steps"] == facts["best_step"] + 30
    assert abs(float(weight) - 0.2) < 0.06
    assert facts["objective"]["best"] == pytest.approx(float((weight - 0.2).square()))
    assert not weight.requires_grad


def test_it_folds_and_the_network_on_top_does_not() -> None:
    x, y = unit_world(200)
    distilled = Distill(steps=20).fit(x, y).translate()
    assert isinstance(distilled, Affine)
    assert isinstance(distilled >> distilled.pinv(), Affine)
    assert isinstance(distilled.module(), torch.nn.Linear)
    network = DistillMLP(steps=20, hidden=8).fit(x, y)
    assert not isinstance(network.translate(), Affine)
    assert network.provenance["affine_training"]["pairs"] == network.provenance["training"]["pairs"]


def test_the_network_goes_on_from_the_distilled_map() -> None:
    x, y = unit_world(400)
    network = DistillMLP(rate=1e-12, steps=10, hidden=8).fit(x, y).translate()
    torch.testing.assert_close(network(x), Distill().fit(x, y).translate()(x), rtol=0, atol=1e-7)
