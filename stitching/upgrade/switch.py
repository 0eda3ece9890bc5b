"""Leading users to the new gallery, and back; and the one command that deletes."""

from __future__ import annotations

import json
from typing import Any

from ...aligners.errors import RefusedError
from ..apply import BLOCK
from ..stores import Store
from ..stores.batch import canonical, records
from ..stores.disk import aside, read_json, write_json
from .apply import left_out_rows
from .events import Tell, quiet
from .lock import locked
from .plan import Plan
from .verify import fresh, verified

__all__ = ["phase", "retire", "rollback", "switch"]


def phase(plan: Plan) -> str:
    """ "planned", "switching", "switched", "rolling back", "rolled back" or "retired"."""
    return str((read_json(plan.state / "phase.json") or {"phase": "planned"})["phase"])


def enter(plan: Plan, name: str, **facts: Any) -> None:
    """Record what is being done before it is done, so that a run that was killed can be understood."""
    before = read_json(plan.state / "phase.json") or {}
    write_json(plan.state / "phase.json", {**before, **facts, "phase": name})


def switch(plan: Plan, *, tell: Tell = quiet) -> dict[str, Any]:
    """Lead users to the new gallery. Raises `RefusedError` without a green `verify` of the gallery as it is now."""
    with (
        locked(plan.state / "locks", "whole"),
        plan.open_source() as source,
        plan.open_target() as target,
    ):
        now = phase(plan)
        if now == "retired":
            raise RefusedError(f"{plan.path}: a gallery of this plan was retired; there is nothing to switch.")
        if now in ("planned", "rolled back"):
            if not verified(plan):
                state = {None: "not verified as it is now", False: "verified and found wrong"}[verified(plan)]
                raise RefusedError(f"{target.name}: this gallery is {state}. Run `suture gallery verify {plan.path}`.")
            for check in fresh(plan, source):
                if not check.ok:
                    raise RefusedError(f"{source.name}: {check.found} and verify, then switch.")
            enter(plan, "switching", before=target.serving(source))
            tell("switching", {})
        elif now == "rolling back":
            raise RefusedError(
                f"{plan.path}: a rollback was begun; finish it with `suture gallery rollback {plan.path}`."
            )
        if now != "switched":
            numbers = range(len(plan.all_fragments()))
            target.point(source, at="target", left_out=sum(len(left_out_rows(plan, number)) for number in numbers))
            tell("pointed", {})
            enter(plan, "switched")
            tell("switched", {})
        return {"serves": target.name, "open": target.undone(source), "undo": f"suture gallery rollback {plan.path}"}


def rollback(plan: Plan, *, tell: Tell = quiet) -> dict[str, Any]:
    """Lead users back to the old gallery, as it was. Rows written to the new one since are listed, and stay there."""
    with (
        locked(plan.state / "locks", "whole"),
        plan.open_source() as source,
        plan.open_target() as target,
    ):
        now = phase(plan)
        if now not in ("switching", "switched", "rolling back"):
            raise RefusedError(f"{plan.path}: it was not switched ({now}); there is nothing to roll back.")
        if now != "rolling back":
            written = target.written_since(source, plan.stamp, plan.model)
            rows = written if written is not None else since(plan, source, target)
            with aside(plan.state / "after-switch.jsonl") as file:
                for row in rows:
                    file.write(json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n")
            enter(plan, "rolling back", listed=len(rows))
            tell("rolling back", {"rows": len(rows)})
        record = read_json(plan.state / "phase.json")
        target.point(source, at=record["before"])
        tell("pointed", {})
        enter(plan, "rolled back")
        tell("rolled back", {})
        return {
            "serves": source.name,
            "written_since": record["listed"],
            "listed_in": str(plan.state / "after-switch.jsonl"),
        }


def since(plan: Plan, source: Store, target: Store) -> list[dict[str, Any]]:
    """Rows of the new gallery that are not the upgrade's: by stamp, or against a live source by id and payload."""
    found: list[dict[str, Any]] = []
    if not target.live:
        return found
    for fragment in target.fragments(BLOCK):
        for batch in target.read(fragment, BLOCK, vectors=False):
            rows, keys = records(batch.payload, len(batch)), batch.ids.tolist()
            stamps = batch.stamps or [None] * len(batch)
            old = source.fetch(0, batch.ids, vectors=False) if source.live else None
            before = {} if old is None else dict(zip(old.ids.tolist(), records(old.payload, len(old)), strict=True))
            for key, stamp, row in zip(keys, stamps, rows, strict=True):
                foreign = stamp not in (plan.stamp, plan.model)
                if foreign or (old is not None and (key not in before or canonical(before[key]) != canonical(row))):
                    found.append({"id": key, "payload": row})
    return found


def retire(plan: Plan, confirm: str) -> dict[str, Any]:
    """Delete the gallery that is not served: the old one after a switch, else the new one. Nothing else deletes.

    ``confirm`` is its address, word for word. Raises `RefusedError` where it is not, or in the middle of a switch.
    """
    with (
        locked(plan.state / "locks", "whole"),
        plan.open_source() as source,
        plan.open_target() as target,
    ):
        now = phase(plan)
        if now in ("switching", "rolling back", "retired"):
            raise RefusedError(f"{plan.path}: {now}; there is nothing to retire now.")
        goes = source if now == "switched" else target
        if confirm != goes.name:
            raise RefusedError(
                f"retire would delete {goes.name} for ever; confirm it by its name: --confirm '{goes.name}' (got "
                f"'{confirm}')."
            )
        if now == "switched" and plan.strategy == "bridge" and target.address.scheme == "bridge":
            raise RefusedError(f"{source.name}: the bridge leads to this gallery; it is not deleted.")
        called = goes.called  # a switch by renaming has given it another name
        goes.drop()
        enter(plan, "retired", deleted=called)
        return {"deleted": called}
