"""Proof that the new gallery is what the plan promised, before anybody is led to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ...aligners.errors import RefusedError
from ..apply import BLOCK
from ..dumps.arrays import Array
from ..gallery.probe import Probe
from ..stores import Batch, Store
from ..stores.batch import joined, same_payload
from ..stores.disk import read_json, write_json
from .apply import behind, left_out_rows, unfinished
from .bridge import bridge_checks, waiting
from .cache import Cache
from .events import Tell, quiet
from .evidence import Canaries, Check, agreement, queries_for, require_still
from .lock import locked
from .nearest import AskedIndex
from .phase import phase
from .plan import FRAGMENT_ROWS, Plan
from .reproduce import reproduced
from .rows import mapped

__all__ = ["Check", "verified", "verify"]


def verify(plan: Plan, *, tell: Tell = quiet) -> list[Check]:
    """Look at everything; the checks, kept beside the plan for `switch`. Reads both galleries once."""
    with (
        locked(plan.state / "locks", "whole"),
        plan.open_source() as source,
        plan.open_target() as target,
        Cache.of(plan) as cache,
    ):
        checks = [complete(plan, target)]
        if checks[0].ok and plan.strategy == "bridge":
            checks.append(intact(plan, target))
            if checks[-1].ok:
                checks += [*bridge_checks(plan, source, target, tell), *fresh(plan, source)]
                keep(plan, plan.ledger.digest(), 0, checks)
            return checks
        if checks[0].ok:
            checks.append(intact(plan, target))
        if all(check.ok for check in checks):
            digest = plan.ledger.digest()
            checks += [*row_checks(plan, source, target, cache, tell), *fresh(plan, source)]
            checks.append(recognised(plan, source))
            if plan.evidence is not None or plan.estimate is None:
                checks.append(semantic(plan, source, target, cache))
            checks += estimated(plan, source, target, cache)
            keep(plan, digest, len(cache), checks)
    return checks


def keep(plan: Plan, digest: str, native: int, checks: list[Check]) -> None:
    """Write down what was found, and of which state, for `switch`."""
    found = {"ledger": digest, "native": native, "checks": [vars(check) for check in checks]}
    write_json(plan.state / "verified.json", found)


def verified(plan: Plan) -> bool | None:
    """Whether the last `verify` was green; None where there was none, or the gallery was worked on since."""
    found = read_json(plan.state / "verified.json")
    if found is None or found["ledger"] != plan.ledger.digest():
        return None
    return all(check["ok"] for check in found["checks"])


def complete(plan: Plan, target: Store) -> Check:
    """Every fragment recorded and there, and the index built on all of them."""
    if not target.exists():
        return Check("complete", False, "nothing is applied yet")
    left = unfinished(plan, target)
    built = read_json(plan.state / "finished.json")
    if left:
        return Check("complete", False, f"{left} of {len(plan.all_fragments())} fragments are not done; run apply")
    if built is None or built["ledger"] != plan.ledger.digest():
        return Check("complete", False, "the last step of apply was not reached; run it again")
    return Check("complete", True, f"{len(plan.all_fragments())} fragments")


def intact(plan: Plan, target: Store) -> Check:
    """Every fragment byte for byte as it was recorded; a damaged one loses its entry, so that apply does it again."""
    ledger = plan.ledger
    torn = [n for n, entry in ledger.entries().items() if not target.recorded(n, entry, deep=True)]
    if torn and phase(plan.state) == "switched":
        return Check("bytes", False, f"{len(torn)} fragments were written since the switch")
    for number in torn:
        ledger.drop(number)
    if torn:
        return Check("bytes", False, f"{len(torn)} fragments are not as they were written; apply does them again")
    return Check("bytes", True, "as recorded")


def row_checks(plan: Plan, source: Store, target: Store, cache: Cache, tell: Tell) -> Iterator[Check]:
    """Ids, payload, stamps, count; a block of every fragment mapped again; the index against exact search."""
    lost, other, foreign, rows, again, worst = 0, 0, 0, 0, 0, 0.0
    canaries = Canaries.kept(plan.state)
    ours = theirs = None
    if canaries is not None and target.has_index():
        ours = AskedIndex(target, plan.metric, queries_for(plan.strategy, canaries))
        theirs = AskedIndex(source, plan.metric, canaries.old) if source.has_index() else None
    for number, fragment in enumerate(plan.all_fragments()):
        left_out = {row["id"] for row in left_out_rows(plan, number)}
        for i, batch in enumerate(kept(source.read(fragment, BLOCK), left_out)):
            probe = i == 0
            there = target.fetch(number, batch.ids, vectors=probe or ours is not None)
            here = batch
            if len(there) != len(batch):
                lost += len(batch) - len(there)
                found = set(there.ids.tolist())
                here = batch.keep(np.array([key in found for key in batch.ids.tolist()], bool))
            if not target.shared:
                other += int((~same_payload(here.payload, there.payload, len(here))).sum())
            if there.stamps is not None:
                foreign += sum(stamp not in (plan.stamp, plan.model) for stamp in there.stamps)
            for each, seen in ((ours, there), (theirs, batch)):
                if each is not None:
                    each.exact.add(seen.ids, seen.vectors)
            if probe and len(there) == len(batch):
                expected = joined(list(mapped(plan.row_map, [batch], plan.stamp, source.name)))
                expected = cache.into(expected, plan, native(plan, there))
                again += len(batch)
                worst = max(worst, furthest(there.vectors, expected.vectors))
            rows += len(here)
        tell("checked", {"fragment": number, "rows": rows})
    count = target.count()
    told = f"{rows} rows, {lost} missing, {count} in the new gallery"
    if count > rows - lost and (plan.state / "after-switch.jsonl").exists():
        told += "; what users wrote after a switch is there only (PLAN.state/after-switch.jsonl): give it to the old "
        told += "gallery too, or remove it from the new one"
    yield Check("ids", not lost and count == rows, told)
    yield Check("payload", not other, f"{other} rows with another payload" if other else "equal in every row")
    yield Check("stamps", not foreign, f"{foreign} rows stamped by others" if foreign else "mapped or native")
    yield Check("recomputed", worst <= target.tolerance, f"{again} rows mapped again, furthest value off {worst:.1g}")
    if ours is not None:
        yield ours.check(theirs)


def native(plan: Plan, there: Batch) -> Array | None:
    """Which rows ``(m,)`` of a batch of the new gallery are of the new model: of what is bought, some may wait."""
    return None if there.stamps is None else np.array([stamp == plan.model for stamp in there.stamps], bool)


def kept(batches: Iterator[Batch], left_out: set[Any]) -> Iterator[Batch]:
    """The rows that were not left out."""
    for batch in batches:
        if not left_out:
            yield batch
            continue
        good = batch.keep(np.array([key not in left_out for key in batch.ids.tolist()], bool))
        if len(good):
            yield good


def furthest(a: Array, b: Array) -> float:
    """The largest difference of two arrays of one shape; infinite where the shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0))


