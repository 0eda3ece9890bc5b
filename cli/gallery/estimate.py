"""`suture gallery estimate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import (
    Ids,
    Json,
    Overwrite,
    Seed,
    Unfamiliar,
    check_map_output,
    check_output,
    open_dumps,
    open_one,
)

__all__ = ["estimate", "show"]


def estimate(
    old_gallery: Annotated[str, typer.Option(help="Dump of the gallery by the old encoder: PATH or PATH::key.")],
    old_pairs: Annotated[str, typer.Option(help="Some items by the old encoder; the maps are fitted on these.")],
    new_pairs: Annotated[str, typer.Option(help="The same items by the new encoder.")],
    old_queries: Annotated[str | None, typer.Option(help="Queries by the old encoder.")] = None,
    new_queries: Annotated[str | None, typer.Option(help="The same queries by the new encoder.")] = None,
    relevant: Annotated[
        Path | None, typer.Option(help="Right answers: a gallery row per query, or a list of ids or rows per query.")
    ] = None,
    pool: Annotated[
        str | None, typer.Option(help="New vectors of gallery rows: of all, or of some by id; see `gallery sample`.")
    ] = None,
    gallery_ids: Annotated[Path | None, typer.Option(help="File of ids of the gallery, one a row.")] = None,
    pool_ids: Annotated[Path | None, typer.Option(help="File of ids of the pool, one a row.")] = None,
    ids: Ids = None,
    by_row: Annotated[bool, typer.Option("--by-row", help="Match dumps by position although there are ids.")] = False,
    groups: Annotated[Path | None, typer.Option(help="Group of each query; intervals are over groups.")] = None,
    segments: Annotated[Path | None, typer.Option(help="Columns with one value a query, to find worst slices.")] = None,
    traffic: Annotated[Path | None, typer.Option(help="How often each gallery row is read, to backfill by.")] = None,
    sample: Annotated[
        Path | None, typer.Option(help="The list by `gallery sample` that the pool was embedded from: its chances.")
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(help="Such as retention>=0.95 or gain>1, judged on bounds: exit 4 fails, 5 open."),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="The strategy to judge gates on; by default the verdict's.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write what `gallery plan --map` takes (.safetensors).")] = None,
    canaries: Annotated[
        bool, typer.Option(help="Keep a few rows, and the queries that `gallery verify` asks again, in what is saved.")
    ] = True,
    report: Annotated[Path | None, typer.Option(help="Write all of it as one page (.html).")] = None,
    query_texts: Annotated[Path | None, typer.Option(help="Text of each query, for the report.")] = None,
    gallery_texts: Annotated[Path | None, typer.Option(help="Text of each gallery row, for the report.")] = None,
    variants: Annotated[
        bool | None,
        typer.Option(
            "--variants/--no-variants", help="Measure cut and quantised rows too; by default of up to 200,000 rows."
        ),
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Price of a thousand embeddings.")] = None,
    method: Annotated[str, typer.Option(help="The map: a name from `suture methods`, or auto.")] = "auto",
    set_: Annotated[list[str] | None, typer.Option("--set", help="name=value: a parameter of the method.")] = None,
    unfamiliar: Unfamiliar = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Know before you move: every way to bring a gallery to a new encoder, on your own vectors, beside staying."""
    from ...aligners.errors import RefusedError, UsageError
    from ...stitching.dumps import pair, read_relevant
    from ...stitching.gallery.columns import numbers_of, read_groups, read_segments, texts_of
    from ...stitching.gallery.estimate import estimate as estimate_gallery
    from ...stitching.gallery.gates import Gate, require_strategy
    from ...stitching.gallery.inputs import gather_inputs, share_ids
    from ...stitching.gallery.shared import read_listed
    from ...stitching.gallery.upgrade import save_upgrade
    from ..output import print_json, rows_progress, say_aside, track
    from ..settings import build_aligner

    if method == "auto" and set_:
        raise UsageError("--set goes with one --method, not with auto.")
    if new_queries is None and any((old_queries, relevant, segments, query_texts)):
        raise UsageError("--old-queries, --relevant, --segments and --query-texts go with --new-queries.")
    if sample is not None and pool is None:
        raise UsageError("--sample goes with the --pool that was embedded from it.")
    if groups is not None and new_queries is None and pool is not None:
        raise UsageError("without --new-queries a held-out pair is known in the pool by its id: leave --groups out.")
    dumps = (old_gallery, old_pairs, new_pairs, old_queries, new_queries, pool)
    if save is not None:
        check_map_output(
            save, *dumps, relevant, groups, segments, traffic, sample, option="--save", overwrite=overwrite
        )
    if report is not None:
        check_report(report, *dumps, relevant, groups, segments, traffic, sample, save, overwrite=overwrite)
    gates = [Gate.parse(text) for text in gate or ()]
    if strategy is not None:
        require_strategy(strategy)
    aligners = None if method == "auto" else [build_aligner(method, set_ or [])]
    gallery = open_one(old_gallery, ids=gallery_ids)
    pooled = None if pool is None else open_one(pool, ids=pool_ids)
    queries = None if new_queries is None else open_one(new_queries)
    old, new = open_dumps((old_pairs, new_pairs), None, ids)
    if not by_row:
        share_ids(gallery, old, new, pooled)
    inputs = gather_inputs(
        gallery,
        pair(old, new, by_row=by_row, groups=groups if queries is None else None),
        old_queries=None if old_queries is None else open_one(old_queries),
        new_queries=queries,
        relevant=None if relevant is None or queries is None else read_relevant(relevant, queries, gallery),
        pool=pooled,
        chances=None if sample is None or pooled is None else numbers_of(sample, pooled, "chance"),
        groups=None if groups is None or queries is None else read_groups(groups, queries),
        listed=None if sample is None else read_listed(sample, old),
        by_row=by_row,
    )
    found = estimate_gallery(
        inputs,
        aligners=aligners,
        segments=None if segments is None or queries is None else read_segments(segments, queries),
        traffic=None if traffic is None else numbers_of(traffic, gallery, "count"),
        gates=gates,
        gated=strategy,
        price=price,
        smaller=variants,
        familiar=not unfamiliar,
        query_texts=None if query_texts is None or queries is None else texts_of(query_texts, queries),
        gallery_texts=None if gallery_texts is None else texts_of(gallery_texts, gallery),
        itemsize=gallery.dtype.itemsize,
        seed=seed,
        track=track,
        progress=rows_progress,
    )
    refused = None
    if save is not None:
        try:
            save_upgrade(found, save, canaries=canaries, overwrite=overwrite)
        except RefusedError as error:  # what was measured is shown all the same
            refused = str(error)
    if report is not None:
        write_report(found.result, report, overwrite=overwrite)
    paths = {"saved": None if refused else save, "report": report}
    result = {**found.result, **{name: None if path is None else str(path) for name, path in paths.items()}}
    result["refused"] = refused
    print_json(result) if json else show(result)
    if refused is not None:
        say_aside(f"refused: {refused}")
        raise typer.Exit(3)
    judged = [g["result"] for g in result["gates"]]
    if "fail" in judged or "undecided" in judged:
        raise typer.Exit(4 if "fail" in judged else 5)


