"""What an estimate is made from: the gallery, its known new vectors, the queries, and what speaks for an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...aligners.errors import RefusedError, UsageError
from ...aligners.pairs import PairStream, mix
from ...aligners.survey import KeptPairs
from ..dumps import Dump, IdColumn, Pairing, hash_ids
from ..rows import BLOCK, Reader, all_rows, answer_lists, partners, reader, rows_of
from ..stream import PairedDumps
from .shared import Listed, asked_pairs, pooled_pairs

__all__ = ["Gallery", "Inputs", "Pool", "Queries", "gather_inputs", "share_ids"]

SMALLEST = 11  # gallery rows: with ten, every ranking of ten rows is right
MOST_HELD_OUT = 1000  # held-out pairs that serve as queries
DEPTH = 200  # how deep rankings are kept
FEWEST_POOLED = 5  # rows of known truth that a query's true neighbours should hold


@dataclass(frozen=True, eq=False)
class Gallery(Reader):
    """The old gallery: ``count`` rows of ``dim``, block by block.

    ``keys`` tells the hashes of the ids, or of the numbers, of some rows; None where these rows are no gallery.
    """

    count: int
    dim: int
    name: str
    keys: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Pool:
    """New-model vectors of some gallery rows.

    ``weight`` ``(count,)``: one over the probability with which each gallery row came into the pool, 0 where it is not
    in it. ``rows`` finds the vectors of rows that are.
    """

    weight: Tensor
    rows: Callable[[Tensor], Tensor]
    dim: int

    @property
    def full(self) -> bool:
        """Whether every row is known."""
        return bool((self.weight > 0).all())

    @property
    def size(self) -> int:
        """How many rows are known."""
        return int((self.weight > 0).sum())

    @property
    def neighbours(self) -> int | None:
        """The k of overlap@k: 10, or more where the pool is thin; None where it is too thin for any."""
        known = self.weight[self.weight > 0]
        if not len(known):
            return None
        k = max(10, int(np.ceil(FEWEST_POOLED * float(known.max())))) if float(known.max()) > 1 else 10
        return k if k <= min(DEPTH, len(self.weight) // 2) or k == 10 else None


@dataclass(frozen=True, eq=False)
class Queries:
    """``new`` ``(m, q)`` and ``old`` ``(m, p)`` vectors of the queries; ``groups`` ``(m,)`` are drawn together.

    ``exclude`` ``(m,)``: the gallery row that a query is itself, or -1.
    """

    new: Tensor
    old: Tensor | None
    groups: Tensor | None
    exclude: Tensor | None
    kind: str


@dataclass(frozen=True, eq=False)
class Inputs:
    """All of it. ``query`` and ``row`` ``(r,)`` are the right answers, or None."""

    gallery: Gallery
    pool: Pool | None
    queries: Queries
    query: Tensor | None
    row: Tensor | None
    pairs: PairStream
    scope: Literal["gallery", "held-out pairs"]
    notes: tuple[str, ...]

    @property
    def full_pool(self) -> bool:
        """Whether the new vector of every gallery row is known."""
        return self.pool is not None and self.pool.full

    @property
    def evidence(self) -> str:
        """What speaks for an answer, in words."""
        kinds = [] if self.query is None else ["labels"]
        if self.pool is not None and self.pool.neighbours is not None:
            kinds.append("overlap with the new model's own neighbours" + ("" if self.pool.full else ", from a pool"))
        return " and ".join(kinds) + f"; {self.queries.kind}"

    def query_hash(self) -> str:
        """SHA-256 of the new query vectors in float32 and the right answers."""
        digest = sha256(self.queries.new.contiguous().numpy().tobytes())
        for part in (self.query, self.row):
            digest.update(b"" if part is None else part.numpy().tobytes())
        return digest.hexdigest()


def gather_inputs(
    gallery: Dump,
    pairing: Pairing,
    *,
    old_queries: Dump | None = None,
    new_queries: Dump | None = None,
    relevant: Sequence[Any] | None = None,
    pool: Dump | None = None,
    chances: Tensor | None = None,
    groups: Tensor | None = None,
    listed: Listed | None = None,
    by_row: bool = False,
) -> Inputs:
    """Put the inputs together, and say what of the evidence they make.

    ``pairing`` pairs old rows with new ones. ``pool``: dump of new vectors of gallery rows, by id or, where it has as
    many rows as the gallery, by row; ``chances`` ``(pool.rows,)`` are the probabilities with which its rows were
    drawn into it, else it counts as drawn evenly. ``listed``: the list that both were embedded from; then no pair of
    the pool is fitted. Raises `RefusedError` where sizes or ids do not fit, `UsageError` where something is missing.
    """
    if gallery.rows < SMALLEST:
        raise RefusedError(
            f"{gallery.name}: expected a gallery of at least {SMALLEST} rows, got {gallery.rows}. Any ranking of so "
            "few is right: embed them anew."
        )
    old_dim, new_dim = pairing.source.dim, pairing.target.dim
    for dump, dim, what in (
        (gallery, old_dim, "old"),
        (old_queries, old_dim, "old"),
        (new_queries, new_dim, "new"),
        (pool, new_dim, "new"),
    ):
        if dump is not None and dump.dim != dim:
            raise RefusedError(
                f"{dump.name}: expected {what} rows of {dim} dims like the pairs, these have {dump.dim}."
            )
    if relevant is not None and new_queries is None:
        raise UsageError("right answers (--relevant) go with --new-queries.")
    if old_queries is not None and new_queries is None:
        raise UsageError("--old-queries go with the same queries by the new encoder: --new-queries.")
    listed = Listed.nothing() if listed is None else listed
    own = reader(gallery)
    held = Gallery(own.blocks, own.rows, gallery.rows, gallery.dim, gallery.name, keys_of(gallery))
    known = None if pool is None else pooled(gallery, pool, chances, by_row=by_row)
    if new_queries is not None:
        queries = given_queries(new_queries, old_queries, groups, by_row=by_row)
        if relevant is None and (known is None or known.neighbours is None):
            raise UsageError(thin(known, gallery.rows))
        query = row = None
        if relevant is not None:
            query, row = answer_lists(relevant, new_queries.rows, gallery.rows)
        stream = PairedDumps(pairing)
        fit = KeptPairs(stream, lambda _, keys: listed.free(keys)) if len(listed.pooled) else stream
        notes = asked_pairs(new_queries, pairing) + flattered(gallery, pairing, known, listed.free)
        return Inputs(held, known, queries, query, row, fit, "gallery", notes)
    return from_pairs(held, gallery, known, pairing, groups, listed)


def share_ids(gallery: Dump, old_pairs: Dump, new_pairs: Dump, pool: Dump | None) -> None:
    """Give a dump that is read twice the ids that it was given once: the gallery as old pairs, the pool as new ones.

    Rows of a gallery without ids are named by their numbers, as `suture gallery sample` has listed them, where the
    gallery is itself given as the old rows of the pairs, and the new rows have integer ids: these can be nothing else.
    """
    for given, again in ((gallery, old_pairs), (pool, new_pairs)):
        if given is not None and again.ids is None and again.path == given.path and again.rows == given.rows:
            again.ids = given.ids
    new = new_pairs.ids
    if gallery.ids is not None or gallery.path != old_pairs.path or new is None or new.kind != "int":
        return
    for dump in (gallery, old_pairs, pool):
        if dump is not None and dump.ids is None and dump.rows == gallery.rows:
            dump.ids = IdColumn(f"row numbers of {dump.name}", dump.rows, "int", lambda: [np.arange(gallery.rows)])


def flattered(
    gallery: Dump, pairing: Pairing, pool: Pool | None, fitted: Callable[[Tensor], Tensor]
) -> tuple[str, ...]:
    """What to say of a pool of which many rows are fitted."""
    if pool is None or gallery.ids is None:
        return ()
    return pooled_pairs(pairing, keys_of(gallery)((pool.weight > 0).nonzero()[:, 0]), fitted)


def thin(pool: Pool | None, rows: int) -> str:
    """What to do where there is no truth to compare with."""
    if pool is None:
        return (
            "nothing to judge by: give the right answers (--relevant), or new vectors of gallery rows (--pool); "
            "`suture gallery sample` says which rows to embed."
        )
    need = -(-FEWEST_POOLED * rows // DEPTH)
    return (
        f"the pool has new vectors of {pool.size} of {rows} gallery rows, too few to know any query's neighbours; an "
        f"even draw of at least {need} is needed, see `suture gallery sample`."
    )


def keys_of(gallery: Dump) -> Callable[[Tensor], Tensor]:
    """Hashes of the ids of some rows, by which another copy of the gallery finds them; of their numbers without ids."""

    def keys(rows: Tensor) -> Tensor:
        names = rows.numpy()
        if gallery.ids is not None:
            wanted, at = np.unique(names, return_inverse=True)
            found, start = [], 0
            for block in gallery.ids.blocks():
                first, last = np.searchsorted(wanted, [start, start + len(block)])
                found.append(hash_ids(block[wanted[first:last] - start]))
                start += len(block)
            return torch.from_numpy(np.concatenate(found)[at].view(np.int64))
        return torch.from_numpy(hash_ids(names).view(np.int64))

    return keys


def given_queries(new: Dump, old: Dump | None, groups: Tensor | None, *, by_row: bool) -> Queries:
    """The queries of the user, old ones in the order of the new."""
    if groups is not None and len(groups) != new.rows:
        raise RefusedError(f"expected one group for each of {new.rows} queries, got {len(groups)}.")
    vectors = None
    if old is not None:
        theirs = partners(new, old, by_row=by_row)
        if bool((theirs < 0).any()):
            raise RefusedError(f"expected all {new.rows} queries of {new.name} in {old.name} too; some are missing.")
        vectors = all_rows(old)[theirs]
    return Queries(all_rows(new), vectors, groups, None, f"{new.rows} queries given")


def pooled(gallery: Dump, pool: Dump, chances: Tensor | None, *, by_row: bool) -> Pool:
    """The pool, its rows found by gallery row."""
    if gallery.ids is None and pool.ids is not None and pool.ids.kind == "int" and not by_row:
        named = torch.from_numpy(np.concatenate([b.astype(np.int64) for b in pool.ids.blocks()]))
        if int(named.min()) < 0 or int(named.max()) >= gallery.rows or len(torch.unique(named)) != len(named):
            raise RefusedError(f"{pool.name}: expected its ids to be rows of {gallery.name}, each once.")
        theirs = torch.full((gallery.rows,), -1)
        theirs[named] = torch.arange(pool.rows)
    else:
        theirs = partners(gallery, pool, by_row=by_row)
    known = theirs >= 0
    if chances is None:
        weight = known * (gallery.rows / int(known.sum()))
    else:
        chance = torch.where(known, chances.double()[theirs.clamp(min=0)], 0.0)  # 0: embedded for another purpose
        weight = torch.where(chance > 0, 1 / chance, 0.0)
    return Pool(weight.float(), lambda rows: rows_of(pool, theirs[rows]), pool.dim)


def from_pairs(
    held: Gallery, gallery: Dump, pool: Pool | None, pairing: Pairing, groups: Tensor | None, listed: Listed
) -> Inputs:
    """Pairs alone: those held out by their keys, or by the list, are the queries; of the others those not of the pool
    are fitted.
    """
    if groups is not None:
        raise UsageError("--groups are those of the queries; give --new-queries.")
    stream = PairedDumps(pairing)
    x, y, keys = map(torch.cat, zip(*tested(stream, listed), strict=True))
    if len(keys) < SMALLEST:
        raise RefusedError(f"expected at least {SMALLEST} held-out pairs to query with, got {len(keys)}: more pairs.")

    def fitted(keys: Tensor) -> Tensor:
        return ~listed.held_out(keys) & listed.free(keys)

    fit = KeptPairs(stream, lambda _, keys: fitted(keys))
    some = mix(keys).argsort()[:MOST_HELD_OUT].sort().values
    count = len(some)
    if pool is not None and pool.neighbours is not None:
        own = own_rows(gallery, pairing, keys[some])
        queries = Queries(y[some], x[some], keys[some], own, f"{count} held-out pairs as queries")
        return Inputs(held, pool, queries, None, None, fit, "gallery", flattered(gallery, pairing, pool, fitted))
    note = (
        f"Judged on a gallery of {len(keys)} held-out pairs, not on yours of {gallery.rows} rows: with more rows every "
        "number will be lower. " + ("No pool was given." if pool is None else thin(pool, gallery.rows).capitalize())
    )
    small = Gallery(
        lambda: iter(torch.split(x, BLOCK)), lambda rows: x[rows], len(x), x.shape[1], f"{len(x)} held-out pairs"
    )
    queries = Queries(y[some], x[some], keys[some], some, f"{count} held-out pairs as queries")
    whole = Pool(torch.ones(len(y)), lambda rows: y[rows], y.shape[1])
    return Inputs(small, whole, queries, None, None, fit, "held-out pairs", (note,))


def tested(stream: PairStream, listed: Listed) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The pairs held out, in float32."""
    empty = True
    for x, y, keys, _ in KeptPairs(stream, lambda _, keys: listed.held_out(keys)).blocks():
        empty = False
        yield x.float(), y.float(), keys.clone()
    if empty:
        raise RefusedError("expected some pairs to be held out as queries, got none: more pairs are needed.")


def own_rows(gallery: Dump, pairing: Pairing, keys: Tensor) -> Tensor:
    """The gallery row ``(m,)`` that each held-out pair is, -1 where it is none: known by id."""
    out = torch.full((len(keys),), -1)
    if gallery.ids is None or pairing.source.ids is None or gallery.ids.kind != pairing.source.ids.kind:
        return out
    wanted = {int(key): i for i, key in enumerate(keys.tolist())}
    start = 0
    for block in gallery.ids.blocks():
        hashes = hash_ids(block).view(np.int64)
        for at in np.flatnonzero(np.isin(hashes, keys.numpy())):
            out[wanted[int(hashes[at])]] = start + int(at)
        start += len(block)
    return out
