"""Re-embedding a gallery row by row, the worst-mapped first: each row is paid for once and never goes back."""

from __future__ import annotations

import heapq
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...aligners.arrays import as_tensor, working_dtype
from ...aligners.errors import RefusedError, UsageError
from ...aligners.pairs import mix
from ..apply import BLOCK
from ..dumps.arrays import Array
from ..dumps.ids import hash_ids
from ..stores import Batch, Store
from ..stores.batch import records
from ..stores.disk import read_json, write_json
from .apply import changed, do_fragment, left_out_rows, rows_of
from .cache import Cache
from .events import Tell, quiet, stopping
from .evidence import Canaries, agreement
from .lock import locked
from .owned import require_unwritten
from .phase import phase
from .plan import Plan, total
from .verify import kept

__all__ = ["Embedder", "backfill", "load_embedder"]

Embedder = Callable[[list[Any], list[dict[str, Any]]], Any]
"""Ids and payloads of n rows to their vectors ``(n, dim)`` by the new model."""

AT_ONCE = 256
JUDGED = 5000  # native rows on which the curve is measured


def load_embedder(name: str) -> Embedder:
    """The function ``module:function``, looked for in the working folder too. `UsageError` where there is none."""
    module, colon, function = name.partition(":")
    if not colon or not module or not function:
        raise UsageError(f"--embedder: expected module:function, got '{name}'.")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--embedder {name}: cannot be imported ({error}).") from error
    finally:
        sys.path.pop(0)
    if not callable(found):
        raise UsageError(f"--embedder {name}: expected a function of ids and payloads, got {type(found).__name__}.")
    embedder: Embedder = found
    return embedder


def backfill(plan: Plan, embed: Embedder, *, budget: int, tell: Tell = quiet) -> dict[str, Any]:
    """Embed up to ``budget`` rows that are still mapped, in the plan's order, and put them into the new gallery.

    What is embedded is durable before the next batch is asked for, so a run that stops has lost nothing it paid for.
    Rows that are in the cache already, from an earlier run or a `Cascade`, cost nothing. The value has ``embedded``,
    ``native``, ``rows`` and the point of the ``curve`` that was reached. Raises `RefusedError` where the embedder gives
    vectors of another width, or of another model than the one that the map was fitted for.
    """
    if budget < 0:
        raise UsageError(f"--budget: expected a number of rows, got {budget}.")
    if plan.strategy == "bridge":
        raise RefusedError("--strategy bridge keeps the old rows; there is nothing to backfill.")
    now = phase(plan.state)
    if now in ("switching", "rolling back", "rolled back", "retired"):
        raise RefusedError(
            f"{plan.path}: {now}; backfill works before or after a switch, not now. After a rollback: "
            "verify and switch again first."
        )
    with (
        locked(plan.state / "locks", "whole"),
        plan.open_source() as source,
        plan.open_target() as target,
        Cache.of(plan) as cache,
        stopping(budget * cache.dim * 4, str(plan.state)),
    ):
        if read_json(plan.state / "finished.json") is None:
            raise RefusedError(f"{plan.path}: apply is not done; a row is mapped before it is re-embedded.")
        require_unwritten(plan, target)
        embedded = fill(plan, source, cache, embed, budget, tell)
        native, written = place(plan, source, target, cache, tell)
        target.finish(plan.spec())
        write_json(plan.state / "finished.json", {"ledger": plan.ledger.digest()})
        curve = [*(read_json(plan.state / "curve.json") or []), quality(plan, source, cache, native)]
        write_json(plan.state / "curve.json", curve)
    rows = total(plan.ledger.entries().values())
    return {"embedded": embedded, "native": native, "written": written, "rows": rows, "curve": curve}


