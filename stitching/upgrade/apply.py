"""Carrying out a plan: fragment by fragment, each safe to do again, then what came to the gallery meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from time import perf_counter
from typing import Any

import numpy as np
import torch

from ...aligners.errors import IncompleteError, RefusedError, SutureError, UsageError
from ..apply import BLOCK
from ..dumps.arrays import Array
from ..stores import Batch, Fragment, Store
from ..stores.disk import read_state, write_json
from .bridge import apply_bridge
from .cache import Cache
from .events import Tell, quiet, stopping
from .ledger import Entry
from .lock import alone, locked
from .owned import ours, require_unwritten
from .plan import Plan, gone, load_plan
from .rows import bad_rows, mapped
from .seen import Seen, changes

__all__ = ["apply", "apply_fragment", "as_ids", "behind", "do_fragment", "left_out_rows", "rows_left", "unfinished"]


def apply(
    plan: Plan,
    *,
    shard: tuple[int, int] = (0, 1),
    max_rows: int | None = None,
    tell: Tell = quiet,
) -> dict[str, Any]:
    """Do what is left of ``plan``, or of its fragments ``i, i + n, ...`` for the ``shard`` ``(i, n)``.

    Doing it again goes on where it stopped; the result is the same as that of one run. ``max_rows`` stops after about
    so many. Raises `RefusedError` on rows that are not what was planned and `IncompleteError` where the disk is full.
    """
    i, n = shard
    if not 0 <= i < n:
        raise UsageError(f"--shard: expected i/n with 0 <= i < n, got {i}/{n}.")
    if plan.strategy == "bridge":
        return apply_bridge(plan, tell)
    with (
        locked(plan.state / "locks", "whole" if n == 1 else f"shard-{i}-of-{n}"),
        plan.open_source() as source,
        plan.open_target() as target,
        Cache.of(plan) as cache,
    ):
        require_unwritten(plan, target)
        done = {"rows": 0, "fragments": 0}
        with stopping(left_bytes(plan), target.name), going(source):
            with alone(plan.state / "locks"):
                target.create(plan.spec())
            tell("created", {})
            take_up_new_parts(plan, source, tell, writes=i == 0)
            fragments = plan.all_fragments()
            for number in range(i, len(fragments), n):
                entry, fragment = plan.ledger.get(number), fragments[number]
                if entry is None or not target.recorded(number, entry, deep=False):
                    entry = do_fragment(plan, number, fragment, source, target, cache, tell)
                elif source.live:
                    entry = (catch_up if target.live else do_changed)(
                        plan, number, fragment, source, target, cache, tell
                    )
                else:
                    continue
                done["rows"] += entry["written"]
                done["fragments"] += bool(entry["written"])
                if max_rows is not None and done["rows"] >= max_rows:
                    break
            if not unfinished(plan, target):
                with alone(plan.state / "locks"):
                    target.finish(plan.spec())
                    write_json(plan.state / "finished.json", {"ledger": plan.ledger.digest()})
                tell("finished", {})
    return {**done, "left": unfinished(plan, target)}


@contextmanager
def going(source: Store) -> Iterator[None]:
    """An error of whatever kind is that of a store which went away, where ``source`` is not there any more."""
    try:
        yield
    except SutureError as error:
        if isinstance(error, IncompleteError) or source.exists():
            raise
        raise gone(source) from error


def apply_fragment(path: str, number: int) -> dict[str, Any]:
    """One fragment of the plan at ``path``, in whatever process of whatever engine; doing it again changes nothing.

    One thread, so that the same bits come out everywhere.
    """
    torch.set_num_threads(1)
    plan = load_plan(path)
    with plan.open_source() as source, plan.open_target() as target, Cache.of(plan) as cache:
        target.create(plan.spec())
        entry = do_fragment(plan, number, plan.all_fragments()[number], source, target, cache, quiet)
    return {"number": number, "rows": entry["rows"]}


def unfinished(plan: Plan, target: Store) -> int:
    """How many fragments are not done."""
    ledger = plan.ledger
    entries = [(number, ledger.get(number)) for number in range(len(plan.all_fragments()))]
    return sum(entry is None or not target.recorded(number, entry, deep=False) for number, entry in entries)


def rows_left(plan: Plan, shard: tuple[int, int] = (0, 1)) -> int:
    """Rows of the fragments of a shard that are not recorded."""
    fragments, done = plan.all_fragments(), plan.ledger.entries()
    return sum(fragments[k]["rows"] for k in range(shard[0], len(fragments), max(shard[1], 1)) if k not in done)


def left_bytes(plan: Plan) -> int:
    """About how many bytes are still to be written."""
    rows = sum(entry["rows"] for entry in plan.ledger.entries().values())
    return int(plan.bytes_needed * max(plan.rows - rows, 0) / max(plan.rows, 1))


def do_fragment(
    plan: Plan, number: int, fragment: Fragment, source: Store, target: Store, cache: Cache, tell: Tell
) -> dict[str, Any]:
    """Read, map and write one fragment, then record it. The value is its entry, with ``written`` rows."""
    started = perf_counter()
    seen = Seen() if source.live else None
    quarantined: list[dict[str, Any]] = []
    rows = rows_of(plan, source, fragment, cache, seen, quarantined)
    entry = target.write(number, rows)
    tell("written", {"fragment": number})
    if seen is not None:
        plan.ledger.put_seen(number, *seen.arrays())
    set_aside(plan, number, quarantined)
    tell("seen", {"fragment": number})
    entry = {**entry, "quarantined": len(quarantined)}
    plan.ledger.put(number, entry)
    seconds = perf_counter() - started
    tell("recorded", {"fragment": number, "rows": entry["rows"], "seconds": round(seconds, 3)})
    return {**entry, "written": entry["rows"]}


def rows_of(
    plan: Plan,
    source: Store,
    fragment: Fragment,
    cache: Cache,
    seen: Seen | None,
    quarantined: list[dict[str, Any]],
) -> Iterator[Batch]:
    """The rows of a fragment as they go into the new gallery: mapped, or native where they were re-embedded already."""

    def good() -> Iterator[Batch]:
        for batch in source.read(fragment, BLOCK):
            if seen is not None:
                seen.add(batch)
            yield screened(plan, batch, source.name, quarantined)

    for batch in mapped(plan.row_map, good(), plan.stamp, source.name, familiar=plan.familiar):
        yield cache.into(batch, plan)


def screened(plan: Plan, batch: Batch, what: str, quarantined: list[dict[str, Any]]) -> Batch:
    """The batch without rows that are no direction; refused, or remembered by id, as the plan says."""
    found = bad_rows(batch)
    if not found:
        return batch
    for reason, at in found.items():
        quarantined.extend(
            {"id": batch.ids[i].item() if hasattr(batch.ids[i], "item") else batch.ids[i], "reason": reason} for i in at
        )
    if plan.bad_rows == "refuse":
        shown = ", ".join(f"{row['id']!r} ({row['reason']})" for row in quarantined[:5])
        raise RefusedError(
            f"{what}: expected finite non-zero vectors, found {len(quarantined)} others in one block: id {shown}. "
            "Repair them and plan anew; or plan again as before, with --bad-rows quarantine --overwrite: this leaves "
            "them out and lists them, and the next apply goes on from here."
        )
    good = np.ones(len(batch), bool)
    good[np.concatenate(list(found.values()))] = False
    return batch.keep(good)


def set_aside(plan: Plan, number: int, rows: list[dict[str, Any]]) -> None:
    """List the rows of a fragment that were left out."""
    path = plan.state / "quarantine" / f"{number:06d}.json"
    if rows:
        path.parent.mkdir(exist_ok=True)
        write_json(path, rows)
    else:
        path.unlink(missing_ok=True)


def take_up_new_parts(plan: Plan, source: Store, tell: Tell, *, writes: bool) -> int:
    """Parts that came to a gallery of files after the plan become fragments too; how many there are.

    Raises `RefusedError` where one has another schema, or where rows have no ids to tell them by.
    """
    if source.live:
        return 0
    known = {f["part"] for f in plan.all_fragments()}
    size = max(f["rows"] for f in plan.fragments)
    fresh = [f for f in source.fragments(size) if f["part"] not in known]
    if fresh and not source.has_ids():
        raise RefusedError(
            f"{source.name}: {fresh[0]['part']} came after the plan, and rows without ids are known by their number "
            "only. Plan anew, or add ids."
        )
    if fresh and writes:
        write_json(plan.state / "added.json", [*(read_state(plan.state / "added.json") or []), *fresh])
        tell("added", {"fragments": len(fresh)})
    return len(fresh)


def catch_up(
    plan: Plan, number: int, fragment: Fragment, source: Store, target: Store, cache: Cache, tell: Tell
) -> dict[str, Any]:
    """Bring one recorded fragment of a live source up to date: rows that came, changed or went since."""
    entry = plan.ledger.get(number)
    assert entry is not None
    seen, quarantined = Seen(), list[dict[str, Any]]()
    before = plan.ledger.seen(number)
    theirs, other = set[Any](), set[Any]()  # rows that users wrote since; rows whose old vector is another now

    def fresh() -> Iterator[Batch]:
        for batch, moved in changes(before, source.read(fragment, BLOCK), seen):
            theirs.update(batch.ids[~ours(plan, target, cache, number, batch.ids)].tolist())
            other.update(batch.ids[moved].tolist())
            yield screened(plan, batch, source.name, quarantined)

    def placed(batch: Batch) -> Batch:
        batch = batch.keep(without(theirs, batch.ids))
        return cache.into(batch, plan, without(other, batch.ids))

    made = mapped(plan.row_map, fresh(), plan.stamp, source.name, familiar=plan.familiar)
    rows = (batch for batch in map(placed, made) if len(batch))
    first = next(rows, None)
    wrote = 0 if first is None else target.write(number, chain([first], rows))["rows"]
    ids, kept = seen.arrays()
    here, bad = set(ids.tolist()), {row["id"] for row in quarantined}
    gone = [key for key in before if key not in here or key in bad]
    if gone:
        names = as_ids(gone, plan.id_kind)
        target.discard(names[ours(plan, target, cache, number, names)])
    # Only now that the rows are mapped again: until then the cache says that what stands there is the upgrade's.
    cache.forget(as_ids([*other, *gone], plan.id_kind))
    if not wrote and not gone and not bad:
        return {**entry, "written": 0}
    tell("caught-up", {"fragment": number, "rows": wrote, "gone": len(gone)})
    fresh_digests = kept != np.array([before.get(key, 0) for key in ids.tolist()], np.uint64)
    repaired = set(ids[fresh_digests].tolist())
    still = [row for row in left_out_rows(plan, number) if row["id"] in here and row["id"] not in repaired]
    set_aside(plan, number, still + quarantined)
    plan.ledger.put_seen(number, ids, kept)
    left_out = len(still) + len(quarantined)
    plan.ledger.put(number, changed(entry, rows=len(ids) - left_out, quarantined=left_out))
    tell("recorded", {"fragment": number, "rows": wrote})
    return {**entry, "written": wrote + len(gone)}


def do_changed(
    plan: Plan, number: int, fragment: Fragment, source: Store, target: Store, cache: Cache, tell: Tell
) -> Entry:
    """`catch_up` where the new gallery is of files: a part is written as a whole, if any row of it came or changed."""
    entry = plan.ledger.get(number)
    assert entry is not None
    before, seen = plan.ledger.seen(number), Seen()
    rows, other = 0, list[Any]()
    for batch, moved in changes(before, source.read(fragment, BLOCK), seen):
        rows, other = rows + len(batch), other + batch.ids[moved].tolist()
    gone = list(before.keys() - set(seen.arrays()[0].tolist()))
    if not rows and not gone:
        return {**entry, "written": 0}
    cache.forget(as_ids([*other, *gone], plan.id_kind))
    plan.ledger.drop(number)
    return do_fragment(plan, number, fragment, source, target, cache, tell)


def without(ids: set[Any], of: Array) -> Array:
    """Which of the ids ``of`` ``(m,)`` are not in the set."""
    return np.array([key not in ids for key in of.tolist()], bool)


def changed(entry: Entry, **facts: Any) -> Entry:
    """The entry of a fragment some rows of which were written again: what was verified before is told from it."""
    return {**entry, **facts, "changes": entry.get("changes", 0) + 1}


def behind(plan: Plan, source: Store) -> int:
    """How many rows of a live source are not in the new gallery as they are now."""
    count = 0
    for number, fragment in enumerate(plan.all_fragments()):
        seen, before = Seen(), plan.ledger.seen(number)
        count += sum(len(batch) for batch, _ in changes(before, source.read(fragment, BLOCK), seen))
        count += len(before.keys() - set(seen.arrays()[0].tolist()))
    return count


def left_out_rows(plan: Plan, number: int) -> list[dict[str, Any]]:
    """The rows of a fragment that were left out, with the reason."""
    return read_state(plan.state / "quarantine" / f"{number:06d}.json") or []


def as_ids(keys: list[Any], kind: str) -> Array:
    """A list of ids as an array of their kind."""
    if kind == "int":
        return np.array(keys, np.int64 if not keys or max(keys) < 2**63 else np.uint64)
    out = np.empty(len(keys), object)
    out[:] = keys
    return out
