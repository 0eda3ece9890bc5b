"""`suture truncate` and `suture recombine`: maps cut short, and maps made of maps by a few pairs."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from .options import ByRow, IdColumn, Ids, Json, Overwrite, Seed, check_map_output, open_dumps, open_one

__all__ = ["recombine", "truncate"]

Out = Annotated[Path, typer.Option("--out", "-o", help="The map file to write (.safetensors).")]


def truncate(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="A map file made by suture.")],
    dims: Annotated[int, typer.Argument(metavar="DIMS", min=1, help="How many dims to keep.")],
    out: Out,
    order: Annotated[
        str | None, typer.Option(help="Dump of one side: its principal axes come first, so that prefixes are useful.")
    ] = None,
    side: Annotated[str, typer.Option(help="Whose rows --order has.")] = "target",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Cut every map of MAP to the first DIMS of the space where its sides meet, rows of unit length again.

    Apply the result to both sides (--side source, --side target): short rows only compare with short rows.
    """
    from ..aligners import load, save_alignment
    from ..aligners.units.order import shortened
    from ..stitching.parts import shared_rows
    from .output import print_json, say

    started = perf_counter()
    check_map_output(out, map_file, order, overwrite=overwrite)
    alignment = load(map_file)
    rows = None if order is None else shared_rows(alignment, side, open_one(order))
    short = shortened(alignment, dims, rows)
    save_alignment(short, out, overwrite=overwrite)
    kept = short.provenance["kept"]
    result = {
        "dims": dims,
        "of": alignment.shared_dim,
        "kept": kept,
        "path": str(out),
        "seconds": round(perf_counter() - started, 3),
    }
    if json:
        print_json(result)
        return
    if kept is not None:
        near = f", and {kept['neighbours']:.1%} of their ten nearest" if "neighbours" in kept else ""
        say(f"{dims} of {alignment.shared_dim} dims keep {kept['squares']:.1%} of the squares of {order}{near}.")
    say(f"{dims} dims -> {out}; apply it to both sides.", style="bold")


def recombine(
    maps: Annotated[list[Path], typer.Argument(metavar="MAP...", help="Affine maps between the same two spaces.")],
    out: Out,
    pairs: Annotated[
        tuple[str, str], typer.Option("--on", metavar="SOURCE TARGET", help="The few pairs: dumps of the two spaces.")
    ],
    blocks: Annotated[int, typer.Option(min=1, help="Equal parts of the target's dims, each with its own mix.")] = 1,
    alpha: Annotated[float, typer.Option(min=0, help="Penalty towards the mean of all maps.")] = 0.1,
    positive: Annotated[bool, typer.Option("--positive", help="No map is subtracted.")] = False,
    ids: Ids = None,
    id_column: IdColumn = None,
    by_row: ByRow = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Join maps that were fitted elsewhere block by block, by what a few pairs say of them."""
    from ..aligners import Alignment, load, save_alignment
    from ..aligners.units.recombine import block_weights, held_out_r2, weighted
    from ..stitching.dumps import pair
    from ..stitching.parts import affine_maps, paired_rows
    from .output import print_json, rows_progress, say, table

    started = perf_counter()
    check_map_output(out, *maps, *pairs, *(ids or ()), overwrite=overwrite)
    loaded = {str(path): load(path) for path in maps}
    own = affine_maps(loaded)
    pairing = pair(*open_dumps(pairs, None, ids, id_column), by_row=by_row)
    with rows_progress(pairing.rows, "reading pairs") as advance:
        x, y = paired_rows(pairing, loaded, advance)
    options = {"blocks": blocks, "alpha": alpha, "positive": positive}
    weights = block_weights([*own.values()], x, y, blocks=blocks, alpha=alpha, positive=positive)
    judged = held_out_r2(own, x, y, blocks=blocks, alpha=alpha, positive=positive, seed=seed)
    facts = {
        "maps": list(own),
        "rows": len(x),
        "params": options,
        "weights": weights.tolist(),
        "held_out": judged,
        "held_out_reason": None if judged else "fewer than 10 pairs, or targets that do not differ",
    }
    first = next(iter(loaded.values()))
    mapping = weighted([*own.values()], weights)
    made = Alignment(Alignment.one_sided(mapping).maps, {}, first.spaces, {"method": "recombine", **facts})
    save_alignment(made.to(first.translate().tensors()["weight"].dtype), out, overwrite=overwrite)
    result = {**facts, "path": str(out), "seconds": round(perf_counter() - started, 3)}
    if json:
        print_json(result)
        return
    shares = [(name, " ".join(f"{w:.2f}" for w in row[:8])) for name, row in zip(own, weights.tolist(), strict=True)]
    table(("map", f"share in each of {blocks} blocks"), shares)
    if judged is None:
        say(f"Not judged: {facts['held_out_reason']}.")
    else:
        table(("held out", "R2"), [(name, f"{value:.3f}") for name, value in judged.items()])
    say(f"{len(own)} maps on {len(x)} pairs -> {out}", style="bold")
