"""What commands print: tables for people, one JSON object for machines, progress on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

__all__ = ["interval", "print_json", "rows_progress", "say", "say_aside", "table", "track"]

T = TypeVar("T")


def say(text: str = "", style: str | None = None) -> None:
    """A line on stdout, wrapped to the terminal where it is one: a file gets whole lines and whole paths."""
    console = Console(highlight=False)
    console.print(text, style=style, markup=False, soft_wrap=not console.is_terminal)


def say_aside(text: str) -> None:
    """A line on stderr, where it is in nobody's way."""
    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True, style="dim")


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, in ASCII: no locale can spoil it."""
    print(json.dumps(value, allow_nan=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> None:
    """A table on stdout; the first column to the left, the others to the right if they are ``numbers``."""
    made = Table(box=None, padding=(0, 1), header_style="bold", show_header=any(columns))
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if numbers and i else "left", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    console = Console(highlight=False)
    # A table that is cut off hides numbers: where it does not fit, the terminal may wrap whole lines.
    needed = console.measure(made, options=console.options.update(max_width=1000)).maximum
    console.width = max(console.width, needed)
    console.print(made)


def interval(value: Mapping[str, Any] | None, digits: int = 3) -> str:
    """``.196 ±.009``: the estimate and the wider half of its interval; a dash where there is none."""
    if value is None or value.get("estimate") is None:
        return "-"
    half = max(value["high"] - value["estimate"], value["estimate"] - value["low"])
    return f"{plain(value['estimate'], digits)} ±{plain(half, digits)}"


def plain(value: float, digits: int = 3) -> str:
    """A number without the zero before its point."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


class Speed(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        """Nothing before it is known."""
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


def bar() -> Progress:
    """A progress bar on stderr that disappears when it is done; none where stderr is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Speed(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def track(items: Sequence[T], what: str) -> Iterable[T]:
    """The items, with a progress bar."""
    with bar() as progress:
        yield from progress.track(items, description=what)


@contextmanager
def rows_progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A progress bar over rows; the value is to be called with the number of rows just done."""
    with bar() as progress:
        task = progress.add_task(what, total=total)
        yield lambda rows: progress.advance(task, rows)
