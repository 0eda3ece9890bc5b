"""What the methods that read rows promise, asked of all of them: trained, bent and relative ones."""

import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from nonlinear_worlds import planted

from suture.aligners import (
    ALIGNERS,
    MLP,
    Affine,
    Aligner,
    Distill,
    DistillMLP,
    InverseRelative,
    LandmarkKernel,
    Local,
    Pairs,
    ProductOfInvariances,
    RefusedError,
    RelativeRepresentation,
    Survey,
    UsageError,
    load,
    save_alignment,
)
from suture.aligners.fit import candidates, fit
from suture.aligners.nonlinear.rows import hold_out, training_rows

OURS = {
    *("distill", "distill-mlp", "mlp", "landmark", "local"),
    *("relative", "relative-product", "inverse-relative"),
}
QUICK = {"steps": 40, "batch": 64}
ALL: list[Aligner] = [
    Distill(**QUICK),
    Distill(**QUICK, temperature=0.1, pull=0.0, strength=1.0),
    DistillMLP(**QUICK, hidden=16),
    MLP(**QUICK, hidden=16),
    LandmarkKernel(),
    LandmarkKernel(base="procrustes", landmarks=20, width=2.0, alpha=0.1),
    Local(),
    Local(cells=3, scale=False, blend=0.0),
    RelativeRepresentation(),
    RelativeRepresentation(anchors=20, similarity="whitened", choice="fps"),
    RelativeRepresentation(anchors=20, similarity="geodesic", choice="kmeans"),
    ProductOfInvariances(anchors=15, weighting="cka"),
    ProductOfInvariances(anchors=15, join="average", similarities="cosine,angular"),
    InverseRelative(),
    InverseRelative(anchors=8, prune=0.2, starts=2),
]


def identify(aligner: Aligner) -> str:
    default = type(aligner)().parameters()
    changed = {k: v for k, v in aligner.parameters().items() if v != default[k]}
    return " ".join([aligner.name, *(f"{k}={v}" for k, v in changed.items())])


every = pytest.mark.parametrize("aligner", ALL, ids=identify)


def test_the_registry_holds_what_it_must() -> None:
    assert set(ALIGNERS) >= OURS
    assert {type(a) for a in ALL} == {ALIGNERS[name] for name in OURS}
    assert all(ALIGNERS[name].name == name and ALIGNERS[name].summary and ALIGNERS[name].paper for name in OURS)
    assert {name for name in OURS if ALIGNERS[name].affine} == {"distill", "inverse-relative"}


@every
@pytest.mark.parametrize(("p", "q"), [(9, 14), (12, 12), (14, 9)])
def test_fit_gives_a_finite_map_that_is_affine_where_it_says_so(aligner: Aligner, p: int, q: int) -> None:
    x, y = planted(200, p, q)
    alignment = aligner.fit(x, y)
    mapping = alignment.translate()
    assert (mapping.source_dim, mapping.target_dim) == (p, q)
    assert isinstance(mapping, Affine) == aligner.affine
    mapped = mapping(x)
    assert bool(torch.isfinite(mapped).all())
    # Inverse projection is made for spaces that are rotations of each other, which these are not.
    least = 0.3 if isinstance(aligner, InverseRelative) else 0.6
    assert float(torch.cosine_similarity(mapped - y.mean(0), y - y.mean(0)).mean()) > least
    if aligner.affine:
        torch.testing.assert_close(mapped.mean(0), y.mean(0), rtol=0, atol=1e-9)
    json.dumps(dict(alignment.provenance), allow_nan=False)


@every
def test_the_same_rows_give_the_same_bits_whatever_the_global_generator(aligner: Aligner) -> None:
    x, y = planted(200, 12, 10)
    first = aligner.fit(x, y)
    state = torch.get_rng_state()
    torch.manual_seed(12345)
    np.random.seed(3)
    before = torch.get_rng_state()
    second = aligner.fit(x.clone(), y.clone())
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(state)
    for side in first.sides:
        for name, numbers in first.maps[side].tensors().items():
            assert torch.equal(numbers, second.maps[side].tensors()[name])


@every
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_precision_of_the_rows(aligner: Aligner, dtype: type) -> None:
    x, y = planted(200, 12, 10)
    x, y = x.numpy().astype(dtype), y.numpy().astype(dtype)
    alignment = aligner.fit(x, y)
    expected = torch.float64 if dtype is np.float64 else torch.float32
    for mapping in (*alignment.maps.values(), *alignment.back.values()):
        assert all(t.dtype == expected for t in mapping.tensors().values())
    mapped = alignment.translate()(x)
    assert mapped.dtype == dtype
    assert np.isfinite(mapped).all()


@every
def test_parameters_survive_json_and_the_map_the_file(aligner: Aligner, tmp_path: object) -> None:
    assert type(aligner)(**json.loads(json.dumps(aligner.parameters()))) == aligner
    x, y = planted(200, 12, 10)
    alignment = aligner.fit(x, y)
    path = f"{tmp_path}/map.safetensors"
    save_alignment(alignment, path)
    again = load(path)
    assert torch.equal(again.translate()(x), alignment.translate()(x))
    for side, rows in (("source", x), ("target", y)):
        assert torch.equal(again.maps[side](rows), alignment.maps[side](rows))
    type(aligner)(**again.provenance["params"])
    with pytest.raises(FrozenInstanceError):
        aligner.name = "other"  # type: ignore[misc]


@every
def test_a_module_maps_as_the_map(aligner: Aligner) -> None:
    x, y = planted(200, 12, 10)
    mapping = aligner.fit(x.float(), y.float()).maps["source"]
    torch.testing.assert_close(mapping.module()(x.float()), mapping(x.float()), rtol=1e-4, atol=1e-4)


