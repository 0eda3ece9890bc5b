"""`suture gallery sample`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import Json, Overwrite, Seed, check_output, open_one

__all__ = ["sample"]


def sample(
    gallery: Annotated[str, typer.Argument(metavar="GALLERY", help="Dump of the gallery by the old encoder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The list to write (.jsonl).")],
    pairs: Annotated[int | None, typer.Option(min=0, help="How many pairs; by default 10 for each dim.")] = None,
    pool: Annotated[int | None, typer.Option(min=0, help="How many rows of known truth; by default a 40th.")] = None,
    old_queries: Annotated[
        str | None, typer.Option(help="Queries by the old encoder: what they find today joins the pool.")
    ] = None,
    strata: Annotated[
        Path | None, typer.Option(help="Stratum of each gallery row; by default cells by k-means.")
    ] = None,
    groups: Annotated[Path | None, typer.Option(help="Group of each gallery row; a group is never split.")] = None,
    texts: Annotated[Path | None, typer.Option(help="Text of each gallery row, to go along.")] = None,
    ids: Annotated[Path | None, typer.Option(help="File of ids of the gallery, one a row.")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Price of a thousand embeddings.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """List the items to embed by the new encoder before an estimate, and say how many and why."""
    from ...aligners.errors import UsageError
    from ...stitching.gallery.columns import read_groups, texts_of
    from ...stitching.gallery.sample import RECALLED, draw, lacking, pairs_wanted, pool_wanted, write_sample
    from ..output import print_json, say

    if out.suffix != ".jsonl":
        raise UsageError(f"--out: expected a .jsonl file, got {out}.")
    check_output(out, gallery, old_queries, strata, groups, texts, ids, overwrite=overwrite)
    dump = open_one(gallery, ids=ids)
    wanted, pooled = pairs_wanted(dump.rows, dump.dim), pool_wanted(dump.rows)
    made = draw(
        dump,
        pairs=wanted[0] if pairs is None else pairs,
        pool=pooled[0] if pool is None else pool,
        strata=None if strata is None else texts_of(strata, dump, "stratum"),
        groups=None if groups is None else read_groups(groups, dump),
        old_queries=None if old_queries is None else open_one(old_queries),
        seed=seed,
    )
    text = None if texts is None else texts_of(texts, dump)
    write_sample(dump, made, out, texts=text, overwrite=overwrite)
    counts, asked = made.counts, wanted[0] if pairs is None else pairs
    short = ", less what the pool needs" if int(made.pairs.sum()) < asked else ""
    found = "" if old_queries is None else f", and the first {RECALLED} rows that each old query finds today"
    result = {
        "path": str(out),
        "gallery_rows": dump.rows,
        **counts,
        "price": None if price is None else counts["all"] * price / 1000,
        "why": {
            "pairs": (wanted[1] if pairs is None else "as asked for") + short,
            "pool": (pooled[1] if pool is None else "as asked for") + found,
        },
        "seed": seed,
    }
    if json:
        print_json(result)
        return
    show(result)
    missing = lacking(dump.rows, made, queries=old_queries is not None)
    if missing is not None:
        say(f"-> {out}; no estimate is made of this list alone: {missing}.", "bold")
        return
    words = ["suture", "gallery", "estimate", "--old-gallery", gallery]
    words += [] if ids is None else ["--gallery-ids", str(ids)]
    words += ["--old-pairs", gallery, "--new-pairs", "EMBEDDED"]
    words += ["--pool", "EMBEDDED", "--sample", str(out)] if counts["pool"] else []
    words += [] if old_queries is None else ["--old-queries", old_queries, "--new-queries", "QUERIES"]
    new = "" if old_queries is None else "; QUERIES are the same by the new encoder"
    say(f"-> {out}; embed these ids, then `{shlex.join(words)}`; EMBEDDED needs the ids too{new}.", "bold")


def show(result: dict[str, Any]) -> None:
    """How many, what for, and why."""
    from ..output import say

    pairs = result["fit"] + result["tune"] + result["test"]
    say(f"Embed {result['all']} of {result['gallery_rows']} items by the new encoder:")
    say(f"  {pairs} pairs, {result['fit']} to fit, {result['tune']} to tune, {result['test']} to test on")
    say(f"    {result['why']['pairs']}.")
    say(f"  {result['pool']} for the pool of known truth (an item may serve both)")
    say(f"    {result['why']['pool']}.")
    if result["price"] is not None:
        say(f"  This costs {result['price']:.2f}.")
