"""`suture gallery apply`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ..options import Json
from .options import PlanFile, progress

__all__ = ["apply"]


def apply(
    plan: PlanFile,
    shard: Annotated[str | None, typer.Option(help="Only fragments i, i + n, ... as i/n, counted from 0.")] = None,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Stop after about so many rows.")] = None,
    engine: Annotated[Literal["local", "dask"], typer.Option(help="Where fragments are mapped.")] = "local",
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask cluster; by default one is started.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers of a Dask cluster that is started here.")] = 2,
    json: Json = False,
) -> None:
    """Write the new gallery. Stopped at any instant, the same command goes on; the old gallery is never written."""
    from ...aligners.errors import IncompleteError, UsageError
    from ...stitching.upgrade.apply import rows_left
    from ...stitching.upgrade.plan import load_plan
    from ..output import print_json, say

    made = load_plan(plan)
    i, _, n = (shard or "0/1").partition("/")
    if not (i.isdigit() and n.isdigit()):
        raise UsageError(f"--shard: expected i/n, as 0/4, got '{shard}'.")
    safe = "The old gallery serves on; this may be stopped or killed, and the same command goes on."
    with progress(rows_left(made, (int(i), int(n))), "mapping rows", as_json=json, safe=safe) as tell:
        if engine == "dask" and made.strategy != "bridge":
            from ...stitching.upgrade.dask import apply_on_dask

            if shard is not None or max_rows is not None:
                raise UsageError("--engine dask does all fragments: it takes neither --shard nor --max-rows.")
            done = apply_on_dask(made, scheduler=scheduler, workers=workers, tell=tell)
        else:
            from ...stitching.upgrade.apply import apply as apply_plan

            done = apply_plan(made, shard=(int(i), int(n)), max_rows=max_rows, tell=tell)
    if json:
        print_json({"plan": str(plan), **done})
    else:
        say(f"{done['rows']} rows written in {done['fragments']} fragments; {done['left']} fragments are left")
        if not done["left"]:
            say(f"next: suture gallery verify {plan}", style="bold")
    if max_rows is not None and done["left"]:
        if json:
            raise typer.Exit(6)
        raise IncompleteError(f"{plan}: stopped after --max-rows {max_rows}; run apply again to go on.")
