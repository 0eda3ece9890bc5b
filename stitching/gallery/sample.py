"""Which items to embed by the new encoder: pairs to fit on, and a pool that knows what queries should find."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...aligners.errors import RefusedError
from ...aligners.measures.retrieval import search
from ...aligners.pairs import mix
from ..dumps import Dump, atomic_write, hash_ids
from ..rows import rows_of, screened
from .inputs import DEPTH, FEWEST_POOLED, SMALLEST
from .split import SHARES, in_test, split_of

__all__ = ["RECALLED", "Sample", "draw", "lacking", "pairs_wanted", "pool_wanted", "write_sample"]

CELLS = 20
LEARNED_ON = 5000
FEWEST_PAIRS = 2000
FEWEST_FITTED = 20  # pairs; a map is chosen on folds of them
RECALLED = 50  # rows that each old query finds today
SPLITS = tuple(SHARES)


@dataclass(frozen=True, eq=False)
class Sample:
    """Chosen gallery ``rows`` ``(n,)``, each with its ``split`` (0 fit, 1 tune, 2 test), ``stratum``, ``chance`` to be
    in the pool (0 where it is in none), and whether it is one of the ``pairs``.
    """

    rows: Tensor
    split: Tensor
    stratum: list[str]
    chance: Tensor
    pairs: Tensor

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each purpose takes."""
        of = {name: int((self.pairs & (self.split == i)).sum()) for i, name in enumerate(SPLITS)}
        return {**of, "pool": int((self.chance > 0).sum()), "all": len(self.rows)}


def pairs_wanted(rows: int, dim: int) -> tuple[int, str]:
    """How many pairs, and why."""
    wanted = max(FEWEST_PAIRS, 10 * dim)
    why = (
        f"10 for each of the {dim} dims, at least {FEWEST_PAIRS}: held-out scores hardly rise from there on, as the "
        "learning curve of the fit will tell"
    )
    return min(rows, wanted), why if wanted <= rows else f"all there are, {wanted} would be wanted: {why}"


