"""`suture methods`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Json

if TYPE_CHECKING:
    from ..aligners import Aligner

__all__ = ["methods"]


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One method: its equation and parameters.")
    ] = None,
    json: Json = False,
) -> None:
    """What there is to align with, one line each, with its paper; of one NAME all that there is to know."""
    from ..aligners import ALIGNERS
    from ..aligners.errors import UsageError
    from .output import print_json, say, table

    if name is not None and name not in ALIGNERS:
        raise UsageError(f"methods: there is no '{name}'; there are {', '.join(ALIGNERS)}.")
    found = [described(kind) for own, kind in ALIGNERS.items() if name in (None, own)]
    if json:
        print_json({"methods": found})
        return
    if name is None:
        rows = [(str(m["name"]), f"{m['summary']} ({m['paper']})") for m in found]
        table(("method", "what it does"), rows, numbers=False)
        return
    one = found[0]
    say(f"{name}: {one['summary']}", style="bold")
    say(f"{one['paper']}. Fitted on {one['needs']}; {'an affine map' if one['affine'] else 'a map that bends'}.\n")
    say(one["explanation"] + "\n")
    if one["parameters"]:
        shown = [(f"--set {p['name']}=...", " | ".join(p["takes"]), text(p["default"])) for p in one["parameters"]]
        table(("parameter", "takes", "default"), shown, numbers=False)


def described(kind: type[Aligner]) -> dict[str, Any]:
    """All that is known of a method."""
    from dataclasses import fields

    from .settings import choices, hints

    return {
        "name": kind.name,
        "summary": kind.summary,
        "paper": kind.paper,
        "needs": kind.needs,
        "affine": kind.affine,
        "params": {f.name: f.default for f in fields(kind)},
        "parameters": [
            {"name": f.name, "takes": choices(hints(kind)[f.name]), "default": f.default} for f in fields(kind)
        ],
        "explanation": kind.explanation(),
    }


def text(value: Any) -> str:
    """A default as `--set` takes it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value) or "(empty)"
