"""What the commands that carry out an upgrade share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

__all__ = ["PlanFile", "progress"]

PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="A plan made by `suture gallery plan`.")]


@contextmanager
def progress(total: int, what: str, *, as_json: bool, safe: str) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Progress on stderr: a bar and what is ``safe`` to do now for people; with ``--json`` one event a line."""
    from ..output import rows_progress, say_aside

    started = perf_counter()
    done = 0
    with rows_progress(total, what) as advance:
        if not as_json:
            say_aside(safe)

        def tell(step: str, facts: dict[str, Any]) -> None:
            nonlocal done
            rows = facts.get("rows", 0) if step in ("recorded", "caught-up", "checked", "embedded") else 0
            rows = rows - done if step == "checked" else rows
            done += rows
            advance(rows)
            if as_json:
                seconds = perf_counter() - started
                rate = done / seconds if seconds else 0.0
                left = round(max(total - done, 0) / rate, 1) if rate else None
                event = {"event": step, **facts, "done": done, "rows_per_second": round(rate), "seconds_left": left}
                print(json.dumps(event), file=sys.stderr, flush=True)

        yield tell