def pool_wanted(rows: int) -> tuple[int, str]:
    """How many rows drawn evenly, and why: at most half, since no pair of the pool is fitted."""
    wanted = max(-(-rows * FEWEST_POOLED // DEPTH), DEPTH)
    if 2 * wanted > rows:
        return rows // 2, "half of all rows, the other half is fitted on"
    return wanted, f"so that about {FEWEST_POOLED} of each query's {DEPTH} true neighbours are among them, drawn evenly"


def lacking(rows: int, sample: Sample, *, queries: bool) -> str | None:
    """Why the sample alone makes no estimate of a gallery of so many rows, None where it does.

    ``queries``: there are some; else held-out pairs must ask.
    """
    test = torch.eq(sample.split, SPLITS.index("test"))
    fitted = sample.pairs & (sample.chance == 0) & (queries | ~test)
    asking = int((sample.pairs & test).sum())
    if rows < SMALLEST:
        return f"of fewer than {SMALLEST} rows any ranking is right: embed them all anew"
    if int(fitted.sum()) < FEWEST_FITTED:
        return (
            f"{int(fitted.sum())} pairs outside the pool are left to fit on, at least {FEWEST_FITTED} are needed; give "
            "others as --old-pairs and --new-pairs"
        )
    if not queries and asking < SMALLEST:
        return f"{asking} pairs are held out to query with, at least {SMALLEST} are needed"
    return None


def draw(
    gallery: Dump,
    *,
    pairs: int,
    pool: int,
    strata: Sequence[str] | None = None,
    groups: Tensor | None = None,
    old_queries: Dump | None = None,
    seed: int = 0,
) -> Sample:
    """Draw the rows. ``strata`` and ``groups`` ``(rows,)`` are those of the gallery, cells of it by k-means where none
    are given. The pool is an even draw of ``pool`` rows and, with ``old_queries``, the first 50 rows that each of them
    finds today. Pairs are drawn by stratum in proportion to its size, whole groups at a time, among the rows that are
    not in the pool or held out for the test: what is judged by is not fitted. There may be fewer than ``pairs``.

    What an item is for is fixed by the hash of its id (its group, where there is one), so a second draw agrees.
    """
    if pairs > gallery.rows or pool > gallery.rows:
        raise RefusedError(
            f"{gallery.name}: expected at most {gallery.rows} rows to be asked for, got {pairs}, {pool}."
        )
    keys = keys_of(gallery)
    units = keys if groups is None else groups
    labels, names = strata_of(gallery, strata, seed)
    chance = torch.zeros(gallery.rows)
    if pool:
        dice = mix(keys, seed + 23)
        chance[dice.argsort()[:pool]] = pool / gallery.rows
    if old_queries is not None:
        chance[recalled(gallery, old_queries)] = 1.0
    free = ((chance == 0) | in_test(units)).nonzero()[:, 0]
    chosen = torch.zeros(gallery.rows, dtype=torch.bool)
    if len(free):
        chosen[free] = stratified(labels[free], len(names), units[free], min(pairs, len(free)), seed)
    rows = (chosen | (chance > 0)).nonzero()[:, 0]
    return Sample(rows, split_of(units[rows]), [names[i] for i in labels[rows].tolist()], chance[rows], chosen[rows])


def keys_of(gallery: Dump) -> Tensor:
    """The hash ``(rows,)`` of every id, as pairs have it; without ids of every row number, which then serves as one."""
    if gallery.ids is None:
        return torch.from_numpy(hash_ids(np.arange(gallery.rows)).view(np.int64))
    return torch.from_numpy(np.concatenate([hash_ids(block).view(np.int64) for block in gallery.ids.blocks()]))


def strata_of(gallery: Dump, strata: Sequence[str] | None, seed: int) -> tuple[Tensor, list[str]]:
    """The stratum ``(rows,)`` of each row, and the names of the strata."""
    if strata is not None:
        names, of = np.unique(np.array(strata, object).astype(str), return_inverse=True)
        return torch.from_numpy(of), names.tolist()
    from sklearn.cluster import KMeans

    some = rows_of(gallery, torch.linspace(0, gallery.rows - 1, min(gallery.rows, LEARNED_ON)).long())
    cells = KMeans(min(CELLS, len(some)), n_init=1, random_state=seed).fit(some.numpy())
    of = np.concatenate([cells.predict(block.numpy()) for block in screened(gallery)])
    return torch.from_numpy(of.astype(np.int64)), [f"cell {i + 1}" for i in range(cells.n_clusters)]


def stratified(labels: Tensor, strata: int, units: Tensor, wanted: int, seed: int) -> Tensor:
    """Which rows ``(count,)`` are drawn: whole units in a random order until each stratum has its share.

    A unit counts for the stratum of its first row; the last unit may overshoot.
    """
    _, unit, size = torch.unique(units, return_inverse=True, return_counts=True)
    first = torch.full((len(size),), len(units)).scatter_reduce_(0, unit, torch.arange(len(units)), "amin")
    of = labels[first]
    quota = shares(torch.bincount(labels, minlength=strata), wanted)
    order = mix(units[first], seed + 7).argsort()
    order = order[of[order].argsort(stable=True)]
    before = size[order].cumsum(0) - size[order]
    start = torch.zeros(strata, dtype=torch.int64).scatter_reduce_(0, of[order], before, "amin", include_self=False)
    drawn = torch.zeros(len(size), dtype=torch.bool)
    drawn[order[before - start[of[order]] < quota[of[order]]]] = True
    return drawn[unit]


def shares(sizes: Tensor, wanted: int) -> Tensor:
    """``wanted`` split in proportion to ``sizes``, by largest remainders."""
    exact = sizes.double() * wanted / sizes.sum()
    quota = exact.floor().long()
    left = wanted - int(quota.sum())
    quota[(exact - quota).argsort(descending=True, stable=True)[:left]] += 1
    return quota


def recalled(gallery: Dump, old_queries: Dump) -> Tensor:
    """The rows that today's queries find among their first 50."""
    queries = torch.cat([block.clone() for block in screened(old_queries)])
    found = torch.unique(search(queries, screened(gallery), k=RECALLED).top)
    return found[found >= 0]


def records(gallery: Dump, sample: Sample, texts: Sequence[Any] | None) -> Iterator[dict[str, Any]]:
    """One object a row."""
    rows = sample.rows.tolist()
    ids = rows if gallery.ids is None else gallery.ids.take(sample.rows.numpy()).tolist()
    split, chance, pairs = sample.split.tolist(), sample.chance.tolist(), sample.pairs.tolist()
    for i, row in enumerate(rows):
        out = {"id": ids[i], "row": row, "split": SPLITS[split[i]], "stratum": sample.stratum[i]}
        out |= {"pair": pairs[i], "chance": chance[i]}
        yield out if texts is None else {**out, "text": texts[row]}


def write_sample(
    gallery: Dump, sample: Sample, path: Path, *, texts: Sequence[Any] | None = None, overwrite: bool = False
) -> None:
    """Write the sample as JSON lines: id, row, split, stratum, pair, chance, and the text where there is one."""
    with atomic_write(path, overwrite) as file:
        for record in records(gallery, sample, texts):
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
