"""Dumps whose rows do not correspond: fitting a map without pairs, and finding which rows belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..aligners.alignment import Alignment
from ..aligners.arrays import working_dtype
from ..aligners.errors import RefusedError, UsageError
from ..aligners.measures.local_cka import local_cka
from ..aligners.pairs import as_keys
from ..aligners.recognise import require_side
from ..aligners.transport.sinkhorn import hard_assignment, partial_plan, plan_entropy, sinkhorn, unbalanced
from ..aligners.unpaired.base import UnpairedAligner
from ..aligners.unpaired.clouds import checked_seeds, sampled_rows
from ..aligners.unpaired.csls import crowding
from .apply import serving_map
from .dumps import BadRows, Dump, Screen, hash_ids
from .dumps.pairs import join_table
from .tables import write_table

__all__ = ["Matches", "Plan", "fit_unpaired", "known_pairs", "match", "match_by_anchors", "write_matches"]

BLOCK = 2048
MOST_CELLS = 100_000_000
PLAN_CELLS = 10_000_000  # of a transport plan, of which several float64 copies are held
KNOWN = 1.0
LEFT_OUT = 0.5  # of what the plan moves of the row that it moves most of: a row of less has no mate


@dataclass(frozen=True, eq=False)
class Matches:
    """Row ``source[i]`` of one dump and row ``target[i]`` of the other ``(n,)``, with ``confidence`` ``(n,)``.

    Confidence is the CSLS score of the pair minus that of the best other target: 0 is a coin flip, below 0 another
    target was nearer but is taken (one-to-one). Pairs that were known have confidence 1. ``mutual``: share of the pairs
    where the source is also the target's best. ``spread``: over how many targets a transport plan lays a row, from 1
    on; None where none was made.
    """

    source: Tensor
    target: Tensor
    confidence: Tensor
    mutual: float
    spread: float | None = None


@dataclass(frozen=True)
class Plan:
    """How a transport plan matches, where all rows compete: ``eps``, entropy in units of cosine.

    Balanced: every row has a mate. ``share``: that share of the rows has one, and which is the plan's choice (partial
    transport). ``rho``: a row may stay alone at that price, in units of cosine (unbalanced transport).
    """

    eps: float = 0.05
    share: float | None = None
    rho: float | None = None

    def __post_init__(self) -> None:
        if self.share is not None and self.rho is not None:
            raise UsageError("a plan is partial (share) or unbalanced (rho): give one of the two.")

    def of(self, cosine: Tensor) -> Tensor:
        """The plan ``(n, m)``, in shares of a row's mass: rows add up to at most 1."""
        n, cost = len(cosine), cosine.max() - cosine
        if self.share is not None:
            return partial_plan(cost, self.eps, self.share) * n
        if self.rho is not None:
            return unbalanced(cost, self.eps, self.rho) * n
        return sinkhorn(cost, self.eps) * n


def known_pairs(source: Dump, target: Dump, path: Path) -> Tensor:
    """Row numbers ``(s, 2)`` of the pairs in a table with the columns source and target: ids, or row numbers.

    Raises `RefusedError` on ids that are not there and on rows that are named twice.
    """
    joined, _ = join_table(source, target, path)
    pairs = [torch.from_numpy(np.array(block, np.int64)) for block in joined.blocks(BLOCK)]
    found = torch.cat(pairs) if pairs else torch.empty((0, 2), dtype=torch.int64)
    try:
        return checked_seeds(found, source.rows, target.rows)
    except RefusedError as error:
        raise RefusedError(f"{path}: {error}") from error


def fit_unpaired(
    aligner: UnpairedAligner,
    source: Dump,
    target: Dump,
    *,
    seeds: Tensor | None = None,
    seed: int = 0,
    bad_rows: BadRows,
    canaries: bool = True,
) -> Alignment:
    """Align two dumps whose rows do not correspond, but for the known pairs ``seeds`` ``(s, 2)``.

    Reads at most ``aligner.limit`` rows a side. Raises `RefusedError` where the spaces cannot be aligned.
    """
    pairs = torch.empty((0, 2), dtype=torch.int64) if seeds is None else seeds
    sides = []
    for i, dump in enumerate((source, target)):
        chosen = sampled_rows(dump.rows, aligner.limit, seed + i, pairs[:, i])
        rows, kept = good_rows(dump, chosen, bad_rows)
        lost = pairs[~torch.isin(pairs[:, i], kept), i]
        if len(lost):
            raise RefusedError(f"{dump.name}: the known rows {lost.tolist()[:5]} are bad rows; name other pairs.")
        sides.append((rows, kept, row_keys(dump, kept)))
    (x, here, keys_x), (y, there, keys_y) = sides
    places = torch.stack([torch.searchsorted(k, pairs[:, i].contiguous()) for i, k in enumerate((here, there))], 1)
    return aligner.fit_unpaired(x, y, seeds=places, keys=(keys_x, keys_y), seed=seed, canaries=canaries)


