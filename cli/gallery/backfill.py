"""`suture gallery backfill`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import Json
from .options import PlanFile, progress

__all__ = ["backfill"]


def backfill(
    plan: PlanFile,
    embedder: Annotated[
        str, typer.Option(help="module:function, called with lists of ids and of payloads; returns their new vectors.")
    ],
    budget: Annotated[int, typer.Option(min=0, help="Rows to embed at most; 0 puts in what a Cascade has cached.")],
    json: Json = False,
) -> None:
    """Re-embed rows with the new model, the worst-mapped first. What is paid for is kept, whatever happens."""
    from ...stitching.upgrade.backfill import backfill as backfill_plan
    from ...stitching.upgrade.backfill import load_embedder
    from ...stitching.upgrade.plan import load_plan
    from ..output import print_json, say

    made, embed = load_plan(plan), load_embedder(embedder)
    safe = "Each batch is kept as it comes; this may be stopped."
    with progress(budget, "embedding rows", as_json=json, safe=safe) as tell:
        done = backfill_plan(made, embed, budget=budget, tell=tell)
    if json:
        print_json({"plan": str(plan), **done})
        return
    say(f"{done['embedded']} rows embedded; {done['native']} of {done['rows']} rows are of the new model now")
    for point in done["curve"]:
        overlap = point.get("overlap@10")
        found = "" if overlap is None else f", overlap@10 about {overlap['estimate']:.3f}"
        say(f"  {100 * point['share']:.1f} % native{found}")
    say(f"next: suture gallery verify {plan}", style="bold")
