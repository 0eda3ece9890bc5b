"""What every linear method promises, asked of all of them: the registry's defaults and the variants of each."""

import json
from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from suture.aligners import (
    ALIGNERS,
    CCA,
    PLS,
    Affine,
    Blend,
    IdentityRidge,
    LeastSquares,
    LinearAligner,
    MeanShift,
    Moments,
    Pairs,
    Procrustes,
    ProcrustesDiagonal,
    ReducedRank,
    RefusedError,
    Ridge,
    RotationRidge,
    Subspace,
    Survey,
    SutureError,
    UnitMatching,
    UsageError,
    Whitening,
    load,
    save_alignment,
)

LINEAR = {name: kind for name, kind in ALIGNERS.items() if issubclass(kind, LinearAligner)}
EXPECTED = {
    *("mean-shift", "procrustes", "procrustes-diagonal", "least-squares", "ridge", "identity-ridge", "rotation-ridge"),
    *("blend", "reduced-rank", "whitening", "cca", "pls", "subspace"),
}
DEFAULTS: list[LinearAligner] = [kind() for kind in LINEAR.values()]
VARIANTS: list[LinearAligner] = [
    Procrustes(scale=True),
    Procrustes(polish=True),
    Procrustes(polish=True, scale=True),
    Procrustes(standardise=True),
    Procrustes(robust="huber"),
    LeastSquares(standardise=True, orthogonalise=True),
    Ridge(alpha=0.1),
    Ridge(criterion="loo"),
    Ridge(per_target=True),
    IdentityRidge(strength=0.3),
    RotationRidge(strength=0.3),
    RotationRidge(strength=0.3, scale=True),
    Blend(share=0.2),
    ReducedRank(rank=6, alpha=0.01),
    Whitening(shrinkage=0.05),
    Whitening(shrinkage=0.05, rotate=False),
    CCA(eps=0.01),
    CCA(eps=0.01, rank=6, power=2.0, variance=0.99),
    PLS(rank=5),
    PLS(rank=5, mode="svd"),
    Subspace(rank=6, kind="cca"),
    Subspace(rank=6, kind="pca", inner="procrustes"),
    Subspace(rank=6, kind="pls"),
]
ALL = DEFAULTS + VARIANTS
EQUAL_DIMS = (MeanShift, IdentityRidge)
MAPS_TO_THE_MEAN = (MeanShift, Procrustes, ProcrustesDiagonal, LeastSquares)


def needs_equal_dims(aligner: LinearAligner) -> bool:
    return isinstance(aligner, EQUAL_DIMS) or (isinstance(aligner, Whitening) and not aligner.rotate)


def planted(n: int, p: int, q: int, *, noise: float = 0.1, latent: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two noisy linear views of the same latent rows, each with a mean of its own, in float64."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    z = normal(n, latent)
    x = z @ normal(latent, p) + noise * normal(n, p) + normal(p)
    y = z @ normal(latent, q) + noise * normal(n, q) + normal(q)
    return x, y


def rotation(dim: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dim, dim, generator=g, dtype=torch.float64))[0]


def identify(aligner: LinearAligner) -> str:
    default = type(aligner)().parameters()
    changed = {k: v for k, v in aligner.parameters().items() if v != default[k]}
    return " ".join([aligner.name, *(f"{k}={v}" for k, v in changed.items())])


every = pytest.mark.parametrize("aligner", ALL, ids=identify)


def test_the_registry_holds_what_it_must() -> None:
    assert set(LINEAR) >= EXPECTED
    assert {type(aligner) for aligner in ALL} >= set(LINEAR.values())
    assert all(kind.name == name for name, kind in ALIGNERS.items())
    assert all(kind.summary and kind.paper for kind in LINEAR.values())


@every
@pytest.mark.parametrize(("p", "q"), [(9, 14), (12, 12), (14, 9)])
def test_fit_gives_a_finite_affine_map(aligner: LinearAligner, p: int, q: int) -> None:
    x, y = planted(120, p, q)
    if p != q and needs_equal_dims(aligner):
        with pytest.raises(UsageError, match="equal dims"):
            aligner.fit(x, y)
        return
    mapping = aligner.fit(x, y).translate()
    assert isinstance(mapping, Affine)
    assert (mapping.source_dim, mapping.target_dim) == (p, q)
    assert all(bool(torch.isfinite(numbers).all()) for numbers in mapping.tensors().values())
    # Every method brings the means together; a robust one the means of the rows that it trusts.
    if not (isinstance(aligner, Procrustes) and aligner.robust != "none"):
        torch.testing.assert_close(mapping(x).mean(0), y.mean(0), rtol=0, atol=1e-9)


