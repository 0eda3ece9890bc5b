"""`suture methods`."""

from __future__ import annotations

from .options import Json

__all__ = ["methods"]


def methods(json: Json = False) -> None:
    """What there is to align with, one line each, with its paper."""
    from dataclasses import fields

    from ..aligners import ALIGNERS
    from .output import print_json, table

    found = [
        {
            "name": name,
            "summary": kind.summary,
            "paper": kind.paper,
            "affine": kind.affine,
            "params": {f.name: f.default for f in fields(kind)},
        }
        for name, kind in ALIGNERS.items()
    ]
    if json:
        print_json({"methods": found})
        return
    rows = [(str(m["name"]), f"{m['summary']} ({m['paper']})") for m in found]
    table(("method", "what it does"), rows, numbers=False)
