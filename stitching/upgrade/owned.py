"""Whose a row of the new gallery is: the upgrade's, or that of somebody who wrote it since."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...aligners.errors import RefusedError
from ..dumps.arrays import Array
from ..stores import Batch, Store
from ..stores.files import PartsStore
from ..stores.staged import IndexStore
from .cache import Cache
from .phase import phase
from .plan import Plan

__all__ = ["ours", "own", "require_unwritten"]


def own(plan: Plan, target: Store, cache: Cache, number: int, there: Batch) -> Array:
    """Which rows ``(m,)`` of a batch of the new gallery the upgrade wrote.

    Mapped rows by their stamp. The stamp of the model itself is anybody's who uses the model: such a row is the
    upgrade's where it has the vector that the cache keeps.
    """
    if there.stamps is None:
        return np.ones(len(there), bool)
    stamps = np.array(there.stamps, object)
    native = there.ids[stamps == plan.model]
    bought = set[Any]()
    if len(native):
        found = target.fetch(number, native)
        off = np.abs(cache.into(found, plan).vectors.astype(np.float64) - found.vectors).max(1, initial=0)
        bought = set(found.ids[cache.holds(found.ids) & (off <= target.tolerance)].tolist())
    return (stamps == plan.stamp) | np.array([key in bought for key in there.ids.tolist()], bool)


def ours(plan: Plan, target: Store, cache: Cache, number: int, ids: Array) -> Array:
    """Which of ``ids`` ``(m,)`` the upgrade may write: those that it wrote itself, and those not there."""
    there = target.fetch(number, ids, vectors=False)
    mine = dict(zip(there.ids.tolist(), own(plan, target, cache, number, there).tolist(), strict=True))
    return np.array([mine.get(key, True) for key in ids.tolist()], bool)


def require_unwritten(plan: Plan, target: Store) -> None:
    """Raise `RefusedError` where users wrote into the very files that are served and would be written again."""
    if phase(plan.state) != "switched":
        return
    odd: list[str] = []
    if isinstance(target, IndexStore) and target.rewritten():
        odd = [target.path.name]
    elif isinstance(target, PartsStore):
        odd = [str(e["part"]) for n, e in plan.ledger.entries().items() if not target.recorded(n, e, deep=True)]
    if odd:
        raise RefusedError(
            f"{target.name}: {', '.join(odd[:5])} changed since the switch, and would be written over. Keep a copy. "
            f"`suture gallery rollback {plan.path}` lists the rows; after it, apply makes the file anew."
        )
