"""`suture apply`."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated, Literal

import typer

from .options import BadRowsOption, Json, Overwrite, Unfamiliar, bad_rows_policy, check_output, open_one

__all__ = ["apply"]


def apply(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="A map file made by suture.")],
    dump: Annotated[str, typer.Argument(metavar="DUMP", help="The dump to map: PATH or PATH::key.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; its suffix is its format.")],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MORE]...", help="Further dumps of the same items, side by side: of a fused space."),
    ] = None,
    side: Annotated[str, typer.Option(help="Whose rows these are: source, target, or a space of many.")] = "source",
    dtype: Annotated[
        Literal["float16", "float32", "float64"] | None, typer.Option(help="Of the output; by default the dump's own.")
    ] = None,
    normalize: Annotated[
        Literal["auto", "l2", "none"], typer.Option(help="Length of output rows; auto: 1 where the target's was.")
    ] = "auto",
    into: Annotated[
        Literal["target", "shared"],
        typer.Option(help="target, or the space where the sides meet (concepts, relative)."),
    ] = "target",
    column: Annotated[str | None, typer.Option(help="Array or column to read.")] = None,
    ids: Annotated[Path | None, typer.Option(help="File of ids, one a row.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of ids inside the dump.")] = None,
    bad_rows: BadRowsOption = "refuse",
    unfamiliar: Unfamiliar = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Map the rows of DUMP and write them; ids go along."""
    from ..aligners import load
    from ..stitching.apply import apply as apply_map
    from ..stitching.dumps.beside import Beside
    from .output import print_json, rows_progress, say

    started = perf_counter()
    check_output(out, map_file, dump, *(more or ()), ids, overwrite=overwrite)
    policy = bad_rows_policy(bad_rows, map_file, dump, *(more or ()), ids, out, overwrite=overwrite)
    alignment = load(map_file)
    opened = open_one(dump, column, ids, id_column)
    if more:
        opened = Beside([opened, *(open_one(each, column, None, id_column) for each in more)])
    with rows_progress(opened.rows, "mapping rows") as advance:
        done = apply_map(
            alignment,
            opened,
            out,
            side=side,
            dtype=dtype,
            normalize=normalize,
            into=into,
            bad_rows=policy,
            familiar=not unfamiliar,
            overwrite=overwrite,
            advance=advance,
        )
    seconds = round(perf_counter() - started, 3)
    if json:
        print_json({**vars(done), "seconds": seconds})
        return
    length = "unit length" if done.normalize == "l2" else "length as mapped"
    dropped = f", {sum(done.dropped.values())} bad rows left out" if done.dropped else ""
    beside = f", ids in {done.ids_path}" if done.ids_path else ""
    say(f"{done.rows} rows of {done.dim} dims, {done.dtype}, {length}{dropped}, in {seconds:.1f} s")
    if side == "target" and into == "target" and alignment.translates("source", "target"):
        say("Rows of the target space are where mapped rows arrive: they were copied, not moved.")
    say(f"-> {done.path}{beside}", style="bold")
