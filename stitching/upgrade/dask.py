"""The same plan on a Dask cluster: fragments are tasks, and the ledger is the only state they share."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from ...aligners.errors import RefusedError
from ..dumps.extras import need
from ..stores.disk import write_json
from .apply import apply_fragment, left_bytes, take_up_new_parts, unfinished
from .events import Tell, quiet, stopping
from .lock import locked
from .plan import Plan

__all__ = ["apply_on_dask"]

AHEAD = 4  # tasks a worker has in hand: a scheduler need not hold a million of them


def apply_on_dask(plan: Plan, *, scheduler: str | None = None, workers: int = 2, tell: Tell = quiet) -> dict[str, Any]:
    """`apply` by the workers of the cluster at ``scheduler``, or of one that is started here.

    Workers must see the plan, its folder and both galleries under the same paths. A task that is lost is done again,
    which changes nothing. Raises `RefusedError` for a store that only one process can open.
    """
    distributed = need("distributed", "dask")
    with ExitStack() as exits:
        exits.enter_context(locked(plan.state / "locks", "whole"))
        source, target = exits.enter_context(plan.open_source()), exits.enter_context(plan.open_target())
        if source.live and target.live and not target.shared:
            raise RefusedError(f"{target.name}: changing stores are upgraded by one process; leave --engine dask away.")
        exits.enter_context(stopping(left_bytes(plan), target.name))
        target.create(plan.spec())
        take_up_new_parts(plan, source, tell, writes=True)
        left = [
            number
            for number in range(len(plan.all_fragments()))
            if (entry := plan.ledger.get(number)) is None or not target.recorded(number, entry, deep=False)
        ]
        if scheduler is None:
            cluster = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
            )
            exits.enter_context(cluster)
            scheduler = cluster.scheduler_address
        client = exits.enter_context(distributed.Client(scheduler))
        rows = 0
        path = str(plan.path.resolve())
        ahead = AHEAD * max(len(client.scheduler_info(n_workers=-1)["workers"]), 1)
        pending = distributed.as_completed([client.submit(apply_fragment, path, n, pure=False) for n in left[:ahead]])
        waiting = iter(left[ahead:])
        for future in pending:
            entry = future.result()
            rows += entry["rows"]
            tell("recorded", {"fragment": entry["number"], "rows": entry["rows"]})
            following = next(waiting, None)
            if following is not None:
                pending.add(client.submit(apply_fragment, path, following, pure=False))
        if not unfinished(plan, target):
            target.finish(plan.spec())
            write_json(plan.state / "finished.json", {"ledger": plan.ledger.digest()})
            tell("finished", {})
        return {"rows": rows, "fragments": len(left), "left": unfinished(plan, target)}
