"""What users wrote to the new gallery since it is served: listed before they are led back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...aligners.errors import SutureError
from ..apply import BLOCK
from ..dumps.arrays import Array
from ..stores import Batch, Store
from ..stores.batch import canonical, records
from ..stores.files import PartsStore
from ..stores.staged import IndexStore
from .apply import rows_of
from .cache import Cache
from .owned import own
from .plan import Plan

__all__ = ["since", "strange_parts"]

Listed = dict[str, Any]
SAME = 1e-4  # in an index a row may have lost its length, or some digits


def since(plan: Plan, source: Store, target: Store, cache: Cache) -> Iterator[Listed]:
    """Rows of the new gallery that are not the upgrade's, or not as it wrote them, by id and payload."""
    if isinstance(target, IndexStore):
        yield from in_index(target)
    elif isinstance(target, PartsStore):
        for part in strange_parts(plan, target):
            yield from in_part(plan, source, target, part, cache)
    elif target.live:
        for fragment in target.fragments(BLOCK):
            for batch in target.read(fragment, BLOCK, vectors=False):
                mine = own(plan, target, cache, 0, batch)
                if source.live and not target.shared:
                    old = source.fetch(0, batch.ids, vectors=False)
                    before = dict(zip(old.ids.tolist(), map(canonical, records(old.payload, len(old))), strict=True))
                    here = map(canonical, records(batch.payload, len(batch)))
                    same = [before.get(key) == row for key, row in zip(batch.ids.tolist(), here, strict=True)]
                    mine &= np.array(same, bool)
                yield from listed(batch.keep(~mine))


def listed(batch: Batch) -> Iterator[Listed]:
    """Rows as the list has them."""
    for key, row in zip(batch.ids.tolist(), records(batch.payload, len(batch)), strict=True):
        yield {"id": key, "payload": row}


def strange_parts(plan: Plan, target: Store, *, deep: bool = True) -> list[Any]:
    """Parts of a folder that are not as the upgrade wrote them; ``deep`` reads every file once."""
    if not isinstance(target, PartsStore):
        return []
    entries = {entry["part"]: (number, entry) for number, entry in plan.ledger.entries().items()}
    target.__dict__.pop("parts", None)  # some may have come
    parts = target.parts
    return [p for p in parts if p.name not in entries or not target.recorded(*entries[p.name], deep=deep)]


def in_part(plan: Plan, source: Store, target: PartsStore, part: Any, cache: Cache) -> Iterator[Listed]:
    """All rows of a part that is not the upgrade's; of one that was written again, those that differ.

    A part that cannot be read is named: the way back must not be barred by it.
    """
    numbers = {entry["part"]: number for number, entry in plan.ledger.entries().items()}
    expected: dict[Any, tuple[str | None, bytes, str]] = {}
    try:
        if part.name in numbers:
            fragment = plan.all_fragments()[numbers[part.name]]
            for batch in rows_of(plan, source, fragment, cache, None, []):
                expected.update(zip(batch.ids.tolist(), contents(batch), strict=True))
    except SutureError:
        expected = {}  # the old part is not what it was: all rows are listed
    try:
        for batch in target.rows_of(part, 0, target.part_rows(part), 0, BLOCK, bool(expected)):
            there = zip(batch.ids.tolist(), contents(batch), strict=True)
            yield from listed(batch.keep(np.array([expected.get(key) != row for key, row in there], bool)))
    except Exception as error:  # whatever a reader raises
        yield {"part": part.name, "unreadable": str(error)}


def contents(batch: Batch) -> Iterator[tuple[str | None, bytes, str]]:
    """Stamp, vector and payload of each row."""
    stamps = batch.stamps or [None] * len(batch)
    for stamp, row, payload in zip(stamps, batch.vectors, records(batch.payload, len(batch)), strict=True):
        yield stamp, row.tobytes(), canonical(payload)


def in_index(target: IndexStore) -> Iterator[Listed]:
    """Rows of an index file that was written again, and that are not among those it was built of."""
    if target.as_built():
        return
    built: dict[Any, Array] = {}
    staged = target.parts
    for fragment in staged.fragments(BLOCK):
        for batch in staged.read(fragment, BLOCK):
            built.update(zip(batch.ids.tolist(), directions(batch.vectors), strict=True))
    try:
        for fragment in target.fragments(BLOCK):
            for batch in target.read(fragment, BLOCK):
                for key, row in zip(batch.ids.tolist(), directions(batch.vectors), strict=True):
                    if key not in built or len(built[key]) != len(row) or np.abs(built[key] - row).max() > SAME:
                        yield {"id": key}
    except Exception as error:  # whatever a reader raises
        yield {"part": target.path.name, "unreadable": str(error)}


def directions(rows: Array) -> Array:
    """Rows of length 1."""
    rows = rows.astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
