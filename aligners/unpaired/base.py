"""UnpairedAligner: what the methods have in common that align rows which do not correspond."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..aligner import Aligner, Needs
from ..alignment import Alignment, Space
from ..arrays import Array, working_dtype
from ..errors import RefusedError, UsageError
from ..linear.checks import check_number, check_rank
from ..maps import Affine
from ..pairs import as_keys, mix
from ..survey import Survey, all_unit, space_of
from .clouds import Clouds, checked_seeds, finite_rows, sampled_rows
from .csls import csls, mutual_pairs
from .refine import EXACT, agreement, holds_out, mutual_share, rank_share, refine, sharpen
from .signatures import by_signatures

__all__ = ["NoEvidenceError", "UnpairedAligner"]

# Measured, maps found again on halves from 60 pairs: right maps of 7,000 glosses a side .60 of rows (vecmap), of 4,000
# .40; a wrong one of 4,000 .02; glosses against LSA .02, a Gaussian of the same spectrum .01, shuffled columns .00;
# planted clouds, 5 pairs, .00 to .02. All but the first and the last with 10 rounds in place of 20.
AGREED = 0.15
# So many pairs a side are named to find a map again: one for six dims, so that the pairs by themselves cannot carry a
# wrong map over (60 of 24 dims do: halves of unrelated clouds then agree on .2 to .4 of rows), at most 60, at least 5.
DIMS_A_PAIR = 6
FEWEST_NAMED, MOST_NAMED = 5, 60
NAMING = 2000  # rows a side among which they are named
# Hidden seeds count as found among the nearest 5%. That half of them are by chance has p = .001 for 5 seeds, 1e-8 for
# 20. Measured: all of 20 and of 10 right seeds of real spaces, 0 or 1 of wrong ones.
NEAR = 0.05
FOUND = 0.5
FOLDS = 3
FEWEST_HIDDEN = 5


class NoEvidenceError(RefusedError):
    """A map was found and nothing speaks for it."""


@dataclass(frozen=True)
class UnpairedAligner(Aligner):
    """A method for rows that do not correspond. A new one writes `start`; all are refined alike (`refine`).

    ``limit``: at most so many rows a side are used, a sample that depends on the seed alone; known pairs are always in
    it. Memory is a few ``batch`` by ``limit`` matrices of float32. ``rounds``, ``batch``, ``neighbours``,
    ``seed_weight`` and ``blend`` are those of the refinement.

    The map is kept only if there is evidence for it. With five known pairs or more: each third of them is hidden in its
    turn, and maps fitted on the others must bring half of all hidden ones near their mates. (That maps fitted with the
    same seeds agree would prove nothing: wrong seeds lead all of them to the same wrong place.) With fewer: the map is
    found again on two halves that share no row, each time from a few pairs that it names there (`found_again`), and
    both must agree on the nearest targets of 15% of rows. Where the rows of both sides are the same items, nearest
    neighbours that are mutual for nine rows in ten, and stay so by maps fitted without them, are evidence too.
    """

    needs: ClassVar[Needs] = "no pairs"
    affine: ClassVar[bool] = True
    fewest_seeds: ClassVar[int] = 0

    limit: int = 10_000
    rounds: int = 20
    batch: int = 4000
    neighbours: int = 8
    seed_weight: float = 5.0
    blend: float = 0.5

    def __post_init__(self) -> None:
        for field in ("limit", "rounds", "batch", "neighbours"):
            check_rank(f"{self.name}: {field}", getattr(self, field))
        check_number(f"{self.name}: seed_weight", self.seed_weight, 0)
        check_number(f"{self.name}: blend", self.blend, 0, 1, above=True)

    @abstractmethod
    def start(self, clouds: Clouds, seed: int) -> Tensor:
        """A first orthogonal map ``(p, q)`` of centred unit rows."""

    def solve(self, clouds: Clouds, seed: int) -> Tensor:
        """The start, refined."""
        return self.refined(self.start(clouds, seed), clouds, seed)

    def refined(self, first: Tensor, clouds: Clouds, seed: int) -> Tensor:
        """The map ``first`` refined; exactly, where both sides hold the same items."""
        first = sharpen(first, clouds)
        if mutual_share(first, clouds) >= EXACT:
            return first
        return sharpen(self.pulled(first, clouds, seed), clouds)

    def pulled(self, first: Tensor, clouds: Clouds, seed: int) -> Tensor:
        """`refine` with the parameters of this method."""
        return refine(
            first,
            clouds,
            rounds=self.rounds,
            batch=self.batch,
            k=self.neighbours,
            seed_weight=self.seed_weight,
            blend=self.blend,
            seed=seed,
        )

    def align(self, survey: Survey) -> Alignment:
        """Raises `UsageError`: pairs are what these methods do without."""
        raise UsageError(
            f"{self.name} aligns rows that are not paired, and was given pairs; use fit_unpaired (suture fit "
            "--unpaired, or --seeds FILE), or a method for pairs."
        )

    def fit_unpaired(
        self,
        x: Array,
        y: Array,
        *,
        seeds: Array | Sequence[tuple[int, int]] | None = None,
        keys: tuple[Array, Array] | None = None,
        seed: int = 0,
        canaries: bool = True,
    ) -> Alignment:
        """Align ``x`` ``(n, p)`` to ``y`` ``(m, q)``, whose rows are in no common order.

        ``seeds`` ``(s, 2)``: row numbers in x and y of items that are known to be the same. ``keys``: integers that
        name the rows of either side. Raises `RefusedError` with the evidence where the spaces cannot be aligned.
        """
        rows = (finite_rows(x, "x"), finite_rows(y, "y"))
        pairs = checked_seeds(seeds, len(rows[0]), len(rows[1]))
        if len(pairs) < self.fewest_seeds:
            raise RefusedError(
                f"{self.name}: expected at least {self.fewest_seeds} seed pairs, got {len(pairs)}; name more pairs "
                "(--seeds), or try a method that needs none (--unpaired)."
            )
        names = (keys[0], keys[1]) if keys is not None else tuple(mix(torch.arange(len(r))) for r in rows)
        chosen = [sampled_rows(len(r), self.limit, seed + i, pairs[:, i]) for i, r in enumerate(rows)]
        places = torch.stack([torch.searchsorted(c, pairs[:, i].contiguous()) for i, c in enumerate(chosen)], 1)
        some = [r[c].to(working_dtype(r.dtype)) for r, c in zip(rows, chosen, strict=True)]
        clouds = Clouds.of(some[0], some[1], places)
        weight, facts = self.proven(clouds, seed)
        mapping = Affine.between(clouds.mean_x, weight.double(), clouds.mean_y)
        dtype = torch.promote_types(some[0].dtype, some[1].dtype)
        spaces = {
            side: described(r, as_keys(k)[c], seed, canaries)
            for side, r, k, c in zip(("source", "target"), some, names, chosen, strict=True)
        }
        rest = {
            "method": self.name,
            "params": self.parameters(),
            "rows": len(pairs),
            "unpaired_rows": [len(r) for r in some],
            **facts,
        }
        return Alignment(Alignment.one_sided(mapping.to(dtype)).maps, {}, spaces, rest)

    def proven(self, clouds: Clouds, seed: int) -> tuple[Tensor, dict[str, Any]]:
        """The map with its evidence. Raises `RefusedError` where there is none."""
        weight = self.solve(clouds, seed)
        mutual = mutual_share(weight, clouds)
        facts: dict[str, Any] = {"mutual_neighbours": round(mutual, 4), "agreement": None, "seeds_found": None}
        if mutual >= EXACT and holds_out(weight, clouds, seed) >= EXACT:
            return weight, facts
        if len(clouds.seeds) >= FEWEST_HIDDEN:
            return weight, facts | {"seeds_found": self.found_seeds(clouds, seed)}
        halves = [clouds.half(part, seed) for part in (0, 1)]
        again = [self.found_again(weight, half, seed + 1 + part) for part, half in enumerate(halves)]
        agreed = agreement(again[0], again[1], clouds, seed)
        facts["agreement"] = round(agreed, 4)
        if agreed < AGREED:
            raise NoEvidenceError(
                f"{self.name}: these spaces could not be aligned. Two maps, found again on separate halves from a few "
                f"pairs that the map names there, agree on the nearest targets of {agreed:.1%} of rows ({AGREED:.0%} "
                f"is required), and {mutual:.0%} of rows are mutual nearest neighbours. {self.advice}"
            )
        return weight, facts

    def found_again(self, weight: Tensor, half: Clouds, seed: int) -> Tensor:
        """A map of ``half`` for which nothing of ``weight`` is known but a few of the mutual neighbours it makes."""
        few = max(FEWEST_NAMED, min(MOST_NAMED, min(weight.shape) // DIMS_A_PAIR))
        named = mutual_pairs(csls(half.x[:NAMING] @ weight, half.y[:NAMING]))[:few]
        first = by_signatures(replace(half, seeds=named), self.neighbours, self.seed_weight)
        return self.pulled(first, half, seed)

    def found_seeds(self, clouds: Clouds, seed: int) -> float:
        """Share of the seeds that come near their mates by maps that were fitted without them.

        Raises `RefusedError` where it is less than half. A third of the rounds will do: near is a twentieth of all.
        """
        quick = replace(self, rounds=max(1, self.rounds // 3))
        order = torch.randperm(len(clouds.seeds), generator=torch.Generator().manual_seed(seed))
        near = []
        for hidden in order.tensor_split(FOLDS):
            known = order[~torch.isin(order, hidden)]
            weight = quick.solve(replace(clouds, seeds=clouds.seeds[known]), seed)
            near.append(rank_share(weight, clouds, clouds.seeds[hidden]) < NEAR)
        found = int(torch.cat(near).sum())
        if found < FOUND * len(order):
            raise NoEvidenceError(
                f"{self.name}: these spaces could not be aligned. Of {len(order)} seed pairs, each hidden in its turn, "
                f"{found} came among the nearest {NEAR:.0%} of rows to their mates ({FOUND:.0%} of them are required, "
                f"{NEAR:.0%} do by chance). {self.advice}"
            )
        return found / len(order)

    @property
    def advice(self) -> str:
        """What to try when the spaces could not be aligned."""
        return "Give more rows of both spaces, or name some known pairs (--seeds FILE; 20 can be enough)."


def described(rows: Tensor, keys: Tensor, seed: int, canaries: bool) -> Space:
    """What is remembered of a space of which these ``rows`` ``(n, dim)`` are a sample."""
    total = int(mix(keys).sum()) & (1 << 64) - 1
    order = mix(keys, seed).argsort(stable=True)
    mean = rows.double().mean(0)
    return space_of(rows[order], keys[order], mean, all_unit(rows), f"{len(keys)}:{total:016x}", canaries)
