"""`suture evaluate-head`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .options import IdColumn, Ids, Json, Seed, Unfamiliar, open_dumps

__all__ = ["evaluate_head"]


def evaluate_head(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="A map: new encoder -> what the head knows.")],
    head: Annotated[Path, typer.Argument(metavar="HEAD", help="weight (classes, q), bias (classes,), or .onnx.")],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Labelled rows by the new encoder, not fitted on.")],
    labels: Annotated[Path, typer.Option(help="Label of each row, or a table with the columns id and label.")],
    native: Annotated[str | None, typer.Option(help="The same rows by the encoder that the head knows.")] = None,
    relative_head: Annotated[Path | None, typer.Option(help="A head that was trained on relative rows.")] = None,
    relative_map: Annotated[
        Path | None, typer.Option(help="The map by the method relative whose shared space that head knows; or MAP.")
    ] = None,
    normalize: Annotated[
        Literal["auto", "l2", "none"], typer.Option(help="Unit rows around the map: as at fit, after it, or not.")
    ] = "auto",
    ids: Ids = None,
    id_column: IdColumn = None,
    by_row: Annotated[bool, typer.Option("--by-row", help="Match dumps by position although there are ids.")] = False,
    unfamiliar: Unfamiliar = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Judge an old head on a new encoder: native, stitched, folded, relative, absolute, with intervals."""
    from ..aligners import UsageError, load
    from ..stitching.models.judge import evaluate_head as judge
    from ..stitching.models.labels import read_labels
    from ..stitching.models.onnxhead import load_chooser
    from .output import print_json, rows_progress

    if relative_map is not None and relative_head is None:
        raise UsageError(
            "--relative-map names the map of a head that knows relative rows; give it: --relative-head FILE."
        )
    alignment, own = load(map_file), load_chooser(head)
    dump, *others = open_dumps([source] if native is None else [source, native], None, ids, id_column)
    with rows_progress(dump.rows, "choosing") as advance:
        result = judge(
            alignment,
            own,
            dump,
            read_labels(labels, dump),
            labels_name=str(labels),
            native=others[0] if others else None,
            relative_head=None if relative_head is None else load_chooser(relative_head),
            relative=None if relative_map is None else load(relative_map),
            normalize=normalize,
            by_row=by_row,
            familiar=not unfamiliar,
            seed=seed,
            advance=advance,
        )
    print_json({"map": str(map_file), "head": str(head), **result}) if json else show(result)


def show(result: dict[str, Any]) -> None:
    """The strategies as a table, and what it says."""
    from .output import interval, say, table

    say(
        f"{result['rows']} rows, {result['labelled_classes']} of {result['classes']} classes; 95 % intervals over rows."
    )
    table(
        ("strategy", "accuracy", "macro-F1", "accuracy less native", "share of native"),
        [
            (
                s["name"],
                *(interval((s["metrics"] or {}).get(m)) for m in ("accuracy", "macro_f1")),
                *(interval((s["difference"] or {}).get(m)) for m in ("accuracy", "share_of_native")),
            )
            for s in result["strategies"]
        ],
    )
    for s in result["strategies"]:
        if s["metrics"] is None:
            say(f"{s['name']}: {s['reason']}")
    say(result["conclusion"], style="bold")
