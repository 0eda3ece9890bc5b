"""`suture gallery inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import Json

__all__ = ["inspect"]

Gallery = Annotated[
    str,
    typer.Argument(metavar="URI", help="parquet:DIR#vector, postgresql://HOST/DB#table.column, qdrant:DIR/NAME, ..."),
]


def inspect(uri: Gallery, json: Json = False) -> None:
    """Rows, width, norms, bad rows, payload and model of a gallery; reads it through and writes nothing."""
    from ...stitching.stores import open_store
    from ...stitching.upgrade.look import look
    from ..output import print_json, rows_progress, say, table

    with open_store(uri) as store:
        store.require()
        with rows_progress(store.count(), "reading rows") as advance:
            found = look(store, advance)
    if json:
        print_json(found)
        return
    say(f"{found['rows']} rows of {found['dim']} dims, {found['dtype']}, ids {found['id_kind']}", style="bold")
    norms = found["norms"]
    length = "no good row" if norms is None else f"{norms['min']:.4g} to {norms['max']:.4g}"
    rows = [
        ("norms", length + (", unit" if found["unit"] else "")),
        ("bad rows", ", ".join(f"{n} {why}" for why, n in found["bad_rows"].items() if n) or "none"),
        ("metric", found["metric"] or "not said"),
        ("index", found["index"] or "none"),
        ("payload", ", ".join(found["payload"]) or "none"),
        ("stamped", found["model"] or "by no model"),
        ("vectors come back", found["lossy"] or "as they went in"),
    ]
    table(("", ""), rows, numbers=False)
