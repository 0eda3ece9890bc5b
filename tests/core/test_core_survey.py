"""Laws of the survey: what is found depends on the set of pairs and on nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from core_examples import rows
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from suture.aligners import Moments, Pairs, RefusedError, Survey, SutureError
from suture.aligners.pairs import PairBlock, as_keys, mix
from suture.aligners.survey import FOLDS, all_unit

N = 3000


@dataclass(frozen=True)
class Stream:
    """Pairs in blocks of a size of its own, out of one buffer that each block overwrites."""

    pairs: Pairs
    size: int

    @property
    def source_dim(self) -> int:
        return self.pairs.source_dim

    @property
    def target_dim(self) -> int:
        return self.pairs.target_dim

    @property
    def rows(self) -> int:
        return len(self.pairs)

    def blocks(self, size: int = 0) -> Iterator[PairBlock]:
        buffers: tuple[Tensor, ...] | None = None
        for block in self.pairs.blocks(self.size):
            parts = [t for t in block if t is not None]
            buffers = buffers or tuple(t.clone() for t in parts)
            views = [b[: len(t)].copy_(t) for b, t in zip(buffers, parts, strict=True)]
            yield PairBlock(*views)
            for buffer in buffers:
                buffer.fill_(99)


def make_pairs(n: int = N, groups: int | None = None, dtype: torch.dtype = torch.float64, weighted=False) -> Pairs:
    x = rows(n, 4, dtype=dtype)
    keys = None if groups is None else mix(torch.arange(n) % groups, 5)
    return Pairs.of(x, (2 * x[:, :3] + 1).to(dtype), keys, rows(n, seed=3).abs() if weighted else None)


def as_set(survey: Survey) -> list[tuple[float, ...]]:
    s = survey.sample
    return sorted(map(tuple, torch.cat([s.x, s.y, s.keys[:, None].double()], 1).tolist()))


@pytest.mark.parametrize("groups", [None, 700])
@pytest.mark.parametrize("weighted", [False, True])
def test_block_size_and_order_of_rows_do_not_matter(groups, weighted):
    pairs = make_pairs(groups=groups, weighted=weighted)
    one = Survey.of(pairs, sample_rows=400)
    shuffle = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    for stream in (
        *(Stream(pairs, size) for size in (41, 1000, 10**6)),
        pairs[shuffle],
        Stream(pairs[shuffle], 100),
        pairs[torch.arange(N - 1, -1, -1)],
    )[0 if groups else 1 :]:
        other = Survey.of(stream, sample_rows=400)
        assert as_set(other) == as_set(one)
        assert other.source.fingerprint == one.source.fingerprint == one.target.fingerprint
        torch.testing.assert_close(other.moments.xy, one.moments.xy)
        torch.testing.assert_close(other.moments.mean_y, one.moments.mean_y)
        assert other.moments.n == pytest.approx(one.moments.n)
        assert sorted(zip(other.sample.keys.tolist(), other.fold.tolist(), strict=True)) == sorted(
            zip(one.sample.keys.tolist(), one.fold.tolist(), strict=True)
        )


def test_the_fingerprint_tells_sets_apart():
    pairs = make_pairs()
    found = {Survey.of(p).source.fingerprint for p in (pairs, pairs[:-1], pairs[1:], make_pairs(groups=50))}
    assert len(found) == 4
    assert Survey.of(pairs).source.fingerprint.startswith(f"{N}:")


@pytest.mark.parametrize("limit", [100, 999, 5000])
def test_groups_are_sampled_whole_and_share_a_fold(limit):
    pairs = make_pairs(groups=300)  # ten rows each
    survey = Survey.of(Stream(pairs, 64), sample_rows=limit)
    keys, counts = torch.unique(survey.sample.keys, return_counts=True)
    assert set(counts.tolist()) == {10}
    assert limit - 10 < len(survey.sample) <= limit or len(survey.sample) == N
    for key in keys:
        assert len(torch.unique(survey.fold[survey.sample.keys == key])) == 1


def test_groups_larger_than_the_sample_are_refused():
    with pytest.raises(RefusedError, match="groups of at most 50"):
        Survey.of(make_pairs(groups=3), sample_rows=50)


def test_folds_part_the_sample_in_five_of_about_one_size():
    survey = Survey.of(make_pairs())
    positions = torch.cat([rows for _, rows in survey.folds()])
    assert sorted(positions.tolist()) == list(range(N))
    sizes = torch.bincount(survey.fold, minlength=FOLDS)
    assert len(sizes) == FOLDS
    assert stats.chisquare(sizes.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("limit", [200, 5000])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("parts", [1, 2, None])
def test_without_a_fold_are_the_moments_of_all_other_rows(limit, weighted, parts):
    pairs = make_pairs(weighted=weighted, groups=1000)
    survey = Survey.of(pairs, sample_rows=limit)
    part = torch.tensor([(0, 1, 2, 2)[i % 4] for i in range(N // 256 + 1) for _ in range(256)])[:N]
    assert len(survey.parts) == 3
    for fold in range(FOLDS):
        held = torch.isin(pairs.keys, survey.sample.keys[survey.fold == fold])
        keep = ~held & (part < (3 if parts is None else parts))
        want = Moments.of(pairs.x[keep], pairs.y[keep], None if not weighted else pairs.weights[keep])
        found = survey.without_fold(fold, parts)
        assert found.n == pytest.approx(want.n)
        for name in ("mean_x", "mean_y", "xx", "xy", "yy", "square_x"):
            torch.testing.assert_close(getattr(found, name), getattr(want, name))
        assert survey.without_fold(fold, parts) is found


def test_only_asked_for_blocks_are_held_out():
    survey = Survey.of(make_pairs(), blocks=("xy",))
    assert survey.moments.xx is None
    assert survey.without_fold(0).xx is None
    assert survey.without_fold(0).xy is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_unit_rows_are_noticed_on_either_side(dtype):
    x = torch.nn.functional.normalize(rows(500, 16)).to(dtype)
    y = rows(500, 16, seed=1, dtype=dtype)
    survey = Survey.of(Pairs.of(x, y))
    assert (survey.source.unit, survey.target.unit) == (True, False)
    x[499] *= 1.01
    assert not Survey.of(Pairs.of(x, y)).source.unit
    assert all_unit(x[:499])


@pytest.mark.parametrize(("n", "can"), [(2, False), (19, False), (60, True)])
def test_few_pairs_cannot_be_held_out(n, can):
    assert Survey.of(make_pairs(n)).can_hold_out is can


def test_four_groups_make_no_five_folds():
    assert not Survey.of(make_pairs(400, groups=4)).can_hold_out


@pytest.mark.parametrize("n", [1])
def test_one_pair_is_too_few(n):
    with pytest.raises(SutureError, match="at least two pairs"):
        Survey.of(make_pairs(n))


def test_small_weights_are_pairs_all_the_same():
    x = rows(100, 4)
    survey = Survey.of(Pairs.of(x, x, weights=torch.full((100,), 0.001)))
    assert survey.can_hold_out
    torch.testing.assert_close(survey.moments.mean_x, x.mean(0))


def test_canaries_are_rows_of_the_space_or_none():
    x = rows(N, 4) @ rows(4, 24, seed=1)  # rows of a kind, which shuffled coordinates are not
    survey = Survey.of(Pairs.of(x, 2 * x[:, 4:] + 1))
    for space, all_rows in ((survey.source, survey.sample.x), (survey.target, survey.sample.y)):
        assert space.canaries is not None
        assert space.canary_keys is not None
        assert space.familiarity is not None
        where = {key: i for i, key in enumerate(survey.sample.keys.tolist())}
        index = [where[key] for key in space.canary_keys.tolist()]
        assert torch.equal(space.canaries, all_rows[index].float())
        assert space.familiarity[0] > space.familiarity[1] + 0.3
    bare = Survey.of(make_pairs(), canaries=False)
    assert bare.source.canaries is bare.source.mean is bare.source.familiarity is None
    assert bare.source.fingerprint == survey.source.fingerprint


def test_the_sample_of_a_long_stream_is_bounded_and_uniform():
    n, limit = 100_000, 2000
    x = torch.arange(n, dtype=torch.float64)[:, None]
    survey = Survey.of(Stream(Pairs.of(x, x), 1500), sample_rows=limit, canaries=False)
    assert len(survey.sample) == limit
    for column in (survey.sample.x[:, 0], survey.sample.x[survey.fold == 0, 0]):
        counts = np.histogram(column.numpy(), bins=20, range=(0, n))[0]
        assert stats.chisquare(counts).pvalue > 1e-3
    assert abs(float((survey.sample_part == 2).double().mean()) - 0.5) < 0.05
    other = Survey.of(Pairs.of(x, x), sample_rows=limit, canaries=False, seed=1)
    common = len(np.intersect1d(other.sample.x.numpy(), survey.sample.x.numpy()))
    assert common < 4 * limit**2 / n  # another seed, another sample


@given(start=st.integers(-(2**63), 2**63 - 2000), step=st.sampled_from([1, 2, 2**32, 2**53]), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_mixing_is_splitmix_and_one_to_one(start, step, seed):
    raw = np.arange(1000, dtype=np.uint64) * np.uint64(step) + np.uint64(start % 2**64)
    keys = torch.from_numpy(raw.view(np.int64))
    with np.errstate(over="ignore"):
        z = raw + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    mixed = mix(keys, seed)
    assert np.array_equal(mixed.numpy().view(np.uint64), z)
    assert len(torch.unique(mixed)) == len(torch.unique(keys))


def test_every_bit_of_a_mixed_key_is_a_fair_coin():
    for seed in (0, 1):
        bits = np.unpackbits(mix(torch.arange(20_000), seed).numpy().view(np.uint8).reshape(-1, 8), axis=1)
        share = bits.mean(0)
        assert np.abs(share - 0.5).max() < 5 * 0.5 / 20_000**0.5
        together = np.corrcoef(bits.T) - np.eye(64)
        assert np.abs(together).max() < 0.1
    folds = torch.bincount(mix(torch.arange(20_000), 1).remainder(FOLDS))
    assert stats.chisquare(folds.numpy()).pvalue > 1e-3


def test_pairs_of_arrays_are_checked():
    x = np.ones((4, 2))
    for keys in (np.array([0.5, 1, 2, 3]), torch.ones(4), np.array(list("abcd")), np.ones((4, 1), int)):
        with pytest.raises(SutureError, match="expected integer keys"):
            Pairs.of(x, x, keys)
    for weights in ([-1.0, 1, 1, 1], [0.0] * 4, [float("nan"), 1, 1, 1], [float("inf"), 1, 1, 1]):
        with pytest.raises(SutureError, match="expected finite weights"):
            Pairs.of(x, x, weights=np.array(weights))
    with pytest.raises(SutureError, match="one key per pair, got 3 for 4"):
        Pairs.of(x, x, np.arange(3))
    with pytest.raises(SutureError, match="one weight per pair, got 5 for 4"):
        Pairs.of(x, x, weights=np.ones(5))
    with pytest.raises(SutureError, match="4 and 3; are they paired"):
        Pairs.of(x, x[:3])
    bad = x.copy()
    bad[2, 1] = np.nan
    with pytest.raises(SutureError, match="y: expected finite rows"):
        Pairs.of(x, bad)


def test_keys_of_any_integer_type_are_kept_bit_for_bit():
    big = np.array([0, 1, 2**63, 2**64 - 1], dtype=np.uint64)
    assert as_keys(big).tolist() == [0, 1, -(2**63), -1]
    for dtype in ("i1", "u2", "i4", "u4", "i8", ">i8", "?"):
        assert as_keys(np.array([0, 1], dtype)).tolist() == [0, 1]
    assert as_keys(torch.tensor([3, 4], dtype=torch.int32)).tolist() == [3, 4]
    assert as_keys(big[::-1]).tolist() == [-1, -(2**63), 1, 0]