def check_report(path: Path, *others: str | Path | None, overwrite: bool) -> None:
    """Refuse at once a page that could not be written in the end, or drawn."""
    from ...aligners.errors import UsageError
    from ...stitching.dumps.extras import need

    if path.suffix != ".html":
        raise UsageError(f"--report: expected a .html file, got {path}.")
    check_output(path, *others, overwrite=overwrite)
    need("plotly", "report")


def write_report(result: dict[str, Any], path: Path, *, overwrite: bool) -> None:
    """Draw the page and write it whole."""
    import shlex
    import sys

    from ...stitching.dumps import atomic_write
    from ...stitching.gallery.report import report as page

    command = shlex.join(["suture", *sys.argv[1:]])
    with atomic_write(path, overwrite) as file:
        file.write(page(result, command).encode())


def show(result: dict[str, Any]) -> None:
    """The verdict's table, and what it says."""
    from ...stitching.gallery.costs import in_words, served
    from ..output import interval, say, table

    metric = result["metric"]
    overlap = [m for s in result["strategies"] for m in s["metrics"] or () if m.startswith("overlap@")][:1]
    columns = dict.fromkeys([metric, *overlap])
    level = f"{result['level']:.0%}".replace("%", " %")
    known = result["queries_with_answers"]
    some = "" if known in (None, result["queries"]) else f" ({known} with right answers)"
    say(f"{result['queries']} queries{some} on {result['gallery_rows']} gallery rows, {result['pairs']} pairs fitted.")
    over = "queries" if result["groups"] is None else f"groups of queries ({result['groups']})"
    say(f"Evidence: {result['evidence']}; {level} intervals over {over}.")
    rows = []
    for s in result["strategies"]:
        if s["metrics"] is None or s["kind"] == "variant":
            continue
        q = s["quantities"]
        rows.append(
            (
                s["name"],
                *(interval(s["metrics"].get(c)) for c in columns),
                interval((s["difference"] or {}).get(metric)),
                interval(q["retention"]),
                interval(q["update_gain"]),
                in_words(s["cost"]) if s["cost"] else "a null" if s["kind"] == "null" else "-",
            )
        )
    table(("strategy", *columns, f"{metric} minus stay", "retention", "update gain", "cost"), rows)
    for line in served(result):
        say(line)
    show_variants(result["strategies"], metric)
    for reason in dict.fromkeys(s["reason"] for s in result["strategies"] if s["reason"]):
        names = ", ".join(s["name"] for s in result["strategies"] if s["reason"] == reason)
        say(f"{names}: {reason}")
    if result["slices"]:
        s = result["slices"][0]
        where = (
            f"{s['column']} {s['slice']}" if s["column"] != "automatic" else f"{s['slice']} of the queries by k-means"
        )
        told = (
            f"{interval(s['difference'])} minus stay, {s['queries']} queries, {s['shrunken']:+.3f} shrunken to the mean"
        )
        say(f"Worst slice of {s['strategy']}, {where}: {told}.")
    for note in result["notes"]:
        say(note)
    for g in result["gates"]:
        reason = "" if g["reason"] is None else f" ({g['reason']})"
        say(f"gate {g['gate']} on {g['strategy'] or 'no strategy'}: {g['result']}, {interval(g['value'])}{reason}")
    say(result["conclusion"], style="bold")
    for path in (result["saved"], result["report"]):
        if path is not None:
            say(f"-> {path}")


def show_variants(strategies: list[dict[str, Any]], metric: str) -> None:
    """What smaller rows keep, one line a strategy."""
    from ..output import interval, table

    value = {s["name"]: interval(s["metrics"][metric]) for s in strategies if s["metrics"]}
    cut = [name.split(" ") for name in value if " " in name]
    forms = list(dict.fromkeys(form for _, form in cut))
    bases = list(dict.fromkeys(base for base, _ in cut))
    if forms:
        table(
            (f"{metric} of smaller rows", "as they are", *forms),
            [(base, value[base], *(value[f"{base} {form}"] for form in forms)) for base in bases],
        )