@every
def test_few_pairs_do_not_make_a_method_collapse(aligner: LinearAligner) -> None:
    x, y = planted(90, 48, 48, noise=0.6)
    train, test = slice(0, 60), slice(60, 90)

    def held_out_cosine(method: LinearAligner) -> float:
        mapping = method.fit(x[train], y[train]).translate()
        mean = y[train].mean(0)
        return float(torch.cosine_similarity(mapping(x[test]) - mean, y[test] - mean).mean())

    score, floor = held_out_cosine(aligner), held_out_cosine(Procrustes())
    assert floor > 0.5
    if isinstance(aligner, MeanShift) or (isinstance(aligner, Whitening) and not aligner.rotate):
        assert abs(score) < 0.3  # they turn nothing, and these spaces are turned
    elif isinstance(aligner, LeastSquares | UnitMatching):
        assert 0.5 * floor < score  # it has no defence, which is why there is ridge; or one unit only
    else:
        assert score > 0.9 * floor


@every
def test_fewer_pairs_than_dims(aligner: LinearAligner) -> None:
    x, y = planted(24, 30, 30, latent=4)
    mapping = aligner.fit(x, y).translate()
    assert bool(torch.isfinite(mapping(x)).all())


@every
@pytest.mark.parametrize("spoil", ["constant", "rank", "duplicate"])
def test_degenerate_rows(aligner: LinearAligner, spoil: str) -> None:
    x, y = planted(80, 12, 12)
    if spoil == "constant":
        x[:, 3], y[:, 5] = 7.0, -2.0
    elif spoil == "rank":
        x[:, 6:], y[:, 6:] = x[:, :6] @ rotation(6, 1), y[:, :6] @ rotation(6, 2)
    else:
        x[40:], y[40:] = x[:40], y[:40]
    mapped = aligner.fit(x, y).translate()(x)
    assert bool(torch.isfinite(mapped).all())
    assert float(mapped.abs().max()) < 50 * float(y.abs().max())


@every
def test_rows_that_are_all_the_same_are_refused_or_mapped_to_the_mean(aligner: LinearAligner) -> None:
    if isinstance(aligner, Procrustes) and aligner.robust != "none":
        pytest.skip("the mean of the rows that it trusts")
    x, y = torch.ones(40, 6, dtype=torch.float64), planted(40, 6, 6)[1]
    if isinstance(aligner, MAPS_TO_THE_MEAN) and not (isinstance(aligner, Procrustes) and aligner.scale):
        mapped = aligner.fit(x, y).translate()(x)
        torch.testing.assert_close(mapped, y.mean(0).expand_as(mapped))
    else:
        with pytest.raises(RefusedError, match="no variance"):
            aligner.fit(x, y)


@every
def test_the_same_rows_give_the_same_bits(aligner: LinearAligner) -> None:
    x, y = planted(100, 12, 12)
    first, second = (aligner.fit(x.clone(), y.clone()).translate() for _ in range(2))
    for name, numbers in first.tensors().items():
        assert torch.equal(numbers, second.tensors()[name])


@every
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_precision_of_the_rows(aligner: LinearAligner, dtype: type) -> None:
    x, y = planted(120, 12, 12)
    exact = aligner.fit(x, y)
    settled = type(aligner)(**exact.provenance["params"])
    x16, y16 = x.numpy().astype(dtype), y.numpy().astype(dtype)
    alignment = settled.fit(x16, y16)
    weight = alignment.translate().tensors()["weight"]
    assert weight.dtype == (torch.float64 if dtype is np.float64 else torch.float32)
    mapped = alignment.translate()(x16)
    assert mapped.dtype == dtype
    error = np.abs(mapped.astype(np.float64) - exact.translate()(x).numpy()).max()
    assert error < {np.float16: 0.1, np.float32: 1e-2, np.float64: 1e-9}[dtype]