def good_rows(dump: Dump, chosen: Tensor, policy: BadRows) -> tuple[Tensor, Tensor]:
    """The ``chosen`` rows of a dump ``(n, dim)`` in working precision, and their numbers, bad ones left out."""
    with Screen(policy, dump) as screen:
        block = dump.gather(chosen.numpy())
        mask = screen.keep((block,), (chosen.numpy(),))
    kept = torch.ones(len(chosen), dtype=torch.bool) if mask is None else torch.from_numpy(mask)
    rows = torch.from_numpy(block)[kept]
    if not len(rows):
        raise RefusedError(f"{dump.name}: no good row is left.")
    return rows.to(working_dtype(rows.dtype)), chosen[kept]


def row_keys(dump: Dump, rows: Tensor) -> Tensor:
    """A key for each of the named rows: of its id, else of its number."""
    names = rows.numpy() if dump.ids is None else dump.ids.take(rows.numpy())
    if names.dtype == object and len(names) and isinstance(names[0], int):
        names = names.astype(np.uint64 if max(names) >= 1 << 63 else np.int64)
    return as_keys(hash_ids(names))


def match(
    alignment: Alignment,
    source: Dump,
    target: Dump,
    *,
    seeds: Tensor | None = None,
    plan: Plan | None = None,
    one_to_one: bool = False,
    bad_rows: BadRows,
    familiar: bool = True,
    advance: Callable[[int], None] = lambda rows: None,
) -> Matches:
    """The best target row of each source row in the target's space; both dumps are held in memory.

    By CSLS, or by a transport ``plan``, which leaves rows out that it moves little of. ``one_to_one``: the
    assignment of the highest total score (Hungarian), at most 10^8 pairs of rows. ``seeds`` keep their mates.
    ``familiar``: check that the rows behave like those the map was fitted on. Cost n m dims.
    """
    sides = []
    for side, dump in (("source", source), ("target", target)):
        rows, kept = good_rows(dump, torch.arange(dump.rows), bad_rows)
        require_side(alignment, side, rows, dump.name, behaviour=familiar)
        mapping, _ = serving_map(alignment, side)
        sides.append((normalize(mapping(rows).float(), dim=1), kept))
    (x, here), (y, there) = sides
    # Both clouds are compared about the mean of the targets: a common direction makes all cosines alike.
    centre = y.mean(0)
    x, y = normalize(x - centre, dim=1), normalize(y - centre, dim=1)
    known = torch.empty((0, 2), dtype=torch.int64) if seeds is None else seeds
    known = torch.stack([torch.searchsorted(k, known[:, i].contiguous()) for i, k in enumerate((here, there))], 1)
    if plan is not None:
        require_cells("a transport plan", x, y, PLAN_CELLS)
        shares = plan.of(x @ y.T)
        return chosen(shares, here, there, known, one_to_one=one_to_one, spread=plan_entropy(shares))
    if one_to_one:
        require_cells("--one-to-one", x, y, MOST_CELLS)
        rows, best, confidence, mutual = assigned(torch.cat([block for _, block in score_blocks(x, y)]), known)
    else:
        rows = torch.arange(len(x))
        best, confidence, mutual = nearest_targets(x, y, known, advance)
    return Matches(here[rows], there[best], confidence, mutual)


def match_by_anchors(
    source: Dump, target: Dump, anchors: Tensor, *, one_to_one: bool = False, bad_rows: BadRows
) -> Matches:
    """The target row of each source row that fits best to the known pairs ``anchors`` ``(s, 2)``: no map is made.

    By local CKA (Maniparambil et al. 2024), with the anchors themselves among the rows, which keep their mates.
    """
    sides = [good_rows(dump, torch.arange(dump.rows), bad_rows) for dump in (source, target)]
    (x, here), (y, there) = sides
    require_cells("local CKA", x, y, PLAN_CELLS)
    known = torch.stack([torch.searchsorted(k, anchors[:, i].contiguous()) for i, k in enumerate((here, there))], 1)
    scores = local_cka(x[known[:, 0]], y[known[:, 1]], x, y)
    return chosen(scores, here, there, known, one_to_one=one_to_one)


