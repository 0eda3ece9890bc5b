"""`suture inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Json, open_one

__all__ = ["inspect"]


def inspect(
    path: Annotated[str, typer.Argument(help="A map file, or a dump: PATH or PATH::key.")],
    column: Annotated[str | None, typer.Option(help="Array or column to read.")] = None,
    ids: Annotated[Path | None, typer.Option(help="File of ids, one a row.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of ids inside the dump.")] = None,
    json: Json = False,
) -> None:
    """What a map or a dump is: read through once, changed in nothing."""
    from ..aligners.file import is_map_file
    from ..stitching.inspect import describe_dump, describe_map
    from .output import print_json, rows_progress

    if Path(path).is_file() and is_map_file(path):
        found = describe_map(path)
    else:
        dump = open_one(path, column, ids, id_column)
        with rows_progress(dump.rows, "reading rows") as advance:
            found = describe_dump(dump, advance)
    print_json(found) if json else show(found)


def show(found: dict[str, Any]) -> None:
    """One line a fact; tables inside are summed up."""
    from .output import interval, say, table

    held_out = found.get("held_out")
    facts = {k: v for k, v in found.items() if not isinstance(v, list | dict) and v is not None}
    for key, value in found.items():
        if key == "spaces":
            facts |= {f"{name} space": brief(space) for name, space in value.items()}
        elif isinstance(value, dict) and key != "held_out":
            facts[key] = brief(value)
    table(("", ""), [(key.replace("_", " "), text(value)) for key, value in facts.items()], numbers=False)
    if held_out:
        mapped = next(s for s in held_out["strategies"] if s["name"] == "map")["metrics"]
        say("held out: " + ", ".join(f"{name} {interval(value)}" for name, value in mapped.items()))


def brief(values: dict[str, Any]) -> str:
    """The facts in one line."""
    return ", ".join(f"{k.replace('_', ' ')} {text(v)}" for k, v in values.items() if v is not None) or "none"


def text(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