@every
def test_large_means_do_not_harm_float32(aligner: LinearAligner) -> None:
    x, y = (side.float() for side in planted(120, 12, 12))
    settled = type(aligner)(**aligner.fit(x, y).provenance["params"])
    near = settled.solve(Moments.of(x, y)) if not settled.reads_rows else settled.fit(x, y).translate()
    far_x, far_y = x + 1000, y - 1000
    far = settled.solve(Moments.of(far_x, far_y)) if not settled.reads_rows else settled.fit(far_x, far_y).translate()
    assert isinstance(near, Affine)
    assert isinstance(far, Affine)
    # Adding 1000 alone rounds the rows to 6e-5.
    torch.testing.assert_close(far.weight.double(), near.weight.double(), rtol=0, atol=5e-3)
    torch.testing.assert_close(far.forward(far_x.double()) + 1000, near.forward(x.double()), rtol=0, atol=1e-2)


@every
def test_merged_moments_solve_to_the_same_map(aligner: LinearAligner) -> None:
    if aligner.reads_rows:
        pytest.skip("reads rows")
    x, y = planted(150, 12, 12)
    chunks = [Moments.of(x[a:b], y[a:b]) for a, b in ((0, 1), (1, 40), (40, 41), (41, 150))]
    whole, merged = aligner.solve(Moments.of(x, y)), aligner.solve(reduce(add, chunks))
    torch.testing.assert_close(merged.weight, whole.weight, rtol=0, atol=1e-9)
    torch.testing.assert_close(merged.bias, whole.bias, rtol=0, atol=1e-9)


@every
def test_parameters_survive_json_and_the_file(aligner: LinearAligner, tmp_path: object) -> None:
    assert type(aligner)(**json.loads(json.dumps(aligner.parameters()))) == aligner
    x, y = planted(100, 12, 12)
    alignment = aligner.fit(x, y)
    path = f"{tmp_path}/map.safetensors"
    save_alignment(alignment, path)
    again = load(path)
    assert torch.equal(again.translate()(x), alignment.translate()(x))
    settled = type(aligner)(**again.provenance["params"])
    assert settled.variants(Survey.of(Pairs.of(x, y))) == (settled,) or isinstance(settled, Ridge | ReducedRank)


@every
def test_numbers_lie_in_memory_as_they_will_in_the_file(aligner: LinearAligner) -> None:
    """Products of the same numbers in another order of memory differ in the last bit."""
    alignment = aligner.fit(*planted(100, 12, 12))
    for mapping in (*alignment.maps.values(), *alignment.back.values()):
        assert all(numbers.is_contiguous() for numbers in mapping.tensors().values())


@every
def test_blocks_are_all_that_is_needed(aligner: LinearAligner) -> None:
    x, y = planted(100, 12, 12)
    moments = Moments.of(x, y, blocks=aligner.blocks)
    assert bool(torch.isfinite(aligner.solve(moments).weight).all())


TURNS = [
    a for a in VARIANTS if not (needs_equal_dims(a) or "standardise" in identify(a) or "per_target" in identify(a))
]


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), dims=st.sampled_from([(8, 11), (9, 9), (11, 8)]))
@pytest.mark.parametrize("aligner", [*TURNS, Procrustes(), Ridge(), LeastSquares()], ids=identify)
def test_a_rotated_target_rotates_the_map(aligner: LinearAligner, seed: int, dims: tuple[int, int]) -> None:
    x, y = planted(60, *dims, seed=seed)
    aligner = replace(aligner, robust="none") if isinstance(aligner, Procrustes) else aligner
    turn = rotation(dims[1], seed + 1)
    plain = aligner.solve(Moments.of(x, y))
    turned = aligner.solve(Moments.of(x, y @ turn))
    torch.testing.assert_close(turned.forward(x), plain.forward(x) @ turn, rtol=0, atol=1e-5)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), dims=st.sampled_from([(8, 11), (9, 9), (11, 8)]))
@pytest.mark.parametrize("aligner", [*TURNS, Procrustes(), Ridge(), LeastSquares()], ids=identify)
def test_a_rotated_source_is_mapped_alike(aligner: LinearAligner, seed: int, dims: tuple[int, int]) -> None:
    x, y = planted(60, *dims, seed=seed)
    aligner = replace(aligner, robust="none") if isinstance(aligner, Procrustes) else aligner
    turn = rotation(dims[0], seed + 1)
    plain = aligner.solve(Moments.of(x, y))
    turned = aligner.solve(Moments.of(x @ turn, y))
    torch.testing.assert_close(turned.forward(x @ turn), plain.forward(x), rtol=0, atol=1e-5)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-30, 30))
