"""MultiwayAligner: what the methods have in common that align several spaces at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..aligner import Aligner, Needs
from ..alignment import Alignment
from ..arrays import Array
from ..errors import RefusedError, UsageError
from ..maps import Affine
from ..pairs import mix
from ..survey import Survey, all_unit, space_of
from .many import Gathered, Many
from .moments import ManyBuilder, ManyMoments

__all__ = ["MultiwayAligner", "Sample", "affine", "any_to_any", "ranks"]

SAMPLE_ROWS = 4000
HELD_ITEMS = 2000
FEWEST_ITEMS = 50


@dataclass(frozen=True)
class MultiwayAligner(Aligner):
    """A method for two spaces or more. A new one writes `solve`.

    Items may be missing from some spaces, as long as the spaces hang together by the items they share. Memory grows
    with the squared sum of the dims, not with rows: one pass gathers `ManyMoments`.
    """

    needs: ClassVar[Needs] = "many spaces"
    affine: ClassVar[bool] = True

    @abstractmethod
    def solve(self, moments: ManyMoments) -> Alignment:
        """The map of every space into the shared one, and the ways back."""

    def candidates(self, moments: ManyMoments) -> Sequence[Self]:
        """This aligner with what was left open spread out; the first of the best on held-out items is taken."""
        return (self,)

    def align(self, survey: Survey) -> Alignment:
        """Raises `UsageError`: a survey is of two spaces only."""
        raise UsageError(f"{self.name} aligns many spaces; use fit_spaces (suture fit A B C --method {self.name}).")

    def base_of(self, names: Sequence[str]) -> str | None:
        """The space that all others are joined to, where there is one."""
        return None

    def check(self, moments: ManyMoments, when: str = "") -> None:
        """Raises `RefusedError` where the spaces cannot be joined."""
        moments.require_connected(self.name + when)
        moments.require_variance(self.name)

    def fit_spaces(
        self, spaces: Mapping[str, Array], keys: Mapping[str, Array] | None = None, *, seed: int = 0
    ) -> Alignment:
        """Align ``spaces`` ``(n_k, p_k)`` by name; ``keys[name]`` ``(n_k,)`` says which item each row is.

        Without keys row i is the same item in all. Raises `RefusedError` where spaces share no items.
        """
        return self.fit_many(Gathered.of(spaces, keys), seed=seed)

    def fit_many(self, many: Many, *, seed: int = 0, canaries: bool = True) -> Alignment:
        """Align a stream of items, with what held-out items say of it in the provenance."""
        sample = Sample.of(many, self.base_of(tuple(many.dims)), seed=seed)
        alignment, settled, held_out = self.settled(sample)
        facts = {
            "method": self.name,
            "params": settled.parameters(),
            "rows": sample.moments.items,
            "space_rows": {name: int(sample.moments.rows(name)) for name in sample.moments.names},
            "any_to_any": held_out,
            **alignment.provenance,
        }
        fitted = alignment.to(sample.moments.dtype)
        return Alignment(fitted.maps, fitted.back, sample.spaces(canaries), facts)

    def settled(self, sample: Sample) -> tuple[Alignment, Self, dict[str, Any] | None]:
        """The alignment of all items, the aligner chosen on held-out ones, and how any-to-any finds those."""
        total = sample.moments
        self.check(total)
        tried = self.candidates(total)
        held = sample.held_out()
        if held is None:
            if len(tried) > 1:
                raise RefusedError(
                    f"{self.name}: expected at least {FEWEST_ITEMS} items to choose a parameter on held-out ones, got "
                    f"{total.items}; set it (--set rank=10)."
                )
            return self.solve(total), self, None
        kept, items = held
        self.check(kept, " without the items held out")
        rated = [any_to_any(each.solve(kept), items) for each in tried]
        means = [sum(r["recall@1"] for r in table.values()) / max(1, len(table)) for table in rated]
        best = means.index(max(means))
        return tried[best].solve(total), tried[best], rated[best]


@dataclass(frozen=True, eq=False)
class Sample:
    """The moments of all items, and of each space the rows whose keys' dice fell lowest, the same items in all."""

    moments: ManyMoments
    rows: Mapping[str, Tensor]
    keys: Mapping[str, Tensor]
    dice: Mapping[str, Tensor]
    sums: Mapping[str, int]
    base: str | None

    @classmethod
    def of(cls, many: Many, base: str | None, *, seed: int) -> Sample:
        """One pass over ``many``."""
        builder = ManyBuilder(many.dims, base=base)
        kept: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        sums = dict.fromkeys(many.dims, 0)
        for block in many.blocks():
            builder.add(block)
            for name, some in block.rows.items():
                own = block.keys[block.present[name]]
                sums[name] += int(mix(own).sum())
                new = (some, own, mix(own, seed))
                both = (
                    new if name not in kept else tuple(torch.cat([a, b]) for a, b in zip(kept[name], new, strict=True))
                )
                low = both[2].argsort(stable=True)[:SAMPLE_ROWS]
                kept[name] = (both[0][low], both[1][low], both[2][low])
        missing = [name for name in many.dims if name not in kept or not len(kept[name][0])]
        if missing:
            raise RefusedError(f"expected rows in every space, got none in {', '.join(missing)}.")
        rows, keys, dice = [{name: k[i] for name, k in kept.items()} for i in range(3)]
        return cls(builder.moments(), rows, keys, dice, sums, base)

    def held_out(self) -> tuple[ManyMoments, Gathered] | None:
        """A tenth of the items, at most 2,000, and the moments of the others; None where there are fewer than 50."""
        if self.moments.items < FEWEST_ITEMS:
            return None
        every = torch.unique(torch.cat(list(self.dice.values())))
        count = min(HELD_ITEMS, self.moments.items // 10)
        chosen = {name: dice <= every[count - 1] for name, dice in self.dice.items()}
        items = Gathered.of(
            {name: rows[chosen[name]] for name, rows in self.rows.items()},
            {name: keys[chosen[name]] for name, keys in self.keys.items()},
        )
        builder = ManyBuilder(self.moments.dims, self.moments.shift, self.base)
        for block in items.blocks():
            builder.add(block)
        return self.moments - builder.moments(), items

    def spaces(self, canaries: bool) -> dict[str, Any]:
        """What is remembered of each space."""
        found = {}
        for name in self.moments.names:
            mean = self.moments.mean(name) + self.moments.shift[name]
            rows, keys = self.rows[name], self.keys[name]
            print_ = f"{int(self.moments.rows(name))}:{self.sums[name] & (1 << 64) - 1:016x}"
            found[name] = space_of(rows, keys, mean, all_unit(rows), print_, canaries)
        return found


def any_to_any(alignment: Alignment, items: Gathered) -> dict[str, dict[str, float]]:
    """For every ordered pair of spaces: R@1 of mapped rows of one among the rows of the other, of shared items.

    Both are compared about their means, by cosine, in the space that is to be reached.
    """
    found: dict[str, dict[str, float]] = {}
    for a, b in permutations(items.rows, 2):
        both = (items.places[a] >= 0) & (items.places[b] >= 0)
        if int(both.sum()) < 2 or not alignment.translates(a, b):
            continue
        mapped = alignment.translate(a, b)(items.rows[a][items.places[a][both]].double())
        there = items.rows[b][items.places[b][both]].double()
        x, y = (normalize(rows - there.mean(0), dim=1) for rows in (mapped, there))
        own = torch.arange(len(x))
        found[f"{a} -> {b}"] = {
            "recall@1": round(float(((x @ y.T).argmax(1) == own).double().mean()), 4),
            "cosine": round(float((x * y).sum(1).mean()), 4),
            "items": len(x),
        }
    return found


def affine(weight: Tensor, bias: Tensor, shift: Tensor) -> Affine:
    """``x -> (x - shift) @ weight + bias``."""
    return Affine(weight, bias - shift @ weight)


def ranks(moments: ManyMoments) -> list[int]:
    """Ranks of a shared space to choose among: 16, doubled, below the narrowest space's dims, and those."""
    most = min(moments.dims.values())
    return [*(k for k in (16, 32, 64, 128, 256, 512) if k < most), most]