def fill(plan: Plan, source: Store, cache: Cache, embed: Embedder, budget: int, tell: Tell) -> int:
    """Embed the first ``budget`` rows of the order into the cache; how many were."""
    wanted = first_rows(plan, source, cache, budget)
    done, checked = 0, len(cache) > 0
    for batch in payloads(plan, source, wanted):
        vectors = cache.checked(batch.ids, embed(batch.ids.tolist(), records(batch.payload, len(batch))))
        if not checked:
            require_new_model(plan, vectors)
            checked = True
        cache.put(batch.ids, vectors)
        done += len(batch)
        tell("embedded", {"rows": len(batch)})
    return done


def require_new_model(plan: Plan, vectors: Array) -> None:
    """Refuse vectors that do not look like rows of the space that the map ends in."""
    from ...aligners.recognise import require_side

    require_side(plan.alignment, "target", as_tensor(vectors), "the embedder", behaviour=len(vectors) > 1)


def first_rows(plan: Plan, source: Store, cache: Cache, budget: int) -> dict[int, set[Any]]:
    """Ids by fragment of the ``budget`` rows that come first and are not native; memory grows with the budget only."""
    heap: list[tuple[float, int, int, Any]] = []
    rank = priority(plan)
    place = 0
    for number, fragment in enumerate(plan.all_fragments()):
        left_out = {row["id"] for row in left_out_rows(plan, number)}
        for batch in kept(source.read(fragment, BLOCK), left_out):
            native = cache.get(batch.ids)
            values = rank(batch)
            for i, key in enumerate(batch.ids.tolist()):
                place += 1
                if i in native:
                    continue
                entry = (float(values[i]), -place, number, key)
                if len(heap) < budget:
                    heapq.heappush(heap, entry)
                elif budget and entry[:2] > heap[0][:2]:
                    heapq.heapreplace(heap, entry)
    chosen: dict[int, set[Any]] = {}
    for _, _, number, key in heap:
        chosen.setdefault(number, set()).add(key)
    return chosen


def priority(plan: Plan) -> Callable[[Batch], Array]:
    """The value by which rows are taken, highest first.

    "norm": how short the mapped row is before it is brought to length 1, for a map shrinks what it cannot tell.
    "residual": how far the map is off at the nearest of the pairs it keeps (canaries); "given" takes rows as they come.
    """
    translate = plan.alignment.translate("source", "target")
    canaries = Canaries.kept(plan.state)

    def shortness(batch: Batch) -> Array:
        rows = as_tensor(batch.vectors)
        mapped = translate.forward(rows.to(working_dtype(rows.dtype)))
        return (-torch.linalg.vector_norm(mapped, dim=1)).numpy()

    def residual(batch: Batch) -> Array:
        assert canaries is not None
        unit = torch.nn.functional.normalize
        error = 1 - (unit(translate.forward(canaries.old.float()), dim=1) * unit(canaries.new.float(), dim=1)).sum(1)
        near = unit(as_tensor(batch.vectors).float(), dim=1) @ unit(canaries.old.float(), dim=1).T
        nearest = near.topk(min(16, near.shape[1]), dim=1).indices
        return error[nearest].mean(1).numpy()

    def chance(batch: Batch) -> Array:
        return mix(torch.from_numpy(hash_ids(batch.ids).view(np.int64))).double().numpy()

    if plan.order == "residual" and canaries is not None:
        return residual
    if plan.order in ("residual", "norm"):
        return shortness
    return chance if plan.order == "random" else lambda batch: np.zeros(len(batch))


def payloads(plan: Plan, source: Store, wanted: dict[int, set[Any]]) -> Iterator[Batch]:
    """The wanted rows with their payloads, in batches for the embedder."""
    fragments = plan.all_fragments()
    for number, keys in sorted(wanted.items()):
        for batch in source.read(fragments[number], BLOCK, vectors=False):
            rows = batch.keep(np.array([key in keys for key in batch.ids.tolist()], bool))
            for start in range(0, len(rows), AT_ONCE):
                yield rows.slice(start, start + AT_ONCE)


