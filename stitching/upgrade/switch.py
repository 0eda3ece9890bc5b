"""Leading users to the new gallery, and back; and the one command that deletes."""

from __future__ import annotations

import json
from typing import Any

from ...aligners.errors import RefusedError
from ..stores import Store
from ..stores.disk import aside
from .apply import left_out_rows
from .cache import Cache
from .events import Tell, quiet
from .lock import locked
from .phase import enter, phase, record
from .plan import Plan
from .since import since, strange_parts
from .verify import complete, fresh, intact, verified

__all__ = ["retire", "rollback", "switch"]


def switch(plan: Plan, *, tell: Tell = quiet) -> dict[str, Any]:
    """Lead users to the new gallery. Raises `RefusedError` without a green `verify` of the gallery as it is now."""
    with (
        locked(plan.state / "locks", "whole"),
        plan.open_source() as source,
        plan.open_target() as target,
    ):
        now = phase(plan.state)
        if now == "retired":
            raise RefusedError(f"{plan.path}: a gallery of this plan was retired; there is nothing to switch.")
        if now in ("planned", "rolled back"):
            if not verified(plan):
                state = {None: "not verified as it is now", False: "verified and found wrong"}[verified(plan)]
                raise RefusedError(f"{target.name}: this gallery is {state}. Run `suture gallery verify {plan.path}`.")
            require_as_verified(plan, source, target)
            enter(plan.state, "switching", before=target.serving(source))
            tell("switching", {})
        elif now == "rolling back":
            raise RefusedError(
                f"{plan.path}: a rollback was begun; finish it with `suture gallery rollback {plan.path}`."
            )
        if now != "switched":
            numbers = range(len(plan.all_fragments()))
            target.point(source, at="target", left_out=sum(len(left_out_rows(plan, number)) for number in numbers))
            tell("pointed", {})
            enter(plan.state, "switched")
            tell("switched", {})
        return {"serves": target.name, "open": target.undone(source), "undo": f"suture gallery rollback {plan.path}"}


def rollback(plan: Plan, *, tell: Tell = quiet) -> dict[str, Any]:
    """Lead users back to the old gallery, as it was. Rows written to the new one since are listed, and stay there."""
    with (
        locked(plan.state / "locks", "whole"),
        plan.open_source() as source,
        plan.open_target() as target,
    ):
        now = phase(plan.state)
        if now not in ("switching", "switched", "rolling back"):
            raise RefusedError(f"{plan.path}: it was not switched ({now}); there is nothing to roll back.")
        if now != "rolling back":
            rows = 0
            with Cache.of(plan) as cache, aside(plan.state / "after-switch.jsonl") as file:
                for row in since(plan, source, target, cache):
                    file.write(json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n")
                    rows += 1
            enter(plan.state, "rolling back", listed=rows)
            tell("rolling back", {"rows": rows})
        facts = record(plan.state)
        target.point(source, at=facts["before"])
        tell("pointed", {})
        enter(plan.state, "rolled back")
        tell("rolled back", {})
        return {
            "serves": source.name,
            "written_since": facts["listed"],
            "listed_in": str(plan.state / "after-switch.jsonl"),
        }


def require_as_verified(plan: Plan, source: Store, target: Store) -> None:
    """Raise `RefusedError` where either gallery is no longer what `verify` saw. Files are read once.

    A part that is damaged loses its entry, so that apply does it again.
    """
    for name, check in (
        *((target.name, look(plan, target)) for look in (complete, intact)),
        *((source.name, check) for check in fresh(plan, source)),
    ):
        if not check.ok:
            raise RefusedError(f"{name}: {check.found}. Then verify, and switch.")
    strange = [part.name for part in strange_parts(plan, target, deep=False)]
    if strange:
        raise RefusedError(
            f"{target.name}: {', '.join(strange)} came after verify and is not the upgrade's. Remove it, then switch."
        )


def retire(plan: Plan, confirm: str) -> dict[str, Any]:
    """Delete the gallery that is not served: the old one after a switch, else the new one. Nothing else deletes.

    ``confirm`` is its address, word for word. Raises `RefusedError` where it is not, or in the middle of a switch.
    """
    with (
        locked(plan.state / "locks", "whole"),
        plan.open_source() as source,
        plan.open_target() as target,
    ):
        now = phase(plan.state)
        if now in ("switching", "rolling back", "retired"):
            raise RefusedError(f"{plan.path}: {now}; there is nothing to retire now.")
        goes = source if now == "switched" else target
        if goes is target and not plan.ledger.entries():
            raise RefusedError(f"{plan.path}: this plan wrote nothing; what is at {target.name} is not its own.")
        if confirm != goes.name:
            raise RefusedError(
                f"retire would delete {goes.name} for ever; confirm it by its name: --confirm '{goes.name}' (got "
                f"'{confirm}')."
            )
        if now == "switched" and plan.strategy == "bridge" and target.address.scheme == "bridge":
            raise RefusedError(f"{source.name}: the bridge leads to this gallery; it is not deleted.")
        called = goes.called  # a switch by renaming has given it another name
        goes.drop()
        enter(plan.state, "retired", deleted=called)
        return {"deleted": called}
