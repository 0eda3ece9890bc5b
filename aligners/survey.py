"""Survey: one pass over the pairs that gathers all that fitting and judging need, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .alignment import Space
from .arrays import as_tensor, working_dtype
from .errors import RefusedError
from .moments import ALL_BLOCKS, Block, Moments
from .moments_builder import PIECE_ROWS, MomentsBuilder
from .pairs import BLOCK_ROWS, PairBlock, Pairs, PairStream, mix

__all__ = ["FOLDS", "KeptPairs", "Survey", "space_of"]

FOLDS = 5
SAMPLE_ROWS = 5000
CANARIES = 256
FAMILIAR_ROWS = 2000  # rows whose mean likeness to the canaries is remembered
UNIT_TOLERANCE = 2e-3  # float16 rounds a unit row to within 1e-3
PART_OF_BLOCK = (0, 1, 2, 2)


@dataclass(frozen=True, eq=False)
class Survey:
    """What one pass over ``stream`` found.

    ``parts``: moments of about a quarter, a quarter and half of the blocks, taken in turn; nested subsets of the pairs
    come out of them for nothing. ``sample``: at most 5,000 pairs in memory, whole groups, drawn by their keys, on
    which everything is judged; ``sample_part`` ``(m,)`` says which part each was counted in.
    """

    stream: PairStream
    parts: tuple[Moments, ...]
    sample: Pairs
    sample_part: Tensor
    source: Space
    target: Space
    seed: int

    @classmethod
    def of(
        cls,
        stream: PairStream,
        *,
        blocks: Iterable[Block] = ALL_BLOCKS,
        seed: int = 0,
        sample_rows: int = SAMPLE_ROWS,
        canaries: bool = True,
    ) -> Survey:
        """Survey all pairs of ``stream``. Raises `SutureError` if there are fewer than two."""
        scratch: dict[str, Tensor] = {}
        builders = [MomentsBuilder(blocks, scratch) for _ in range(3)]
        sampler, norms = _Sampler(sample_rows, seed), (_Norms(), _Norms())
        used = set()
        for part, (x, y, keys, weights) in parted(stream):
            x, y = as_tensor(x), as_tensor(y)
            builders[part].add(x, y, weights)
            used.add(part)
            sampler.add(Pairs(x, y, keys, weights), part)
            norms[0].add(x)
            norms[1].add(y)
        if sampler.rows < 2:
            raise RefusedError("expected at least two pairs to fit a map on, got fewer. Give more.")
        parts = tuple(b.moments() for i, b in enumerate(builders) if i in used)
        sample, sample_part = sampler.result()
        total = reduce(add, parts)
        require_finite(total)
        spaces = (
            space_of(sample.x, sample.keys, total.mean_x, norms[0].unit, sampler.fingerprint, canaries),
            space_of(sample.y, sample.keys, total.mean_y, norms[1].unit, sampler.fingerprint, canaries),
        )
        return cls(stream, parts, sample, sample_part, *spaces, seed=seed)

    @cached_property
    def moments(self) -> Moments:
        """The moments of all pairs."""
        return reduce(add, self.parts)

    @cached_property
    def fold(self) -> Tensor:
        """The fold ``(m,)``, 0 to 4, of each sampled pair: groups, in an order drawn by their keys, take turns."""
        _, turn = torch.unique(mix(self.sample.keys, self.seed + 1), return_inverse=True)
        return turn.remainder(FOLDS)

    @property
    def can_hold_out(self) -> bool:
        """Whether the sample has at least 20 pairs and every fold has some."""
        return len(self.sample) >= 20 and len(torch.unique(self.fold)) == FOLDS

    def without_fold(self, fold: int, parts: int | None = None) -> Moments:
        """Moments of the first ``parts`` parts (all by default) without the sampled pairs of that fold."""
        cache: dict[tuple[int, int], Moments] = self.__dict__.setdefault("_without", {})
        parts = len(self.parts) if parts is None else parts
        if (fold, parts) not in cache:
            total = reduce(add, self.parts[:parts])
            rows = (self.fold == fold) & (self.sample_part < parts)
            cache[fold, parts] = total - self._moments_of(rows) if bool(rows.any()) else total
        return cache[fold, parts]

    def _moments_of(self, rows: Tensor) -> Moments:
        some = self.sample[rows]
        total = self.parts[0]
        names: tuple[Block, ...] = ("xx", "xy", "yy", "x", "y")
        return Moments.of(some.x, some.y, some.weights, [b for b in names if getattr(total, b) is not None])

    def rest(self, fold: int, parts: int | None = None) -> Survey:
        """Of all pairs of the first ``parts`` parts but the sampled ones of that fold, and their groups.

        Costs no pass, and what was solved from the moments `without_fold` is there for every method that asks.
        """
        parts = len(self.parts) if parts is None else parts
        held = self.fold == fold
        sample = self.sample[~held & (self.sample_part < parts)]
        stream: PairStream = sample
        if len(self.sample) < self.stream.rows:
            keys = torch.unique(self.sample.keys[held])
            stream = KeptPairs(self.stream, lambda part, k: (part < parts) & ~torch.isin(k, keys))
        one_part = torch.zeros(len(sample), dtype=torch.int64)
        return replace(
            self, stream=stream, parts=(self.without_fold(fold, parts),), sample=sample, sample_part=one_part
        )

    def folds(self) -> Iterator[tuple[int, Tensor]]:
        """Each fold with the positions of its pairs in the sample."""
        for k in range(FOLDS):
            yield k, (self.fold == k).nonzero()[:, 0]


def require_finite(moments: Moments) -> None:
    """Raises `RefusedError` where rows are so large that their squares overflow."""
    given = {
        "source": (moments.mean_x, moments.x, moments.xx),
        "target": (moments.mean_y, moments.y, moments.yy, moments.xy),
    }
    for side, sums in given.items():
        if not all(bool(torch.isfinite(s).all()) for s in sums if s is not None):
            wider = "" if moments.dtype == torch.float64 else ", or give float64 rows"
            raise RefusedError(
                f"expected {side} rows whose squares fit {moments.dtype}, got larger ones; scale them down{wider}."
            )


def parted(stream: PairStream) -> Iterator[tuple[int, PairBlock]]:
    """All blocks of ``stream``, each with the part that it belongs to, the same in every pass."""
    size = min(BLOCK_ROWS, max(256, stream.rows // 16))
    for i, block in enumerate(stream.blocks(size)):
        yield PART_OF_BLOCK[i % 4], block


@dataclass(frozen=True, eq=False)
class KeptPairs:
    """A `PairStream` of those pairs of another one for which ``kept(part, keys)`` ``(m,)`` is true.

    ``part`` is that of their block, as in `parted`, and ``keys`` ``(m,)`` are theirs.
    """

    stream: PairStream
    kept: Callable[[int, Tensor], Tensor]

    @property
    def source_dim(self) -> int:
        """Width of the source rows."""
        return self.stream.source_dim

    @property
    def target_dim(self) -> int:
        """Width of the target rows."""
        return self.stream.target_dim

    @property
    def rows(self) -> int:
        """At most so many pairs."""
        return self.stream.rows

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[PairBlock]:
        """One pass over the kept pairs."""
        for part, (x, y, keys, weights) in parted(self.stream):
            kept = self.kept(part, keys)
            if bool(kept.any()):
                yield from Pairs(as_tensor(x), as_tensor(y), keys, weights)[kept].blocks(size)


class _Norms:
    """Whether all rows seen so far have unit length."""

    def __init__(self) -> None:
        self.unit = True

    def add(self, rows: Tensor) -> None:
        self.unit = self.unit and all_unit(rows)


def all_unit(rows: Tensor) -> bool:
    """Whether all ``rows`` ``(m, dim)`` have Euclidean length 1, within what rounding to float16 does."""
    dtype = working_dtype(rows.dtype)
    norms = (torch.linalg.vector_norm(piece.to(dtype), dim=1) for piece in torch.split(rows, PIECE_ROWS))
    return all(bool(((norm - 1).abs() <= UNIT_TOLERANCE).all()) for norm in norms)


class _Sampler:
    """The pairs with the smallest scrambled keys: a sample that depends neither on order nor on block size."""

    def __init__(self, limit: int, seed: int) -> None:
        self._limit, self._seed = limit, seed
        self._bound: int | None = None
        self._kept: list[tuple[Pairs, Tensor, Tensor]] = []
        self._sum, self._count = 0, 0

    def add(self, pairs: Pairs, part: int) -> None:
        dice = mix(pairs.keys, self._seed)
        self._sum += int(mix(pairs.keys).sum())
        self._count += len(dice)
        everyone = torch.ones_like(dice, dtype=torch.bool)
        chosen = (everyone if self._bound is None else dice < self._bound).nonzero()[:, 0]
        if len(chosen):
            some = pairs[chosen]  # a copy: the blocks are overwritten
            self._kept.append((some, dice[chosen], torch.full((len(some),), part)))
        if sum(len(dice) for _, dice, _ in self._kept) > 2 * self._limit:
            self._cut()

    def _cut(self) -> None:
        """Leave the smallest dice; a group on the edge stays out whole."""
        if sum(len(dice) for _, dice, _ in self._kept) <= self._limit:
            return
        dice = torch.cat([dice for _, dice, _ in self._kept])
        self._bound = int(dice.kthvalue(self._limit + 1).values)
        inside = [dice < self._bound for _, dice, _ in self._kept]
        self._kept = [
            (pairs[i], dice[i], part[i]) for (pairs, dice, part), i in zip(self._kept, inside, strict=True) if i.any()
        ]

    def result(self) -> tuple[Pairs, Tensor]:
        """The sample, in the order of its dice, and the part of each pair."""
        self._cut()
        if not self._kept:
            raise RefusedError(
                f"expected groups of at most {self._limit} pairs, since whole groups are held out together, got larger "
                "ones only; name smaller groups, or none."
            )
        pairs, dice, part = zip(*self._kept, strict=True)
        order = torch.cat(dice).argsort(stable=True)
        return Pairs.joined(pairs).in_working_precision()[order], torch.cat(part)[order]

    @property
    def rows(self) -> int:
        """The number of pairs seen."""
        return self._count

    @property
    def fingerprint(self) -> str:
        """Number of rows and sum of their scrambled keys, modulo 2^64: the same for the same set in any order."""
        return f"{self._count}:{self._sum & (1 << 64) - 1:016x}"


def space_of(rows: Tensor, keys: Tensor, mean: Tensor, unit: bool, fingerprint: str, canaries: bool) -> Space:
    """What is remembered of the space that ``rows`` ``(m, dim)`` were drawn from; the first become canaries."""
    dim = rows.shape[1]
    if not canaries or len(rows) < 2:
        return Space(dim, unit, fingerprint)
    few = min(CANARIES, len(rows) // 2)
    centre = mean.to(rows)
    space = Space(dim, unit, fingerprint, centre.float(), rows[:few].float(), keys[:few])
    seen = rows[few : few + FAMILIAR_ROWS]
    return Space(dim, unit, fingerprint, space.mean, space.canaries, space.canary_keys, familiarity(space, seen))


def familiarity(space: Space, rows: Tensor) -> tuple[float, float] | None:
    """Mean cosine of ``rows`` ``(m, dim)`` to their nearest canary, and the same with the coordinates shuffled.

    Both are centred first. Rows of the same space score as the rows did at fit time; rows of another encoder of the
    same width score like shuffled ones. None where the space keeps no canaries or the width differs.
    """
    if space.canaries is None or space.mean is None or rows.shape[1] != space.dim or len(rows) == 0:
        return None
    anchors = normalize(space.canaries - space.mean, dim=1)
    centred = normalize(rows.float() - space.mean, dim=1)
    shuffle = torch.randperm(space.dim, generator=torch.Generator().manual_seed(0))
    nearest = [float((r @ anchors.T).amax(1).mean()) for r in (centred, centred[:, shuffle])]
    return nearest[0], nearest[1]
