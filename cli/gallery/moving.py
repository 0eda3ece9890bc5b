"""`suture gallery status`, `verify`, `switch`, `rollback` and `retire`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import Json
from .options import PlanFile, progress

__all__ = ["retire", "rollback", "status", "switch", "verify"]


def status(plan: PlanFile, json: Json = False) -> None:
    """Where the upgrade stands, who is at work, and what is safe to do now."""
    from ...stitching.upgrade.plan import load_plan
    from ...stitching.upgrade.status import status as status_of
    from ..output import print_json, say

    found = status_of(load_plan(plan))
    if json:
        print_json(found)
        return
    green = {None: "not verified", True: "verified", False: "found wrong"}[found["verified"]]
    say(f"{found['phase']}; {found['rows_done']} of {found['rows']} rows, {found['native']} re-embedded; {green}")
    if found["quarantined"]:
        say(f"{found['quarantined']} rows were left out, listed in {plan}.state/quarantine")
    for owner in found["running"]:
        say(f"at work: process {owner['pid']} on {owner['host']}")
    say(f"next: {found['next']}", style="bold")


def verify(plan: PlanFile, json: Json = False) -> None:
    """Prove the new gallery: ids, payload, checksums, rows mapped again, index, semantic canary. Exit 4 if not."""
    from ...stitching.upgrade.plan import load_plan
    from ...stitching.upgrade.verify import verify as verify_plan
    from ..output import print_json, say, table

    made = load_plan(plan)
    with progress(
        made.rows, "checking rows", as_json=json, safe="Nothing is written; the old gallery serves on."
    ) as tell:
        checks = verify_plan(made, tell=tell)
    green = all(check.ok for check in checks)
    if json:
        print_json({"plan": str(plan), "green": green, "checks": [vars(check) for check in checks]})
    else:
        table(("check", "", "found"), [(c.name, "ok" if c.ok else "WRONG", c.found) for c in checks], numbers=False)
        say(f"next: suture gallery switch {plan}" if green else "Nothing was switched.", style="bold")
    if not green:
        raise typer.Exit(4)


def switch(plan: PlanFile, json: Json = False) -> None:
    """Lead users to the new gallery; needs a green verify of the gallery as it is now. Prints the way back."""
    from ...stitching.upgrade.plan import load_plan
    from ...stitching.upgrade.switch import switch as switch_plan
    from ..output import print_json, say

    done = switch_plan(load_plan(plan))
    if json:
        print_json(done)
        return
    say(f"{done['serves']} is served now; open it as {done['open']}")
    say(f"to undo: {done['undo']}", style="bold")


def rollback(plan: PlanFile, json: Json = False) -> None:
    """Lead users back to the old gallery; rows written since the switch are listed and kept."""
    from ...stitching.upgrade.plan import load_plan
    from ...stitching.upgrade.switch import rollback as roll_plan_back
    from ..output import print_json, say

    done = roll_plan_back(load_plan(plan))
    if json:
        print_json(done)
        return
    say(f"{done['serves']} is served again")
    if done["written_since"]:
        say(f"{done['written_since']} rows were written to the new gallery since the switch: {done['listed_in']}")


def retire(
    plan: PlanFile,
    confirm: Annotated[str, typer.Option(help="The address of the gallery to delete, word for word.")],
    json: Json = False,
) -> None:
    """Delete the gallery that is not served, for ever. No other command deletes one."""
    from ...stitching.upgrade.plan import load_plan
    from ...stitching.upgrade.switch import retire as retire_plan
    from ..output import print_json, say

    done = retire_plan(load_plan(plan), confirm)
    if json:
        print_json(done)
    else:
        say(f"{done['deleted']} is deleted")