def require_cells(what: str, x: Tensor, y: Tensor, most: int) -> None:
    """Raises `RefusedError` where all rows against all are more than memory should hold."""
    if len(x) * len(y) > most:
        raise RefusedError(
            f"{what} compares all rows with all: expected at most {most:.0e} pairs of rows, got {len(x)} x {len(y)}. "
            "Leave it off, or match parts of the dumps."
        )


def chosen(
    scores: Tensor, here: Tensor, there: Tensor, known: Tensor, *, one_to_one: bool, spread: float | None = None
) -> Matches:
    """The best target of each row by ``scores`` ``(n, m)``, spent by it; of a plan rows of little mass are left out."""
    mass = scores.sum(1)
    if one_to_one:
        rows, best, confidence, mutual = assigned(scores, known)
    else:
        two = scores.topk(min(2, scores.shape[1]), dim=1)
        rows, best, confidence = torch.arange(len(scores)), two.indices[:, 0], two.values[:, 0] - two.values[:, -1]
        best[known[:, 0]], confidence[known[:, 0]] = known[:, 1], KNOWN
        mutual = float((scores.argmax(0)[best] == rows).double().mean())
    if spread is not None:
        mated = (mass[rows] >= LEFT_OUT * mass.max()) | torch.isin(rows, known[:, 0])
        rows, best, confidence = rows[mated], best[mated], confidence[mated]
    return Matches(here[rows], there[best], confidence, mutual, spread)


def score_blocks(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """``2 cos - r_Y(x) - r_X(y)`` of blocks of rows of x against all of y, both of unit length."""
    crowds = torch.cat([crowding(x @ some.T, 10, 0) for some in torch.split(y, BLOCK)])
    for first in range(0, len(x), BLOCK):
        part = slice(first, first + BLOCK)
        cosine = x[part] @ y.T
        yield part, 2 * cosine - crowding(cosine, 10, 1)[:, None] - crowds


def nearest_targets(
    x: Tensor, y: Tensor, known: Tensor, advance: Callable[[int], None]
) -> tuple[Tensor, Tensor, float]:
    """The best row of y for each of x ``(n,)``, its margin over the second ``(n,)``, and the share that is mutual."""
    best, margin = torch.empty(len(x), dtype=torch.int64), torch.zeros(len(x))
    top_of_y, best_of_y = torch.full((len(y),), -torch.inf), torch.zeros(len(y), dtype=torch.int64)
    for part, scores in score_blocks(x, y):
        two = scores.topk(min(2, len(y)), dim=1)
        best[part] = two.indices[:, 0]
        margin[part] = two.values[:, 0] - two.values[:, -1]
        high = scores.max(0)
        better = high.values > top_of_y
        top_of_y = torch.where(better, high.values, top_of_y)
        best_of_y = torch.where(better, high.indices + part.start, best_of_y)
        advance(len(scores))
    best[known[:, 0]], margin[known[:, 0]] = known[:, 1], KNOWN
    mutual = float((best_of_y[best] == torch.arange(len(x))).double().mean())
    return best, margin, mutual


def assigned(scores: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """The one-to-one pairs of the highest total of ``scores`` ``(n, m)``, which are spent: a copy more may be 400 MB.

    Rows, columns, margins, and the share that is mutual.
    """
    weighed = scores.clone()
    weighed[known[:, 0], known[:, 1]] += 1e3  # more than any other choice could gain
    rows, columns = hard_assignment(weighed)
    mutual = float((scores.argmax(0)[columns] == rows).double().mean())
    own = scores[rows, columns]
    scores[rows, columns] = -torch.inf
    margin = own - scores[rows].amax(1) if scores.shape[1] > 1 else torch.zeros_like(own)
    margin[torch.isin(rows, known[:, 0])] = KNOWN
    return rows, columns, margin, mutual


def write_matches(path: Path, matches: Matches, source: Dump, target: Dump, *, overwrite: bool = False) -> None:
    """Write the columns source, target, confidence: ids where the dumps have them, else row numbers.

    The suffix is the format: .csv, .jsonl or .parquet. The file appears whole or not at all.
    """
    left, right = (
        rows.numpy() if dump.ids is None else dump.ids.take(rows.numpy())
        for rows, dump in ((matches.source, source), (matches.target, target))
    )
    confidence = matches.confidence.double().numpy()
    shown = confidence if path.suffix == ".parquet" else confidence.round(6)
    columns = {"source": left.tolist(), "target": right.tolist(), "confidence": shown.tolist()}
    write_table(path, columns, overwrite=overwrite)
