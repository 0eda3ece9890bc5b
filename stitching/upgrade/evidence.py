"""The semantic canary: do new-model queries on the new collection find what old-model queries find on the old one?

Counts, checksums and norms all pass where a map was fitted on shifted pairs or turned round; this does not. Pairs of a
few items in both models are kept in the map file (its canaries), or given as queries. For each, the top k of its new
vector among mapped rows is compared with the top k of its old vector among old rows. What the plan measured on mapped
rows in memory must be found again on the rows that were written, and it must be above what wrong pairs score.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...aligners.alignment import Alignment
from ...aligners.arrays import as_tensor
from ...aligners.errors import RefusedError
from ...aligners.measures.bootstrap import Bootstrap
from ..dumps.arrays import Array
from ..dumps.ids import hash_ids

__all__ = ["Canaries", "Check", "agreement", "moved_canaries", "queries_for"]

K = 10
FEWEST = 2 * K
SAME = 0.999  # float16 rounds
NEARLY = 0.9  # product quantisation


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: whether it is as promised, and what was found."""

    name: str
    ok: bool
    found: str


@dataclass(frozen=True, eq=False)
class Canaries:
    """The same items in both models: ``old`` ``(c, p)`` and ``new`` ``(c, q)``."""

    old: Tensor
    new: Tensor

    @classmethod
    def of(cls, alignment: Alignment) -> Canaries | None:
        """Those in the map file; None where it keeps none, or the two sides hold other items."""
        source, target = alignment.spaces.get("source"), alignment.spaces.get("target")
        if source is None or target is None or source.canaries is None or target.canaries is None:
            return None
        if source.canary_keys is None or target.canary_keys is None:
            return None
        if not torch.equal(source.canary_keys, target.canary_keys):
            return None
        return cls(source.canaries, target.canaries)

    @classmethod
    def kept(cls, state: Path) -> Canaries | None:
        """Those that a plan keeps beside itself."""
        path = state / "canaries.npy"
        if not path.exists():
            return None
        with path.open("rb") as file:
            return cls(*(torch.from_numpy(np.load(file)) for _ in range(2)))


def queries_for(strategy: str, canaries: Canaries) -> Tensor:
    """What is asked of the new collection: the new model's rows, or for the dual form both side by side."""
    if strategy == "dual":
        return torch.cat([normalize(canaries.old.float(), dim=1), normalize(canaries.new.float(), dim=1)], dim=1)
    return canaries.new.float()


def agreement(new_queries: Tensor, new_rows: Array, old_queries: Tensor, old_rows: Array) -> dict[str, Any] | None:
    """Overlap of the two top k, with its interval, and how far it is above that of wrong pairs (``above_chance``).

    None where there are too few rows or queries to tell.
    """
    if len(new_rows) < FEWEST or len(new_queries) < K:
        return None
    found = top(new_queries, new_rows)
    expected = top(old_queries, old_rows)
    columns = {"overlap": overlap(found, expected), "chance": overlap(found, expected.roll(1, 0))}
    bootstrap = Bootstrap(columns)
    return {
        "queries": len(new_queries),
        "rows": len(new_rows),
        "overlap@10": bootstrap.mean("overlap").as_json(),
        "above_chance": bootstrap.difference("overlap", "chance").as_json(),
    }


def top(queries: Tensor, rows: Array) -> Tensor:
    """Row numbers ``(m, K)`` of the nearest rows by cosine."""
    gallery = normalize(as_tensor(np.ascontiguousarray(rows)).float(), dim=1)
    return (normalize(queries.float(), dim=1) @ gallery.T).topk(K, dim=1).indices


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Share ``(m,)`` of common entries of two ``(m, K)``."""
    return (a[:, :, None] == b[:, None, :]).any(2).double().mean(1)


def moved_canaries(alignment: Alignment, ids: Array, vectors: Array, same: float = SAME) -> tuple[int, list[Any]]:
    """How many of these rows are canaries of the map, and the ids of those that have other vectors now."""
    space = alignment.spaces.get("source")
    if space is None or space.canaries is None or space.canary_keys is None or not len(ids):
        return 0, []
    place = {key: i for i, key in enumerate(space.canary_keys.numpy().view(np.uint64).tolist())}
    pairs = [(i, place[key]) for i, key in enumerate(hash_ids(ids).tolist()) if key in place]
    if not pairs:
        return 0, []
    rows, known = (torch.tensor(column) for column in zip(*pairs, strict=True))
    live = as_tensor(np.ascontiguousarray(vectors)).float()[rows]
    cosine = torch.nn.functional.cosine_similarity(live, space.canaries[known].float(), dim=1)
    moved = rows[cosine < same].tolist()
    return len(pairs), ids[moved].tolist()


def require_still(alignment: Alignment, ids: Array, vectors: Array, what: str, *, lossy: bool = False) -> int:
    """Refuse a gallery in which rows that the map knows by id have other vectors; the number that were compared."""
    known, moved = moved_canaries(alignment, ids, vectors, NEARLY if lossy else SAME)
    if moved:
        raise RefusedError(
            f"{what}: {len(moved)} of {known} rows that the map remembers by id have other vectors here (id "
            f"{moved[0]!r} for one). Ids were shifted, the encoder was changed, or the rows were re-made: fit the map "
            "on rows of this very gallery."
        )
    return known
