"""The strategy that writes no rows: new-model queries are mapped into the old space, and the old gallery is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ...aligners.errors import RefusedError
from ...aligners.maps import Affine
from ..apply import BLOCK
from ..dumps.arrays import Array
from ..gallery.probe import Probe
from ..serving import Bridge
from ..stores import Store
from ..stores.bridge import BridgeStore
from ..stores.disk import mark, write_json
from ..stores.faiss import FaissStore, holds
from .events import Tell, stopping
from .evidence import Canaries, Check, agreement, require_still
from .lock import locked
from .nearest import AskedIndex
from .plan import FRAGMENT_ROWS, Plan
from .planning import draw
from .reproduce import asked, reproduced

__all__ = ["apply_bridge", "bridge_checks", "waiting"]

ASKED = 64
SAME = 1e-5


def apply_bridge(plan: Plan, tell: Tell) -> dict[str, Any]:
    """Write the one file there is to write, unless it stands already and the old index is as it was."""
    with locked(plan.state / "locks", "whole"), plan.open_source() as source, plan.open_target() as target:
        assert isinstance(target, BridgeStore)
        entry = plan.ledger.get(0)
        if entry is None or waiting(plan, source) or not target.recorded(0, entry, deep=True):
            with stopping(plan.bytes_needed, target.name):
                target.create(plan.spec())
                tell("created", {})
                of = mark(source.path) if isinstance(source, FaissStore) else None
                made = target.put(source, plan.alignment, turn(plan), unit=plan.normalize == "l2")
                tell("written", {"fragment": 0})
                plan.ledger.put(0, {**made, "of": of, "rows": 0, "quarantined": 0})
        write_json(plan.state / "finished.json", {"ledger": plan.ledger.digest()})
        tell("finished", {})
    return {"rows": 0, "fragments": 1, "left": 0}


def turn(plan: Plan) -> Affine:
    """The affine part of what becomes of a query."""
    found = plan.alignment.translate("target", "source")
    assert isinstance(found, Affine)
    return found


def waiting(plan: Plan, source: Store) -> bool:
    """Whether a faiss index was changed since it was copied; any other gallery is asked as it is."""
    of = (plan.ledger.get(0) or {}).get("of")
    return of is not None and isinstance(source, FaissStore) and mark(source.path) != of


def bridge_checks(plan: Plan, source: Store, target: Store, tell: Tell) -> Iterator[Check]:
    """What is proven of a bridge: that it is the map, that the rows behind it are untouched, and what it finds."""
    assert isinstance(target, BridgeStore)
    generator = torch.Generator().manual_seed(0)
    queries = torch.nn.functional.normalize(torch.randn(ASKED, plan.dim, generator=generator), dim=1)
    expected = plan.row_map.forward(queries)
    if isinstance(source, FaissStore) and target.inside:
        index = FaissStore(target.address)
        yield Check("rows", holds(index.index, source.index), "the index inside is the old one, bit for bit")
        same = index.search(queries.numpy(), 10) == source.search(expected.numpy(), 10)
        found = "finds" if same else "does not find"
        yield Check("queries", same, f"it {found} for new queries what the old index finds for mapped ones")
    else:
        served = Bridge.load(target.path, side="source")(queries.numpy())
        off = float((torch.from_numpy(served) - torch.nn.functional.normalize(expected, dim=1)).abs().max())
        yield Check(
            "queries", off <= SAME, f"serving.Bridge maps {ASKED} queries as the map does, furthest off {off:.1g}"
        )
    yield from asked_again(plan, source, tell)


def asked_again(plan: Plan, source: Store, tell: Tell) -> Iterator[Check]:
    """New-model queries over the bridge on the old gallery as it is now: canaries, index, semantic, estimate."""
    sample = draw(source, list(source.fragments(FRAGMENT_ROWS)))
    ids = np.concatenate([batch.ids for batch in sample.values()])
    rows = np.concatenate([batch.vectors for batch in sample.values()])
    try:
        known = require_still(plan.alignment, ids, rows, source.name, lossy=plan.lossy)
        yield Check("canaries", True, f"{known} rows that the map knows by id have their vectors")
    except RefusedError as error:
        yield Check("canaries", False, str(error))
    canaries = Canaries.kept(plan.state)
    probe = Probe.carried(plan.alignment) if plan.estimate is not None else None
    new = None if canaries is None else plan.row_map.forward(canaries.new)
    if new is None and probe is not None:
        new = asked(plan, probe)
    asking = [new] if canaries is None else [new, canaries.old]
    ways = [AskedIndex(source, plan.metric, q) for q in asking if q is not None and source.has_index()]

    def passing() -> Iterator[tuple[Array, Array]]:
        done = 0
        for number, fragment in enumerate(source.fragments(FRAGMENT_ROWS)):
            for batch in source.read(fragment, BLOCK):
                for way in ways:
                    way.exact.add(batch.ids, batch.vectors)
                done += len(batch)
                yield batch.ids, batch.vectors
            tell("checked", {"fragment": number, "rows": done})

    if probe is not None:
        yield Check("estimate", *reproduced(plan, passing(), probe))
    elif ways:
        for _ in passing():
            pass
    if ways:
        yield ways[0].check(ways[1] if len(ways) > 1 else None)
    if canaries is not None and plan.evidence is not None and new is not None:
        found = agreement(new, rows, canaries.old, rows)
        then = plan.evidence["overlap@10"]
        now = found["overlap@10"]["estimate"] if found else 0.0
        above = found["above_chance"]["low"] if found else 0.0
        yield Check(
            "semantic",
            then["low"] <= now <= then["high"] and above > 0,
            f"overlap@10 of bridged and old queries {now:.3f}, planned {then['estimate']:.3f} [{then['low']:.3f}, "
            f"{then['high']:.3f}], above wrong pairs by at least {above:.3f}",
        )
    elif plan.estimate is None:
        yield Check("semantic", False, "the plan has no evidence: plan with --queries OLD NEW")
