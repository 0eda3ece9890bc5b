"""`suture evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import GalleryIds, Json, Seed, Unfamiliar, open_dumps, open_one

__all__ = ["evaluate", "show"]


def evaluate(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="A map file made by suture.")],
    queries: Annotated[str, typer.Option(help="Queries by the target (new) encoder.")],
    gallery: Annotated[str, typer.Option(help="Gallery by the source (old) encoder.")],
    source_queries: Annotated[str | None, typer.Option(help="The same queries by the source encoder.")] = None,
    target_gallery: Annotated[str | None, typer.Option(help="The same gallery by the target encoder.")] = None,
    relevant: Annotated[
        Path | None, typer.Option(help="Right answers: a gallery row per query, or a list of ids or rows per query.")
    ] = None,
    gallery_ids: GalleryIds = None,
    id_column: Annotated[
        list[str] | None, typer.Option(help="Column of ids inside the galleries; once for both, or once for each.")
    ] = None,
    by_row: Annotated[bool, typer.Option("--by-row", help="Match dumps by position although there are ids.")] = False,
    unfamiliar: Unfamiliar = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Judge MAP on a whole gallery, beside staying on the source encoder and re-embedding everything."""
    from ..aligners import load
    from ..stitching.dumps import read_relevant
    from ..stitching.evaluate import evaluate as evaluate_map
    from .output import print_json, track

    alignment = load(map_file)
    q, old_q = open_one(queries), None if source_queries is None else open_one(source_queries)
    galleries = [gallery] if target_gallery is None else [gallery, target_gallery]
    g, *others = open_dumps(galleries, None, gallery_ids, id_column)
    result = evaluate_map(
        alignment,
        q,
        g,
        source_queries=old_q,
        target_gallery=others[0] if others else None,
        relevant=None if relevant is None else read_relevant(relevant, q, g),
        by_row=by_row,
        familiar=not unfamiliar,
        seed=seed,
        track=track,
    )
    if json:
        print_json({"map": str(map_file), **result})
    else:
        show(result)


def show(result: dict[str, Any]) -> None:
    """The strategies as a table, and what it says."""
    from .output import interval, say, table

    columns = ("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr", "overlap@10", "cosine", "r2")
    say(f"{result['queries']} queries on {result['gallery_rows']} gallery rows; 95 % intervals over queries.")
    table(
        ("strategy", *columns, "ndcg@10 minus stay"),
        [
            (
                s["name"],
                *(interval(s["metrics"][c]) for c in columns),
                interval((s["difference"] or {}).get("ndcg@10")),
            )
            if s["metrics"]
            else (s["name"], *("-" for _ in columns), "-")
            for s in result["strategies"]
        ],
    )
    for s in result["strategies"]:
        if s["metrics"] is None:
            say(f"{s['name']}: {s['reason']}")
    say(result["conclusion"], style="bold")