@every
def test_translation_of_either_side_carries_over(aligner: LinearAligner, seed: int, shift: float) -> None:
    if aligner.reads_rows:
        return
    x, y = planted(60, 9, 9, seed=seed)
    plain, moved = aligner.solve(Moments.of(x, y)), aligner.solve(Moments.of(x + shift, y - 2 * shift))
    torch.testing.assert_close(moved.forward(x + shift) + 2 * shift, plain.forward(x), rtol=0, atol=1e-5)


SCALE_FREE = [a for a in TURNS if isinstance(a, Ridge | ReducedRank | Whitening | CCA | PLS) and not a.reads_rows]


@pytest.mark.parametrize("aligner", [*SCALE_FREE, Procrustes(scale=True), LeastSquares(), Ridge()], ids=identify)
def test_the_unit_of_the_source_does_not_matter(aligner: LinearAligner) -> None:
    x, y = planted(60, 9, 12)
    plain, scaled = aligner.solve(Moments.of(x, y)), aligner.solve(Moments.of(1000 * x, y))
    torch.testing.assert_close(scaled.forward(1000 * x), plain.forward(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("mean-shift", {"amount": 1.1}),
        ("mean-shift", {"amount": float("nan")}),
        ("procrustes", {"robust": "cauchy"}),
        ("procrustes", {"centre": False, "standardise": True}),
        ("procrustes", {"polish": True, "rotation_only": True}),
        ("ridge", {"alpha": -1.0}),
        ("ridge", {"alpha": float("nan")}),
        ("ridge", {"alpha": float("inf")}),
        ("ridge", {"criterion": "aic"}),
        ("ridge", {"per_target": True, "alpha": 1.0}),
        ("identity-ridge", {"strength": 0.0}),
        ("identity-ridge", {"blend": -0.1}),
        ("rotation-ridge", {"strength": 0.0}),
        ("rotation-ridge", {"strength": float("inf")}),
        ("rotation-ridge", {"strength": "high"}),
        ("reduced-rank", {"rank": 0}),
        ("reduced-rank", {"rank": 2.5}),
        ("reduced-rank", {"alpha": -1.0}),
        ("whitening", {"shrinkage": 1.5}),
        ("cca", {"eps": -1e-3}),
        ("cca", {"power": -1.0}),
        ("cca", {"variance": 0.0}),
        ("cca", {"rank": True}),
        ("pls", {"mode": "canonical"}),
        ("pls", {"rank": 0}),
        ("subspace", {"kind": "ica"}),
        ("subspace", {"inner": "cca"}),
        ("subspace", {"eps": -1.0}),
    ],
)
def test_bad_parameters_are_refused(name: str, params: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=name):
        LINEAR[name](**params)


RANKED = [ReducedRank(), CCA(eps=0.1), PLS(), PLS(mode="svd"), *(Subspace(kind=k) for k in ("pca", "cca", "pls"))]


@pytest.mark.parametrize("aligner", RANKED, ids=identify)
@pytest.mark.parametrize(("p", "q"), [(8, 6), (6, 8)])
def test_a_rank_is_at_most_the_dims(aligner: LinearAligner, p: int, q: int) -> None:
    x, y = planted(50, p, q)
    most = p if aligner == PLS() else min(p, q)  # components of x alone
    assert torch.linalg.matrix_rank(replace(aligner, rank=most).solve(Moments.of(x, y)).weight) == 6
    with pytest.raises(UsageError, match=f"at most {most}"):
        replace(aligner, rank=most + 1).solve(Moments.of(x, y))


def test_open_choices_need_rows_to_hold_out() -> None:
    x, y = planted(16, 12, 12)
    for aligner in (RotationRidge(), IdentityRidge(), ReducedRank(), Whitening(), CCA(), PLS(), Subspace()):
        with pytest.raises(SutureError, match="20 pairs"):
            aligner.fit(x, y)


def test_what_is_left_open_is_settled() -> None:
    x, y = planted(100, 12, 12)
    for aligner, field in (
        (RotationRidge(), "strength"),
        (IdentityRidge(), "strength"),
        (ReducedRank(), "rank"),
        (Whitening(), "shrinkage"),
        (CCA(), "eps"),
        (PLS(), "rank"),
        (Subspace(), "rank"),
    ):
        assert aligner.fit(x, y).provenance["params"][field] is not None
        assert len(aligner.variants(Survey.of(Pairs.of(x, y)))) > 1
    assert Ridge().fit(x, y).provenance["alpha"] >= 0
