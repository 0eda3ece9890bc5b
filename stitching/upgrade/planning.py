"""Making a plan: the old gallery is looked through once, and everything that can be refused is refused now."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...aligners.alignment import Alignment
from ...aligners.errors import RefusedError, SutureError, UsageError
from ...aligners.file import load, to_bytes
from ...aligners.recognise import require_width
from ..apply import BLOCK, Norm
from ..dumps import open_dump
from ..dumps.arrays import Array
from ..stores import Fragment, Store, open_store
from ..stores.batch import joined
from ..stores.disk import aside, read_state, write_json
from .cache import Cache
from .evidence import Canaries, agreement, queries_for, require_still
from .lock import locked
from .phase import phase
from .plan import FRAGMENT_ROWS, Plan, load_plan, open_target, save_plan
from .reproduce import answers, promised
from .rows import RowMap, bad_rows, facing, row_map
from .unique import SeenIds

__all__ = ["make_plan"]

SAMPLED = 16  # fragments from which the semantic sample is drawn
EACH = 256  # rows of each
METRICS = ("cosine", "dot", "l2")


def make_plan(
    map_file: Path,
    source: str,
    target: str,
    path: Path,
    *,
    strategy: str = "map",
    model: str | None = None,
    dtype: str | None = None,
    normalize: Norm = "auto",
    order: str = "residual",
    fragment_rows: int = FRAGMENT_ROWS,
    bad: str = "refuse",
    familiar: bool = True,
    accept_lossy: bool = False,
    queries: tuple[Path, Path] | None = None,
    overwrite: bool = False,
    advance: Callable[[int], None] = lambda rows: None,
) -> Plan:
    """Look through the gallery ``source`` and write the plan of moving it to ``target`` by ``map_file``.

    ``queries``: old-model and new-model rows of the same items, for the semantic canary, where the map keeps none or
    others are wanted. ``bad``: "refuse" or "quarantine" NaN, infinite and zero rows. Writes only the plan and the
    folder beside it. Raises `RefusedError` where going on would give a wrong gallery.
    """
    if path.exists() and not overwrite:
        raise RefusedError(f"{path} exists; name another plan or give --overwrite.")
    state = path.with_name(f"{path.name}.state")
    if state.exists():
        if not overwrite:
            raise RefusedError(f"{state} exists, it belongs to an earlier plan of this name. Name another.")
        if stopped(path, bad) is None:
            require_worthless(state)
    if bad not in ("refuse", "quarantine"):
        raise UsageError(f"--bad-rows: expected refuse or quarantine, got '{bad}'.")
    if fragment_rows < 1:
        raise UsageError(f"--fragment-rows: expected at least 1, got {fragment_rows}.")
    alignment = load(map_file)
    kept = map_file.read_bytes()
    with open_store(source) as old, open_target(target, strategy) as new:
        old.require()
        facts = old.facts()
        named = model or model_of(alignment)
        if facts.model is not None and facts.model.partition("@")[0] == named:
            raise RefusedError(f"{old.name}: its rows are stamped {facts.model} already; they are in the new space.")
        if strategy == "bridge" and old.count():
            first = next(iter(draw(old, list(old.fragments(fragment_rows))).values()))
            faced = facing(alignment, first.vectors, old.name, behaviour=familiar, lossy=facts.lossy is not None)
            alignment, kept = (alignment, kept) if faced is alignment else (faced, to_bytes(faced))
        sides = {name: alignment.map_of(name).source_dim for name in ("source", "target")}
        require_width(sides, "source", facts.dim, old.name)
        if facts.lossy and not accept_lossy and strategy != "bridge":
            raise RefusedError(
                f"{old.name}: {facts.lossy}. What comes back is not what went in; map the original vectors, or take "
                "the loss knowingly (--accept-lossy)."
            )
        rows = row_map(alignment, strategy, dtype or facts.dtype, normalize, lossy=facts.lossy is not None)
        new.accept(old, facts, rows.dim, strategy)
        if strategy == "bridge" and facts.metric == "l2" and rows.normalize != "l2" and new.address.scheme == "bridge":
            raise RefusedError(
                f"{old.name}: it ranks by L2 distance over rows of any length, and suture.stitching.serving.Bridge "
                "gives queries of length 1: these rank otherwise. Bridge a faiss index, or use --strategy map."
            )
        fragments = list(old.fragments(fragment_rows))
        if not fragments:
            raise RefusedError(f"{old.name}: there is no row to move.")
        sought = scan(old, fragments, answers(alignment), advance)
        sample = draw(old, fragments)
        for batch in sample.values():
            rows.check(batch.vectors, old.name, behaviour=familiar)
        ids = np.concatenate([batch.ids for batch in sample.values()])
        vectors = np.concatenate([batch.vectors for batch in sample.values()])
        known = require_still(alignment, ids, vectors, old.name, lossy=facts.lossy is not None)
        canaries = given(queries, sides) if queries else Canaries.of(alignment)
        evidence, notes = weigh(strategy, rows, canaries, vectors, old.name)
        metric = facts.metric or ("cosine" if rows.normalize == "l2" else "dot")
        plain = strategy in ("map", "bridge") and rows.normalize == "none" and metric != "cosine"
        count = sum(f["rows"] for f in fragments)
        estimate, unchecked = promised(alignment, strategy, count, sought, by=metric if plain else "cosine")
        notes += unchecked
        if evidence is None and estimate is None and alignment.provenance.get("method") == "compose":
            raise RefusedError(
                f"{map_file}: this map is a chain of {len(alignment.provenance['parts'])}, and what a chain keeps is "
                "not told by its parts. Give --queries OLD NEW, rows of the same items by the first and last model, "
                "or fit one map between these."
            )
        if facts.model is not None and "@map:" in facts.model:
            notes.append(f"these rows are mapped ones ({facts.model}): a map of native rows loses less")
        if not known:
            notes.append("the map remembers none of the sampled rows by id, so only their behaviour was recognised")
        needed = new.bytes_for(count, rows.dim, np.dtype(rows.dtype).itemsize, facts.bytes)
        plan = Plan(
            path=path,
            source=old.pinned(),
            target=target,
            strategy=strategy,
            model=named,
            lossy=facts.lossy is not None,
            map_hash=hashlib.sha256(kept).hexdigest(),
            dtype=str(rows.dtype),
            normalize=rows.normalize,
            metric=metric,
            dim=rows.mapping.source_dim if strategy == "bridge" else rows.dim,
            id_kind=facts.id_kind,
            rows=0 if strategy == "bridge" else count,
            bytes_needed=needed,
            bad_rows=bad,
            familiar=familiar,
            order=order,
            fragments=[{"rows": 0}] if strategy == "bridge" else fragments,
            evidence=evidence,
            estimate=estimate,
            notes=notes,
        )
        new.adopt(plan.owner, "target")
        new.vacant(plan.spec())
        new.room_for(needed)
    if not goes_on(plan):
        drawn = secrets.token_hex(8)
        if state.exists():
            with locked(state / "locks", "whole"):
                require_worthless(state)
                drawn = read_state(state / "owner.json") or drawn  # what the earlier plan began is this one's, if equal
                shutil.rmtree(state)
        keep(plan, kept, canaries, sample)
        write_json(state / "owner.json", drawn)
    save_plan(plan)
    return plan


def stopped(path: Path, bad: str) -> Plan | None:
    """The earlier plan at this path if it was stopped by bad rows, which are now to be left out; else None."""
    try:
        before = load_plan(path)
    except SutureError:
        return None
    return before if before.bad_rows == "refuse" != bad and phase(before.state) == "planned" else None


def goes_on(plan: Plan) -> bool:
    """Whether the plan that is overwritten was the same, but for bad rows: what was done of it stands."""
    before = stopped(plan.path, plan.bad_rows)
    return before is not None and before.hash == plan.hash and plan.state.exists()


def require_worthless(state: Path) -> None:
    """Raise `RefusedError` where the folder of an earlier plan holds what cannot be had again."""
    now, bought, listed = phase(state), state / "native.sqlite", state / "after-switch.jsonl"
    if now in ("switching", "switched", "rolling back"):
        raise RefusedError(
            f"{state}: the earlier plan of this name is {now}, and this folder is the only way back. Roll it back "
            "first, or name another plan (-o)."
        )
    with Cache(bought, 0) as cache:
        if len(cache):
            raise RefusedError(
                f"{bought}: {len(cache)} rows of the new model are kept here, which were paid for. Name another plan "
                "(-o), or move this file away."
            )
    if listed.exists() and listed.stat().st_size:
        raise RefusedError(
            f"{listed}: the rows that users wrote after a switch are listed here. Name another plan (-o), or move this "
            "file away."
        )


def scan(old: Store, fragments: list[Fragment], sought: Array, advance: Callable[[int], None]) -> int:
    """Every id once, of one kind; counts as announced. Raises `RefusedError` with a few of the repeated ids.

    The value says how many of the ids with the hashes ``sought`` are there.
    """
    kinds, found = set[bool](), 0
    with SeenIds() as seen:
        for fragment in fragments:
            count = 0
            for batch in old.read(fragment, BLOCK, vectors=False):
                kinds.add(batch.ids.dtype.kind in "iu")
                found += int(np.isin(seen.add(batch.ids).view(np.int64), sought).sum())
                count += len(batch)
                advance(len(batch))
            if count != fragment["rows"]:
                raise RefusedError(f"{old.name}: expected {fragment['rows']} rows in {fragment}, got {count}.")
        if len(kinds) > 1:
            raise RefusedError(f"{old.name}: expected ids that are all integers or all texts, got both.")
        repeated = seen.repeated()
    if not len(repeated):
        return found
    with SeenIds() as seen:
        times: dict[Any, int] = {}
        for fragment in fragments:
            for batch in old.read(fragment, BLOCK, vectors=False):
                for i in np.flatnonzero(np.isin(seen.add(batch.ids), repeated)).tolist():
                    times[batch.ids[i]] = times.get(batch.ids[i], 0) + 1
    doubled = {key: n for key, n in times.items() if n > 1}  # two ids may share a hash
    if doubled:
        shown = ", ".join(f"{key!r} ({n} times)" for key, n in list(doubled.items())[:5])
        raise RefusedError(
            f"{old.name}: expected every id once, {len(doubled)} stand in several rows: {shown}. Remove the repeats, "
            "or name another column of ids (?id=column)."
        )
    return found


def draw(old: Store, fragments: list[Fragment]) -> dict[int, Any]:
    """The first good rows of some fragments, from the first to the last: a later part may be of another model."""
    chosen = sorted(set(np.linspace(0, len(fragments) - 1, SAMPLED).round().astype(int).tolist()))
    each = EACH if len(fragments) > 1 else EACH * SAMPLED
    sample = {}
    for number in chosen:
        held, count = [], 0
        for batch in old.read(fragments[number], each):
            found = bad_rows(batch)
            good = np.ones(len(batch), bool)
            for at in found.values():
                good[at] = False
            held.append(batch.keep(good))
            count += len(held[-1])
            if count >= each:
                break
        if count:
            sample[number] = joined(held)
    if not sample:
        raise RefusedError(f"{old.name}: no good row was found among those that were sampled; inspect the gallery.")
    return sample


def weigh(
    strategy: str, rows: RowMap, canaries: Canaries | None, vectors: Array, what: str
) -> tuple[dict[str, Any] | None, list[str]]:
    """What the semantic canary says of the map on a sample; refused where it is no better than wrong pairs."""
    if canaries is None:
        return None, ["no semantic check: the map keeps no canaries; give --queries OLD NEW"]
    if strategy == "bridge":
        from_new = rows.mapping.forward(canaries.new.to(torch.float32)).numpy()
        found = agreement(torch.from_numpy(from_new), vectors, canaries.old, vectors)
    else:
        found = agreement(queries_for(strategy, canaries), rows(vectors, what), canaries.old, vectors)
    if found is None:
        return None, ["no semantic check: too few rows or canaries to tell"]
    if found["above_chance"]["low"] <= 0:
        raise RefusedError(
            f"{what}: new-model vectors of known items, asked of mapped rows, find what chance finds (overlap@10 "
            f"{found['overlap@10']['estimate']:.3f}, {found['above_chance']['estimate']:+.3f} over wrong pairs). The "
            "map is of other spaces, the wrong way round, or was fitted on shifted pairs: fit it again."
        )
    return found, []


def given(queries: tuple[Path, Path], sides: dict[str, int]) -> Canaries:
    """Pairs of query rows of both models, from two dumps of equal length."""
    old, new = (open_dump(path) for path in queries)
    if old.rows != new.rows:
        raise RefusedError(f"{old.name} has {old.rows} rows, {new.name} has {new.rows}: expected the same items.")
    for dump, side in ((old, "source"), (new, "target")):
        require_width(sides, side, dump.dim, dump.name)
    rows = np.arange(min(old.rows, 1000))
    return Canaries(*(torch.from_numpy(dump.gather(rows)).float() for dump in (old, new)))


def keep(plan: Plan, map_file: bytes, canaries: Canaries | None, sample: dict[int, Any]) -> None:
    """The map, the canaries and the ids of the sample, beside the plan."""
    plan.state.mkdir(parents=True)
    with aside(plan.state / "map.safetensors") as file:
        file.write(map_file)
    for number, batch in sample.items():
        with aside(plan.state / f"sample-{number:06d}.npy") as file:
            np.save(file, batch.ids.astype(str) if batch.ids.dtype == object else batch.ids, allow_pickle=False)
            np.save(file, batch.vectors, allow_pickle=False)
    if canaries is not None:
        with aside(plan.state / "canaries.npy") as file:
            np.save(file, canaries.old.numpy(), allow_pickle=False)
            np.save(file, canaries.new.numpy(), allow_pickle=False)


def model_of(alignment: Alignment) -> str:
    """A name for the new model where the user gives none: from the map's own record."""
    named = alignment.provenance.get("target")
    return str(named) if isinstance(named, str) else "target"