@every
def test_rows_that_are_all_the_same_are_refused(aligner: Aligner) -> None:
    with pytest.raises(RefusedError, match="no variance"):
        type(aligner)(**{**aligner.parameters(), **({"cells": 2} if isinstance(aligner, Local) else {})}).align(
            Survey.of(Pairs.of(torch.ones(40, 6, dtype=torch.float64), planted(40, 6, 6)[1]))
        )


@every
def test_cross_fitting_and_the_whole_table(aligner: Aligner) -> None:
    x, y = planted(150, 12, 10)
    few = replace(aligner, steps=10) if isinstance(aligner, Distill | MLP) else aligner
    alignment = fit(Survey.of(Pairs.of(x, y)), [few])
    table = {s["name"]: s["metrics"] for s in alignment.provenance["held_out"]["strategies"]}
    assert table["map"]["overlap@10"]["low"] > table["shuffled"]["overlap@10"]["high"]


@pytest.mark.parametrize("name", ["distill-mlp", "mlp", "landmark", "local"])
def test_weights_count_rows(name: str) -> None:
    """Pairs that are noise and weigh nothing do no harm."""
    x, y = planted(300, 8, 8)
    good = torch.arange(300) % 3 > 0
    y[~good] = planted(100, 8, 8, seed=77)[1] * 3
    weights = good.double()
    aligner = ALIGNERS[name](**({"cells": 2} if name == "local" else {"base": "ridge"} if name == "landmark" else {}))
    mapped = aligner.fit(x, y, weights=weights).translate()(x[good])
    spoiled = aligner.fit(x, y).translate()(x[good])
    y = y[good] - y[good].mean(0)
    cosine = [float(torch.cosine_similarity(m - m.mean(0), y).mean()) for m in (mapped, spoiled)]
    assert cosine[0] > cosine[1] + 0.02


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("distill", {"temperature": 0.0}),
        ("distill", {"pull": -1.0}),
        ("distill", {"strength": float("inf")}),
        ("distill", {"steps": -1}),
        ("distill-mlp", {"temperature": -0.1}),
        ("distill-mlp", {"hidden": 2.5}),
        ("mlp", {"hidden": 0}),
        ("mlp", {"decay": -1.0}),
        ("mlp", {"rate": 0.0}),
        ("landmark", {"base": "cca"}),
        ("landmark", {"landmarks": 0}),
        ("landmark", {"width": 0.0}),
        ("landmark", {"alpha": -1.0}),
        ("local", {"cells": 0}),
        ("local", {"softness": 0.0}),
        ("local", {"blend": -1.0}),
        ("relative", {"similarity": "dot"}),
        ("relative", {"choice": "best"}),
        ("relative", {"quantised": "bits"}),
        ("relative", {"anchors": 1}),
        ("relative", {"shrinkage": 2.0}),
        ("relative", {"step": 0.0}),
        ("relative-product", {"similarities": "cosine,dot"}),
        ("relative-product", {"similarities": "cosine,cosine"}),
        ("relative-product", {"join": "sum"}),
        ("relative-product", {"weighting": "learned"}),
        ("inverse-relative", {"eps": -1.0}),
        ("inverse-relative", {"prune": 2.0}),
        ("inverse-relative", {"starts": 0}),
    ],
)
def test_bad_parameters_are_refused(name: str, params: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=name):
        ALIGNERS[name](**params)


@pytest.mark.parametrize("name", ["distill", "mlp", "distill-mlp"])
def test_too_few_pairs_or_groups_to_hold_out_are_refused(name: str) -> None:
    x, y = planted(100, 6, 6)
    with pytest.raises(RefusedError, match="at least 20 pairs"):
        ALIGNERS[name]().fit(x[:19], y[:19])
    with pytest.raises(RefusedError, match="several groups"):
        ALIGNERS[name]().fit(x, y, keys=torch.zeros(100, dtype=torch.int64))


@pytest.mark.parametrize("aligner", [LandmarkKernel(base="ridge", landmarks=101), Local(cells=51)], ids=identify)
def test_more_places_than_rows_are_refused(aligner: Aligner) -> None:
    with pytest.raises(UsageError, match="100"):
        aligner.fit(*planted(100, 6, 6))


def test_training_rows_are_bounded_and_do_not_depend_on_order() -> None:
    x, y = planted(900, 3, 3)
    keys = torch.arange(900) // 3
    order = torch.randperm(900, generator=torch.Generator().manual_seed(0))
    drawn = [training_rows(Survey.of(Pairs.of(x[o], y[o], keys[o])), 300) for o in (torch.arange(900), order)]
    assert 200 < len(drawn[0]) <= 300
    assert torch.equal(drawn[0].keys, drawn[1].keys)
    train, held = hold_out("test", drawn[0])
    assert not set(train.keys.tolist()) & set(held.keys.tolist())
    assert len(train) + len(held) == len(drawn[0])
    assert 0.05 < len(held) / len(drawn[0]) < 0.2
    whole = training_rows(Survey.of(Pairs.of(x, y)))
    assert sorted(whole.keys.tolist()) == sorted(Pairs.of(x, y).keys.tolist())


def test_what_auto_compares() -> None:
    assert "distill" not in [a.name for a in candidates(pairs=1999)]
    assert "distill" in [a.name for a in candidates(pairs=2000)]
    assert all(a.affine for a in candidates(pairs=2000))
    assert {"mlp", "landmark", "local", "distill-mlp"} <= {a.name for a in candidates("any")}
