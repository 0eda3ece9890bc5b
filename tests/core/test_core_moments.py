"""Laws of `Moments`: any way of cutting the rows up gives the moments of the whole."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from core_examples import rows
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from suture.aligners import Moments, SutureError
from suture.aligners.moments import descending_eigh
from suture.aligners.moments_builder import MomentsBuilder

PARTS = ("mean_x", "mean_y", "square_x", "square_y", "xx", "xy", "yy")
PRECISION = {torch.float64: 1e-10, torch.float32: 1e-6, torch.float16: 1e-6}
dtypes = st.sampled_from(list(PRECISION))
seeds = st.integers(0, 2**16)


def pairs(n: int, seed: int, dtype: torch.dtype = torch.float64, offset: float = 1.0) -> tuple[Tensor, Tensor]:
    x = rows(n, 4, seed=seed) + offset * rows(4, seed=seed + 1)
    y = rows(n, 3, seed=seed + 2) + x[:, :3] + offset
    return x.to(dtype), y.to(dtype)


def reference(x: Tensor, y: Tensor, weights: Tensor | None = None) -> dict[str, Tensor]:
    """Moments of the very same numbers, in float64 and in two passes."""
    a, b = x.double().numpy(), y.double().numpy()
    w = np.ones(len(a)) if weights is None else weights.double().numpy()
    mx, my = w @ a / w.sum(), w @ b / w.sum()
    xx, xy, yy = (
        (w[:, None] * left).T @ right for left, right in ((a - mx, a - mx), (a - mx, b - my), (b - my, b - my))
    )
    found = {"mean_x": mx, "mean_y": my, "xx": xx, "xy": xy, "yy": yy, "square_x": np.diag(xx), "square_y": np.diag(yy)}
    return {name: torch.from_numpy(np.array(value)) for name, value in found.items()}


def assert_same(got: Moments, want: Moments | dict[str, Tensor], tolerance: float) -> None:
    """Every part agrees to ``tolerance`` relative to the size of what it is made of."""
    for name in PARTS:
        mine = getattr(got, name)
        other = want[name] if isinstance(want, dict) else getattr(want, name)
        assert (mine is None) == (other is None), name
        if mine is None:
            continue
        assert mine.dtype == torch.float64
        if name.startswith("mean"):
            side = name[-1]
            scale = mine.abs().max() + (getattr(got, f"square_{side}").max() / got.n).sqrt()
        else:
            scale = (got.square_x.max() + got.square_y.max()).clamp(min=1e-300)
        assert float((mine - other).abs().max() / scale) < tolerance, name


def chunked(x: Tensor, y: Tensor, cuts: list[int]) -> list[Moments]:
    bounds = sorted({0, len(x), *(c % len(x) for c in cuts)})
    return [Moments.of(x[a:b], y[a:b]) for a, b in pairwise(bounds)]


@given(
    n=st.integers(2, 60), seed=seeds, dtype=dtypes, cuts=st.lists(st.integers(0, 999), max_size=6), order=st.randoms()
)
@settings(max_examples=60, deadline=None)
def test_merging_in_any_chunks_and_order_gives_the_whole(n, seed, dtype, cuts, order):
    x, y = pairs(n, seed, dtype)
    parts = chunked(x, y, cuts)
    order.shuffle(parts)
    while len(parts) > 1:  # any tree of merges
        left, right = parts.pop(order.randrange(len(parts))), parts.pop(order.randrange(len(parts)))
        parts.append(left + right)
    (merged,) = parts
    assert merged.n == n
    assert_same(merged, Moments.of(x, y), PRECISION[dtype])
    assert_same(merged, reference(x, y), PRECISION[dtype])


@given(seed=seeds, sizes=st.lists(st.integers(1, 30), min_size=3, max_size=3), dtype=dtypes)
@settings(max_examples=30, deadline=None)
def test_merging_is_associative_and_commutative(seed, sizes, dtype):
    a, b, c = (Moments.of(*pairs(n, seed + i, dtype, offset=float(i))) for i, n in enumerate(sizes))
    assert_same((a + b) + c, a + (b + c), 1e-12)
    assert_same(a + b, b + a, 1e-12)


@given(seed=seeds, n=st.integers(1, 30), m=st.integers(1, 30), dtype=dtypes)
@settings(max_examples=30, deadline=None)
def test_minus_undoes_plus(seed, n, m, dtype):
    a, b = Moments.of(*pairs(n, seed, dtype)), Moments.of(*pairs(m, seed + 9, dtype, offset=2.0))
    again = (a + b) - b
    assert again.n == n
    total = a + b
    for name in PARTS:  # what is left is exact relative to what it was taken out of
        torch.testing.assert_close(
            getattr(again, name), getattr(a, name), rtol=0, atol=1e-12 * float(total.square_y.max() + 1)
        )


@pytest.mark.parametrize("dtype", list(PRECISION))
def test_total_less_a_fold_is_the_moments_of_the_other_rows(dtype):
    x, y = pairs(103, 3, dtype, offset=30.0)
    total = Moments.of(x, y)
    fold = torch.arange(103) % 5
    for k in range(5):
        some = Moments.of(x[fold == k], y[fold == k])
        rest = Moments.of(x[fold != k], y[fold != k])
        assert (total - some).n == rest.n
        assert_same(total - some, rest, 1e-5 if dtype != torch.float64 else 1e-11)


@pytest.mark.parametrize("offset", [1e3, 1e4, 1e5, 1e6])
@pytest.mark.parametrize("weighted", [False, True])
def test_huge_means_cost_no_digits(offset, weighted):
    x, y = pairs(5000, 1, torch.float32, offset)
    weights = torch.rand(5000, generator=torch.Generator().manual_seed(0)) if weighted else None
    builder = MomentsBuilder()
    for start in range(0, 5000, 777):
        part = slice(start, start + 777)
        builder.add(x[part], y[part], None if weights is None else weights[part])
    found = builder.moments()
    want = reference(x, y, weights)
    for name in ("xx", "xy", "yy", "square_x", "square_y"):
        scale = want["square_x"].max() + want["square_y"].max()
        assert float((getattr(found, name) - want[name]).abs().max() / scale) < 2e-6, name
    for name in ("mean_x", "mean_y"):
        spread = (want[name.replace("mean", "square")] / 5000).sqrt().max()
        assert float((getattr(found, name) - want[name]).abs().max()) < 1e-6 * float(spread) + 1e-12 * offset, name


@given(n=st.integers(2, 20), seed=seeds, dtype=dtypes, data=st.data())
@settings(max_examples=30, deadline=None)
def test_weights_are_repeated_rows(n, seed, dtype, data):
    x, y = pairs(n, seed, dtype)
    times = torch.tensor(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n).filter(any)))
    weighted = Moments.of(x, y, times)
    repeated = Moments.of(x.repeat_interleave(times, 0), y.repeat_interleave(times, 0))
    assert weighted.n == repeated.n
    assert_same(weighted, repeated, 10 * PRECISION[dtype])
    assert_same(Moments.of(x, y, times.double()), weighted, 1e-6)


def test_weight_zero_leaves_a_row_out_and_a_block_of_zeros_changes_nothing():
    x, y = pairs(10, 0)
    weights = torch.ones(10)
    weights[7:] = 0
    assert_same(Moments.of(x, y, weights), Moments.of(x[:7], y[:7]), 1e-12)
    builder = MomentsBuilder()
    builder.add(x[:7], y[:7])
    builder.add(x[7:], y[7:], torch.zeros(3))
    assert_same(builder.moments(), Moments.of(x[:7], y[:7]), 1e-12)


@pytest.mark.parametrize(
    "blocks", [(), ("xx",), ("xy", "y"), ("yy", "x"), ("xx", "yy"), ("xx", "xy", "yy"), ("x", "y")]
)
def test_only_the_blocks_that_were_asked_for(blocks):
    x, y = pairs(40, 2)
    some, whole = Moments.of(x, y, blocks=blocks), Moments.of(x, y)
    for name in ("xx", "xy", "yy"):
        if name in blocks:
            assert torch.equal(some.block(name), whole.block(name))
        else:
            with pytest.raises(SutureError, match=f"'{name}' was not accumulated"):
                some.block(name)
    for derived in (some + some, (some + some) - some, some.reversed.reversed):
        assert {b for b in ("xx", "xy", "yy") if getattr(derived, b) is not None} == set(blocks) - {"x", "y"}
    for side in ("x", "y"):
        if {side, 2 * side} & set(blocks):
            torch.testing.assert_close(getattr(some, f"square_{side}"), whole.block(2 * side).diagonal())
        else:
            with pytest.raises(SutureError, match=f"'{side}' was not accumulated"):
                getattr(some, f"square_{side}")


def test_reversed_exchanges_the_sides():
    x, y = pairs(30, 4)
    assert_same(Moments.of(x, y).reversed, Moments.of(y, x), 1e-12)
    assert Moments.of(x, y).reversed.source_dim == 3
    assert torch.equal(Moments.of(x, y).reversed.reversed.xy, Moments.of(x, y).xy)


VIEWS: dict[str, Callable[[np.ndarray], object]] = {
    "numpy": lambda a: a,
    "tensor": torch.from_numpy,
    "fortran": np.asfortranarray,
    "every other": lambda a: np.repeat(a, 2, axis=0)[::2],
    "backwards": lambda a: a[::-1].copy()[::-1],
    "transposed tensor": lambda a: torch.from_numpy(a.T.copy()).T,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "requires grad": lambda a: torch.from_numpy(a.copy()).requires_grad_(),
    "read-only": lambda a: (lambda b: (b.setflags(write=False), b)[1])(a.copy()),
    "field of a record": lambda a: np.rec.fromarrays(
        [a, np.zeros(len(a), "i1")], dtype=[("v", a.dtype, a.shape[1:]), ("flag", "i1")]
    )["v"],
}


def copied(values: object) -> np.ndarray:
    return values.detach().clone().numpy() if isinstance(values, Tensor) else np.array(values)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("view", VIEWS)
def test_any_layout_of_the_same_numbers_gives_the_same_moments_and_is_left_as_it_was(view, dtype):
    x, y = (t.numpy().astype(dtype) for t in pairs(50, 5))
    seen_x, seen_y = VIEWS[view](x), VIEWS[view](y)
    before = [copied(v) for v in (seen_x, seen_y)]
    assert_same(Moments.of(seen_x, seen_y), Moments.of(x, y), 1e-6 if dtype != "float64" else 1e-12)
    for value, was in zip((seen_x, seen_y), before, strict=True):
        assert np.array_equal(copied(value), was)


def test_what_was_handed_out_does_not_change_when_more_rows_come():
    x, y = pairs(40, 6)
    builder = MomentsBuilder()
    builder.add(x[:20], y[:20])
    early = builder.moments()
    kept = {name: getattr(early, name).clone() for name in PARTS}
    builder.add(x[20:], y[20:])
    assert all(torch.equal(getattr(early, name), value) for name, value in kept.items())
    assert_same(builder.moments(), Moments.of(x, y), 1e-12)
    a, b = Moments.of(x[:20], y[:20]), Moments.of(x[20:], y[20:])
    _ = (a + b) - b
    assert all(torch.equal(getattr(a, name), getattr(Moments.of(x[:20], y[:20]), name)) for name in PARTS)


def test_precision_is_that_of_the_widest_rows():
    half, double = pairs(10, 0, torch.float16), pairs(10, 0, torch.float64)
    assert Moments.of(*half).dtype == torch.float32
    assert Moments.of(half[0], double[1]).dtype == torch.float64
    assert (Moments.of(*half) + Moments.of(*double)).dtype == torch.float64
    builder = MomentsBuilder()
    builder.add(*half)
    builder.add(*double)
    assert builder.moments().dtype == torch.float64
    assert_same(builder.moments(), Moments.of(*half) + Moments.of(*double), 1e-12)


def test_one_pair_has_no_spread():
    m = Moments.of(*pairs(1, 0))
    assert m.n == 1
    assert float(m.xx.abs().max()) == 0


def test_what_does_not_fit_together_is_refused_with_both_numbers():
    x, y = pairs(10, 0)
    with pytest.raises(SutureError, match="10 and 9"):
        Moments.of(x, y[:9])
    long = torch.zeros(9000, 2)
    with pytest.raises(SutureError, match="9000 and 8500"):
        Moments.of(long, long[:8500])
    with pytest.raises(SutureError, match="8192 and 9000"):
        Moments.of(long[:8192], long)
    for weights in (torch.ones(9), torch.ones(11), torch.ones(10, 1)):
        with pytest.raises(SutureError, match="one weight per pair"):
            Moments.of(x, y, weights)
    with pytest.raises(SutureError, match=r"non-empty matrix .* got shape \(0, 4\)"):
        Moments.of(x[:0], y[:0])
    with pytest.raises(SutureError, match=r"got shape \(4,\)"):
        Moments.of(x[0], y[0])
    with pytest.raises(SutureError, match="expected at least one pair"):
        MomentsBuilder().moments()
    with pytest.raises(SutureError, match="expected at least one pair"):
        Moments.of(x, y, torch.zeros(10))
    with pytest.raises(SutureError, match=r"\(4, 3\) dims, got \(3, 4\)"):
        Moments.of(x, y) + Moments.of(y, x)
    with pytest.raises(SutureError, match="10 of 10"):
        Moments.of(x, y) - Moments.of(x, y)
    builder = MomentsBuilder()
    builder.add(x, y)
    with pytest.raises(SutureError, match="4 and 3 dims as before, got 3 and 4"):
        builder.add(y, x)
    for bad in (np.ones((3, 2), int), np.ones((3, 2), "longdouble"), torch.ones(3, 2, dtype=torch.int32)):
        with pytest.raises(SutureError, match="convert it first"):
            Moments.of(bad, bad)
    with pytest.raises(SutureError, match="got list"):
        Moments.of([[1.0]], [[1.0]])


def test_derived_once_and_true():
    x, y = pairs(60, 8)
    m = Moments.of(x, y)
    values, vectors = m.eigen_x
    assert m.eigen_x is m.eigen_x
    assert bool((values[:-1] >= values[1:]).all())
    torch.testing.assert_close(vectors @ torch.diag(values) @ vectors.T, m.xx)
    u, s, vt = m.svd_xy
    torch.testing.assert_close(u @ torch.diag(s) @ vt, m.xy)
    torch.testing.assert_close(m.rotation.T @ m.rotation, torch.eye(3, dtype=torch.float64))
    # Rounding noise of rows that span two directions is no third one.
    flat = rows(500, 2).float() @ rows(2, 6, seed=1).float() + 100
    assert int((Moments.of(flat, flat).eigen_x[0] > 0).sum()) == 2
    assert float(descending_eigh(torch.zeros(3, 3, dtype=torch.float64), torch.float32)[0].abs().max()) == 0