def estimated(plan: Plan, source: Store, target: Store, cache: Cache) -> Iterator[Check]:
    """The estimate's own queries, asked of the rows as they were written; nothing where the map has no estimate.

    It is of the map: a row that the new model made stands in as the map would have put it.
    """
    if plan.estimate is None:
        return
    probe = Probe.carried(plan.alignment)
    assert probe is not None
    native = 0

    def rows() -> Iterator[tuple[Array, Array]]:
        nonlocal native
        for fragment in target.fragments(FRAGMENT_ROWS):
            for batch in target.read(fragment, BLOCK):
                there = cache.holds(batch.ids)
                native += int(there.sum())
                yield batch.ids[~there], batch.vectors[~there]
        for fragment in source.fragments(FRAGMENT_ROWS) if native else ():
            for batch in source.read(fragment, BLOCK):
                there = cache.holds(batch.ids)
                if there.any():
                    yield batch.ids[there], plan.row_map(batch.vectors[there], source.name)

    ok, found = reproduced(plan, rows(), probe)
    yield Check("estimate", ok, found + (f"; {native} rows of the new model taken as mapped" if native else ""))


def fresh(plan: Plan, source: Store) -> Iterator[Check]:
    """Nothing came to the old gallery that is not in the new one."""
    if plan.strategy == "bridge":
        changed = waiting(plan, source)
        yield Check("caught up", not changed, "the index was changed; run apply" if changed else "asked as it is")
        return
    if not source.live:
        known = {f["part"]: f["mark"] for f in plan.all_fragments()}
        now = {f["part"]: f["mark"] for f in source.fragments(1 << 62)}
        odd = sorted(part for part in known if now.get(part) != known[part])
        if odd:
            found = (
                f"parts that were changed or removed after the plan was made: {', '.join(odd)}; plan anew, and apply"
            )
            yield Check("caught up", False, found)
            return
        new = sorted(now.keys() - known.keys())
        yield Check("caught up", not new, f"new parts: {', '.join(new)}; run apply" if new else "no new parts")
        return
    late = behind(plan, source)
    yield Check("caught up", not late, f"{late} rows came, changed or went since; run apply" if late else "all")


