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

SPEAK = 30.0  # seconds between two lines in a log
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="A plan made by `suture gallery plan`.")]


@contextmanager
def progress(total: int, what: str, *, as_json: bool, safe: str) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Progress on stderr: what is ``safe`` to do now, and a bar; with ``--json`` one event a line.

    Where stderr is no terminal, as in a log, a line every half a minute stands for the bar.
    """
    from ..output import rows_progress, say_aside

    started = spoke = perf_counter()
    logged = not as_json and not sys.stderr.isatty()
    done = 0
    with rows_progress(total, what) as advance:
        if not as_json:
            say_aside(safe)

        def tell(step: str, facts: dict[str, Any]) -> None:
            nonlocal done, spoke
            rows = facts.get("rows", 0) if step in ("recorded", "caught-up", "checked", "embedded") else 0
            rows = rows - done if step == "checked" else rows
            done += rows
            advance(rows)
            now = perf_counter()
            rate = done / (now - started) if now > started else 0.0
            left = round(max(total - done, 0) / rate, 1) if rate else None
            if as_json:
                event = {"event": step, **facts, "done": done, "rows_per_second": round(rate), "seconds_left": left}
                print(json.dumps(event), file=sys.stderr, flush=True)
            elif logged and left is not None and now - spoke >= SPEAK:
                spoke = now
                say_aside(f"{what}: {done} of {total}, {rate:.0f} rows/s, about {left:.0f} s left")

        yield tell