def place(plan: Plan, source: Store, target: Store, cache: Cache, tell: Tell) -> tuple[int, int]:
    """Put every native row where its mapped one still stands; how many rows are native, and how many were put.

    A part of a folder is written as a whole. Its entry goes first: a run that is killed leaves it to the next one.
    """
    native, written = 0, 0
    for number, fragment in enumerate(plan.all_fragments()):
        entry = plan.ledger.get(number)
        if entry is None and not target.live:
            do_fragment(plan, number, fragment, source, target, cache, tell)
        bought, put = native_rows(plan, number, source, target, cache)
        if entry is not None and put and target.live:  # only what is native: the other rows are there
            rows = rows_of(plan, source, fragment, cache, None, [])
            rows = (b.keep(np.array([key in put for key in b.ids.tolist()], bool)) for b in rows)
            target.write(number, (b for b in rows if len(b)))
            tell("written", {"fragment": number})
            plan.ledger.put(number, changed(entry))
            tell("recorded", {"fragment": number, "rows": len(put)})
        elif put and not target.live:
            plan.ledger.drop(number)
            tell("dropped", {"fragment": number})
            do_fragment(plan, number, fragment, source, target, cache, tell)
        native, written = native + bought, written + (bought if entry is None else len(put))
    return native, written


def native_rows(plan: Plan, number: int, source: Store, target: Store, cache: Cache) -> tuple[int, set[Any]]:
    """How many rows of a fragment are native, or can be; and which of these are mapped ones yet in the new gallery.

    A row that a user wrote or removed there is neither.
    """
    count, put = 0, set[Any]()
    left_out = {row["id"] for row in left_out_rows(plan, number)}
    for batch in kept(source.read(plan.all_fragments()[number], BLOCK, vectors=False), left_out):
        held = batch.ids[cache.holds(batch.ids)]
        if not len(held):
            continue
        there = target.fetch(number, held if target.live else batch.ids, vectors=False)  # parts are walked through
        stamp_of = dict(zip(there.ids.tolist(), there.stamps or [plan.stamp] * len(there), strict=True))
        stamps = [stamp_of.get(key) for key in held.tolist()]
        count += sum(stamp in (plan.stamp, plan.model) for stamp in stamps)
        put.update(key for key, stamp in zip(held.tolist(), stamps, strict=True) if stamp == plan.stamp)
    return count, put


def quality(plan: Plan, source: Store, cache: Cache, native: int) -> dict[str, Any]:
    """One point of the curve: the share that is native, and what new queries find, as far as it can be told so far.

    ``map_overlap@10``: of the top 10 among rows that were re-embedded, by their new vectors and by their mapped ones.
    ``overlap@10``: the whole gallery's, with native rows right and all others as good as these; the worst-mapped come
    first, so it is rather too low. Both are absent while there are too few rows to tell.
    """
    canaries = Canaries.kept(plan.state)
    share = native / max(total(plan.ledger.entries().values()), 1)
    point: dict[str, Any] = {"native": native, "share": share}
    if canaries is None or not native or plan.strategy == "dual":
        return point
    mapped, true, count = [], [], 0
    for fragment in plan.all_fragments():
        for batch in source.read(fragment, BLOCK):
            found = cache.get(batch.ids)
            rows = np.fromiter(found, np.int64, len(found))
            if len(rows):
                mapped.append(plan.row_map(batch.vectors[rows], source.name))
                true.append(np.stack([found[i] for i in rows.tolist()]))
                count += len(rows)
        if count >= JUDGED:
            break
    found_now = agreement(canaries.new, np.concatenate(mapped), canaries.new, np.concatenate(true)) if count else None
    if found_now is None:
        return point
    overlap = found_now["overlap@10"]
    whole = {key: share + (1 - share) * value for key, value in overlap.items()}
    return {**point, "map_overlap@10": overlap, "overlap@10": whole}
