"""Items on both sides: what is judged on was not fitted, or this is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...aligners.errors import SutureError
from ..dumps import Dump, Pairing, hash_ids
from ..rows import rows_of, screened
from .columns import columns_of
from .split import in_test

__all__ = ["Listed", "asked_pairs", "pooled_pairs", "read_listed"]

FITTED = 0.05  # of the pool: where more of it was fitted this is told
SAME = 0.999  # cosine of the new vectors of one id: by that much one encoder run differs from another


@dataclass(frozen=True, eq=False)
class Listed:
    """What `suture gallery sample` listed, by the hashes of the ids: all ``keys``, the held-out pairs ``asking`` among
    them, and those ``pooled``. What is not listed is held out by its own hash.
    """

    keys: Tensor
    asking: Tensor
    pooled: Tensor

    @classmethod
    def nothing(cls) -> Listed:
        """Where there is no list."""
        return cls(*(torch.empty(0, dtype=torch.int64) for _ in range(3)))

    def held_out(self, keys: Tensor) -> Tensor:
        """Which pairs ``(m,)`` can serve as queries."""
        return torch.where(torch.isin(keys, self.keys), torch.isin(keys, self.asking), in_test(keys))

    def free(self, keys: Tensor) -> Tensor:
        """Which pairs ``(m,)`` are not of the pool: the others are judged by, so no map may be fitted on them."""
        return ~torch.isin(keys, self.pooled)


def read_listed(path: Path, dump: Dump) -> Listed:
    """The list, its ids as those of ``dump``; nothing where the file or the dump names no ids.

    Raises `SutureError` on ids of another kind.
    """
    columns = columns_of(path)
    if dump.ids is None or not {"id", "split", "pair", "chance"} <= set(columns):
        return Listed.nothing()
    try:
        named = [int(v) if dump.ids.kind == "int" else str(v) for v in columns["id"]]
        pooled = np.array([float(v) > 0 for v in columns["chance"]])
    except (TypeError, ValueError) as error:
        raise SutureError(f"{path}: expected ids like those of {dump.name}, and chances ({error}).") from error
    keys = hash_ids(np.array(named, None if dump.ids.kind == "int" else object)).view(np.int64)
    asking = np.array([bool(p) and s == "test" for p, s in zip(columns["pair"], columns["split"], strict=True)])
    return Listed(*map(torch.from_numpy, (keys, keys[asking], keys[pooled])))


def pooled_pairs(pairing: Pairing, pool: Tensor, fitted: Callable[[Tensor], Tensor]) -> tuple[str, ...]:
    """What to say where the maps are ``fitted`` on many of the very rows whose new vectors are the truth.

    ``pool``: the keys of its rows, as pairs by id have them.
    """
    names = pairing.target.ids
    if pairing.by != "id" or names is None:
        return ()
    shared = 0
    for block in names.blocks():
        keys = torch.from_numpy(hash_ids(block).view(np.int64))
        shared += int((torch.isin(keys, pool) & fitted(keys)).sum())
    if shared <= FITTED * len(pool):
        return ()
    return (
        f"{shared} of the {len(pool)} rows of the pool are fitted as pairs too: maps fit these better than other rows, "
        "so bridge, map, dual and expanded come out too high. Give pairs that are not in the pool, or the list that "
        "both were embedded from (--sample).",
    )


def asked_pairs(queries: Dump, pairing: Pairing) -> tuple[str, ...]:
    """What to say where queries are among the pairs: of one id and alike where both have ids, else of equal rows."""
    pairs = pairing.target
    if queries.ids is not None and pairs.ids is not None and queries.ids.kind == pairs.ids.kind:
        theirs, ours = (np.concatenate([hash_ids(b) for b in d.ids.blocks()]) for d in (pairs, queries) if d.ids)
        _, at, query = np.intersect1d(theirs, ours, return_indices=True)
        two = rows_of(pairs, torch.from_numpy(at)), rows_of(queries, torch.from_numpy(query))
        shared = int((torch.cosine_similarity(*two) > SAME).sum())  # equal numbers may be those of different items
    else:
        known = {row.tobytes() for block in screened(queries) for row in block.numpy()}
        found = {row.tobytes() for block in screened(pairs) for row in block.numpy() if row.tobytes() in known}
        shared = len(found)
    if not shared:
        return ()
    return (
        f"{shared} of the {queries.rows} queries are pairs too: maps fit these better than other queries, so all that "
        "a map has a part in comes out too high. Give pairs that are no queries.",
    )
