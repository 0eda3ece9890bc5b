"""`suture gallery plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..options import Json, Overwrite, Unfamiliar

__all__ = ["plan"]


def plan(
    map_file: Annotated[Path, typer.Option("--map", help="Map from the old space to the new one, by fit or estimate.")],
    source: Annotated[str, typer.Option("--from", help="The old gallery, as a URI; it is never written.")],
    target: Annotated[str, typer.Option("--to", help="Where the new gallery goes, as a URI; nothing may be there.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The plan file to write.")],
    strategy: Annotated[
        Literal["map", "dual", "expanded", "bridge"],
        typer.Option(
            help="map: mapped rows. dual: old and mapped side by side. expanded: mapped by an isometry, for partial "
            "backfill. bridge: no rows, new queries are mapped; --to bridge:FILE.safetensors, or faiss:FILE for faiss."
        ),
    ] = "map",
    model: Annotated[str | None, typer.Option(help="Name of the new model, stamped on every row.")] = None,
    dtype: Annotated[
        Literal["float16", "float32", "float64"] | None, typer.Option(help="Of the new rows; by default as the old.")
    ] = None,
    normalize: Annotated[
        Literal["auto", "l2", "none"], typer.Option(help="Length of new rows; auto: 1 where the new model's was.")
    ] = "auto",
    order: Annotated[
        Literal["residual", "norm", "given", "random"], typer.Option(help="Which rows backfill takes first.")
    ] = "residual",
    queries: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Rows of the same items by the OLD and the NEW model, for the semantic check."),
    ] = None,
    fragment_rows: Annotated[int, typer.Option(min=1, help="Rows of one unit of work, and of one part.")] = 65536,
    bad_rows: Annotated[
        Literal["refuse", "quarantine"],
        typer.Option(help="NaN, infinite and zero rows: refuse, or leave out and list."),
    ] = "refuse",
    accept_lossy: Annotated[bool, typer.Option(help="Map vectors that the index has compressed.")] = False,
    unfamiliar: Unfamiliar = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Decide the whole upgrade, and refuse now what would go wrong later; writes only the plan."""
    from ...stitching.stores import open_store
    from ...stitching.upgrade.planning import make_plan
    from ..output import print_json, rows_progress, say

    with open_store(source) as store:
        total = store.count() if store.exists() else 0
    with rows_progress(total, "reading ids") as advance:
        made = make_plan(
            map_file,
            source,
            target,
            out,
            strategy=strategy,
            model=model,
            dtype=dtype,
            normalize=normalize,
            order=order,
            fragment_rows=fragment_rows,
            bad=bad_rows,
            familiar=not unfamiliar,
            accept_lossy=accept_lossy,
            queries=queries,
            overwrite=overwrite,
            advance=advance,
        )
    if json:
        print_json(
            {
                "plan": str(out),
                "rows": made.rows,
                "dim": made.dim,
                "dtype": made.dtype,
                "fragments": len(made.fragments),
                "bytes_needed": made.bytes_needed,
                "stamp": made.stamp,
                "strategy": strategy,
                "evidence": made.evidence,
                "estimate": made.estimate,
                "notes": made.notes,
            }
        )
        return
    if strategy == "bridge":
        say(
            f"no row is written: new queries of {made.dim} dims are mapped, and the old gallery is asked, {made.metric}"
        )
    else:
        say(f"{made.rows} rows in {len(made.fragments)} fragments, to {made.dim} dims of {made.dtype}, {made.metric}")
    say(f"about {made.bytes_needed / 2**20:.1f} MB are needed; rows are stamped {made.stamp}")
    if made.evidence is not None:
        overlap, above = made.evidence["overlap@10"], made.evidence["above_chance"]
        say(
            f"semantic check on a sample: overlap@10 of new and old queries {overlap['estimate']:.3f}, "
            f"{above['estimate']:+.3f} over wrong pairs"
        )
    if made.estimate is not None:
        promise = made.estimate
        say(
            f"the estimate promises {promise['metric']} {promise['estimate']:.3f} [{promise['low']:.3f}, "
            f"{promise['high']:.3f}]: verify asks its {promise['queries']} queries again"
        )
    for note in made.notes:
        say(f"note: {note}")
    say(f"-> {out}; next: suture gallery apply {out}", style="bold")