def recognised(plan: Plan, source: Store) -> Check:
    """The old gallery still gives the vectors that the map knows by id."""
    known = 0
    try:
        for number, fragment in enumerate(plan.all_fragments()):
            if not (plan.state / f"sample-{number:06d}.npy").exists():
                continue
            for batch in source.read(fragment, BLOCK):
                known += require_still(plan.alignment, batch.ids, batch.vectors, source.name, lossy=plan.lossy)
                break
    except RefusedError as error:
        return Check("canaries", False, str(error))
    return Check("canaries", True, f"{known} rows that the map knows by id have their vectors")


def semantic(plan: Plan, source: Store, target: Store, cache: Cache) -> Check:
    """The semantic canary on the rows as they were written: within the interval of the plan, and above chance."""
    canaries = Canaries.kept(plan.state)
    if plan.evidence is None or canaries is None:
        return Check("semantic", False, "the plan has no evidence: plan with --queries OLD NEW")
    old, new, moved = [], [], False
    for path in sorted(plan.state.glob("sample-*.npy")):
        with path.open("rb") as file:
            ids, vectors = np.load(file), np.load(file)
        ids = ids.astype(object) if ids.dtype.kind == "U" else ids
        if source.live:  # what was sampled may have changed, and the new gallery with it
            now_there = source.fetch(0, ids)
            moved |= now_there.ids.tolist() != ids.tolist() or not np.array_equal(now_there.vectors, vectors)
            ids, vectors = now_there.ids, now_there.vectors
        there = target.fetch(int(path.stem.split("-")[1]), ids)
        found = {key: i for i, key in enumerate(ids.tolist())}
        old.append(vectors[[found[key] for key in there.ids.tolist()]])
        new.append(replace(there, payload=None))
    planned, now_new = plan.evidence, joined(new)
    if moved or len(cache):  # what is there now is not what was planned on: the same, made in memory
        made = now_new.with_vectors(plan.row_map(np.concatenate(old), source.name), now_new.stamps)
        rows = cache.into(made, plan, native(plan, now_new)).vectors
        planned = agreement(queries_for(plan.strategy, canaries), rows, canaries.old, np.concatenate(old)) or planned
    found_now = agreement(queries_for(plan.strategy, canaries), now_new.vectors, canaries.old, np.concatenate(old))
    if found_now is None:
        return Check("semantic", False, "too few rows are left to tell")
    now, then = found_now["overlap@10"]["estimate"], planned["overlap@10"]
    inside = then["low"] <= now <= then["high"]
    above = found_now["above_chance"]["low"]
    return Check(
        "semantic",
        inside and above > 0,
        f"overlap@10 of new and old queries {now:.3f}, planned {then['estimate']:.3f} [{then['low']:.3f}, "
        f"{then['high']:.3f}], above wrong pairs by at least {above:.3f}",
    )
