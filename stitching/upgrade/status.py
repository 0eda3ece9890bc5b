"""Where an upgrade stands, and what is safe to do now."""

from __future__ import annotations

from typing import Any

from ..stores import Address
from ..stores.disk import read_json
from .cache import Cache
from .lock import held
from .phase import phase
from .plan import Plan
from .verify import verified

__all__ = ["status"]


def status(plan: Plan) -> dict[str, Any]:
    """Counts, the phase, who is at work, and the next step, as plain JSON. Reads only the plan's own folder."""
    fragments, entries = plan.all_fragments(), plan.ledger.entries()
    done = [entries[n] for n in range(len(fragments)) if n in entries]
    now = phase(plan.state)
    finished = read_json(plan.state / "finished.json")
    whole = len(done) == len(fragments) and finished is not None and finished["ledger"] == plan.ledger.digest()
    with Cache.of(plan) as cache:
        native = len(cache)
    owners = [held(path) for path in sorted((plan.state / "locks").glob("*.lock"))]
    running = [owner for owner in owners if owner is not None]
    return {
        "plan": str(plan.path),
        "source": Address.parse(plan.source).shown,
        "target": Address.parse(plan.target).shown,
        "strategy": plan.strategy,
        "phase": now,
        "fragments": len(fragments),
        "fragments_done": len(done),
        "rows": sum(
            entries[n]["rows"] + entries[n]["quarantined"] if n in entries else f["rows"]
            for n, f in enumerate(fragments)
        ),
        "rows_done": sum(entry["rows"] for entry in done),
        "quarantined": sum(entry["quarantined"] for entry in done),
        "native": native,
        "applied": whole,
        "verified": verified(plan),
        "running": running,
        "next": next_step(plan, now, whole=whole, green=verified(plan), running=bool(running)),
    }


def next_step(plan: Plan, now: str, *, whole: bool, green: bool | None, running: bool) -> str:
    """What to do now; everything before `switch` leaves what is served untouched."""
    name = f"suture gallery {{}} {plan.path}"
    if running:
        return "wait; or stop it, which is safe: the same command goes on"
    if now == "switched":
        return f"new gallery served; back: {name.format('rollback')}; for good: {name.format('retire')}"
    if now in ("switching", "rolling back"):
        return f"interrupted: {name.format('switch' if now == 'switching' else 'rollback')} goes on"
    if now == "retired":
        return "nothing"
    if not whole:
        return f"{name.format('apply')} (the old gallery is served and never written)"
    if green is None:
        return name.format("verify")
    return name.format("switch") if green else "see what verify found; nothing was switched"
