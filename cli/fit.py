"""`suture fit`."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .many import fit_spaces, is_multiway
from .match import Seeds, Unpaired, fit_without_pairs
from .named import ConceptDumps, Labels, Names, fit_named, needs_labels
from .notes import cautions, left_out, pairing_line
from .options import (
    BadRowsOption,
    ByRow,
    Column,
    IdColumn,
    Ids,
    Json,
    Overwrite,
    Seed,
    Settings,
    Unfamiliar,
    bad_rows_policy,
    check_map_output,
    open_dumps,
    open_one,
)

if TYPE_CHECKING:
    from ..aligners import Survey
    from ..aligners.audit import Audit
    from ..stitching.dumps import Pairing

__all__ = ["fit"]


def fit(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Dump of the source space: PATH or PATH::key.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Dump of the same items in the target space.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The map file to write (.safetensors).")],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MORE]...", help="Dumps of further spaces: --method gpa, gcca, srm, bind."),
    ] = None,
    method: Annotated[str, typer.Option(help="A name from `suture methods`, or auto: the best out of fold.")] = "auto",
    set_: Settings = None,
    family: Annotated[Literal["affine", "any"], typer.Option(help="What auto compares.")] = "affine",
    column: Column = None,
    ids: Ids = None,
    id_column: IdColumn = None,
    by_row: ByRow = False,
    pairs: Annotated[Path | None, typer.Option(help="File of pairs, columns source and target.")] = None,
    unpaired: Unpaired = False,
    seeds: Seeds = None,
    labels: Labels = None,
    concepts: ConceptDumps = None,
    names: Names = None,
    groups: Annotated[Path | None, typer.Option(help="Group of each row; a group is never split.")] = None,
    weights: Annotated[Path | None, typer.Option(help="How much each pair counts: a number a source row.")] = None,
    bad_rows: BadRowsOption = "refuse",
    allow_mispaired: Annotated[bool, typer.Option("--allow-mispaired", help="Fit although pairs look wrong.")] = False,
    queries: Annotated[str | None, typer.Option(help="Labelled target-space queries, to choose by.")] = None,
    gallery: Annotated[str | None, typer.Option(help="Source-space gallery that they search.")] = None,
    relevant: Annotated[Path | None, typer.Option(help="The right gallery rows or ids of each query.")] = None,
    gallery_ids: Annotated[Path | None, typer.Option(help="File of ids of the gallery, one a row.")] = None,
    head: Annotated[
        Path | None, typer.Option(help="A head of the target space: train and choose the map for it.")
    ] = None,
    canaries: Annotated[bool, typer.Option(help="Keep a few rows in the map to recognise its spaces by.")] = True,
    unfamiliar: Unfamiliar = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Fit a map of SOURCE into TARGET's space, choose it on held-out rows, and say how good it is.

    Of more than two dumps (NAME=PATH, or PATH and its stem is the name) every space gets a map into a shared one;
    `suture pick` takes any two of them out of the file.
    """
    from dataclasses import replace

    from ..aligners import HeadDistill, Survey, save_alignment
    from ..aligners.aligner import needed_blocks
    from ..aligners.audit import PROBE
    from ..aligners.choose import Judge, LabelJudge
    from ..aligners.errors import UsageError
    from ..aligners.fit import candidates
    from ..aligners.fit import fit as choose_and_fit
    from ..aligners.head import HeadJudge
    from ..stitching.dumps import pair, read_relevant
    from ..stitching.evaluate import label_inputs
    from ..stitching.stream import PairedDumps
    from .output import print_json, rows_progress, say_aside, track
    from .settings import build_aligner

    started = perf_counter()
    asked = (queries, gallery, relevant)
    if any(asked) and not all(asked):
        raise UsageError("--queries, --gallery and --relevant go together: all three or none.")
    if method == "auto" and set_:
        raise UsageError("--set goes with one --method, not with auto.")
    if head is not None and queries is not None:
        raise UsageError("--head and --queries are two ways to choose; give one.")
    named_by = labels or concepts or names or needs_labels(method)
    if named_by and (unpaired or seeds or pairs or by_row or groups or weights or head or any(asked)):
        raise UsageError("Named coordinates need no pairs: --labels and --concepts go without --pairs and the like.")
    if named_by:
        fit_named(
            (source, target, *(more or ())),
            out,
            method=method,
            settings=set_ or [],
            labels=labels,
            concepts=concepts,
            names=names,
            columns=(column, ids, id_column),
            canaries=canaries,
            seed=seed,
            overwrite=overwrite,
            json=json,
        )
        return
    if more or is_multiway(method):
        if unpaired or seeds or pairs or groups or weights or head or any(asked):
            raise UsageError("Many spaces are joined by ids or by row; they go without --pairs, --groups and the like.")
        fit_spaces(
            (source, target, *(more or ())),
            out,
            method=method,
            settings=set_ or [],
            columns=(column, ids, id_column),
            by_row=by_row,
            policy=bad_rows,
            canaries=canaries,
            seed=seed,
            overwrite=overwrite,
            json=json,
        )
        return
    without_pairs = unpaired or seeds is not None
    if without_pairs and (by_row or pairs or groups or weights or head or any(asked)):
        raise UsageError("--unpaired and --seeds go without --by-row, --pairs, --groups, --weights, --head and labels.")
    inputs = (source, target, head, *asked, pairs, seeds, groups, weights, *(ids or ()), gallery_ids)
    check_map_output(out, *inputs, overwrite=overwrite)
    policy = bad_rows_policy(bad_rows, *inputs, out, overwrite=overwrite)
    if without_pairs:
        both = open_dumps((source, target), column, ids, id_column)
        unpaired_result = fit_without_pairs(
            both,
            out,
            method=method,
            settings=set_ or [],
            seeds=seeds,
            seed=seed,
            policy=policy,
            canaries=canaries,
            overwrite=overwrite,
        )
        print_json(unpaired_result) if json else show_unpaired(unpaired_result)
        return
    named = None if method == "auto" else build_aligner(method, set_ or [])
    if named is not None and named.needs in ("few pairs", "no pairs"):
        raise UsageError(f"--method {method} is for rows that are not paired: give --seeds FILE or --unpaired.")
    knows = None
    if head is not None:
        from ..stitching.models import load_head

        knows = load_head(head)
    if isinstance(named, HeadDistill):
        if knows is None:
            raise UsageError(f"--method {method} trains for a head: give it with --head FILE.")
        named = replace(named, head=knows)
    dumps = open_dumps((source, target), column, ids, id_column)
    pairing = pair(*dumps, by_row=by_row, pairs=pairs, groups=groups, weights=weights, bad_rows=policy)
    labelled = None
    if queries is not None and gallery is not None and relevant is not None:
        q, g = open_one(queries), open_one(gallery, ids=gallery_ids)
        labelled = (q, g, read_relevant(relevant, q, g))
    with rows_progress(pairing.rows, "reading pairs") as advance:
        aligners = candidates(family, pairing.rows) if named is None else (named,)
        if knows is not None and named is None:
            aligners = (*aligners, HeadDistill(knows))
        blocks = needed_blocks((*aligners, PROBE))
        survey = Survey.of(PairedDumps(pairing, advance), blocks=blocks, seed=seed, canaries=canaries)
    found = checked_pairing(survey, pairing, allow_mispaired)
    judge: Judge | None = None
    if labelled is not None:
        judge = LabelJudge(survey, *label_inputs(survey, *labelled, familiar=not unfamiliar))
    elif knows is not None:
        judge = HeadJudge(survey, knows)
    alignment = choose_and_fit(survey, aligners, judge=judge, track=track).with_provenance(
        audit=found.as_json(),
        pairing={k: v for k, v in pairing.report.items() if not k.endswith("_examples")},
        requested=method,
        seed=seed,
    )
    save_alignment(alignment, out, overwrite=overwrite)
    facts = alignment.provenance
    notes = cautions(facts, survey.stream.source_dim)
    for note in notes:
        say_aside(note)
    result = {
        "method": facts["method"],
        "params": facts["params"],
        "rows": facts["rows"],
        "source_dim": survey.stream.source_dim,
        "target_dim": survey.stream.target_dim,
        "held_out": facts.get("held_out"),
        "held_out_reason": facts.get("held_out_reason"),
        "candidates": facts["candidates"],
        "judged_by": facts.get("judged_by"),
        "edge": facts.get("edge", {}),
        "learning_curve": facts.get("learning_curve", []),
        "audit": facts["audit"],
        "pairing": pairing.report,
        "bad_rows": pairing.bad,
        "notes": notes,
        "path": str(out),
        "seconds": round(perf_counter() - started, 3),
    }
    print_json(result) if json else show(result)


def checked_pairing(survey: Survey, pairing: Pairing, allow_mispaired: bool) -> Audit:
    """The audit of the pairing. Raises `RefusedError` where it finds wrong pairs, unless they are allowed."""
    from ..aligners.audit import audit
    from ..aligners.errors import RefusedError
    from ..stitching.stream import names_of

    found = audit(survey)
    if allow_mispaired or found.verdict in ("clean", "unknown"):
        return found
    assert found.auc is not None  # a verdict was reached
    if found.verdict == "unrelated":
        raise RefusedError(
            f"the pairs look unrelated: true pairs outscore shuffled ones in only {found.auc:.0%} of cases (50% is "
            "chance). Are the rows of one dump shifted or shuffled against the other? Pair them by id (--ids, "
            "--id-column, --pairs), or go on with --allow-mispaired."
        )
    names = names_of(pairing, found.suspects.tolist()[:10])[:10]
    raise RefusedError(
        f"{found.suspect_share:.1%} of {found.rows} sampled pairs look like wrong pairs (2% are tolerated), among them "
        f"source {', '.join(map(repr, names))}. Repair them, pair by id, or go on with --allow-mispaired."
    )


def show_unpaired(result: dict[str, Any]) -> None:
    """What was fitted without pairs, and what speaks for it."""
    from .output import say

    rows = " and ".join(map(str, result["unpaired_rows"]))
    say(f"{rows} unpaired rows, {result['rows']} known pairs, {result['source_dim']} -> {result['target_dim']} dims.")
    say(f"Evidence: {result['evidence']}")
    say(f"{result['method']} -> {result['path']} in {result['seconds']:.1f} s", style="bold")


def show(result: dict[str, Any]) -> None:
    """The result as tables."""
    from .output import interval, plain, say, table

    say(
        f"{result['rows']} pairs by {result['pairing']['by']}, {result['source_dim']} -> {result['target_dim']} dims. "
        + pairing_line(result["audit"])
    )
    for line in left_out(result["pairing"]):
        say(line)
    metric = result["judged_by"]
    if len(result["candidates"]) > 1:
        shown: dict[str, dict[str, Any]] = {}
        for each in result["candidates"]:  # best first: each method by its best variant
            shown.setdefault(each["method"], each)
        mates = all("recall@1" in c["witness"] for c in result["candidates"])  # no judge by a head asks for them
        table(
            ("candidate", metric, "difference to the best", *(["finds its mate (R@1)"] if mates else [])),
            [
                (
                    called(c["method"], c["params"]),
                    interval(c[metric]),
                    interval(c["difference"]),
                    *([plain(c["witness"]["recall@1"])] if mates else []),
                )
                for c in shown.values()
            ],
        )
    if result["held_out"] is None:
        say(f"Not judged: {result['held_out_reason']}.")
    else:
        columns = ("overlap@10", "ndcg@10", "recall@1", "mrr", "cosine", "r2")
        table(
            ("held out", *columns),
            [
                (s["name"], *(interval(s["metrics"][c]) for c in columns))
                if s["metrics"]
                else (s["name"], *("-" for _ in columns))
                for s in result["held_out"]["strategies"]
            ],
        )
        say("ndcg, recall and mrr find a row's own mate, which flatters; judge a map by `suture evaluate`.")
    if len(result["learning_curve"]) > 1:
        last = result["learning_curve"][-1]
        verdict = "more pairs would help" if last["gain"]["low"] > 0.002 else "more pairs would hardly help"
        whose = f" ({last['method']})" if last["method"] != result["method"] else ""
        say(f"The last doubling of pairs gained {interval(last['gain'])} overlap@10{whose}: {verdict}.")
    for name, (value, low, high) in result["edge"].items():
        say(f"{name}={value:g} is at the edge of what was tried ({low:g} to {high:g}): --set {name}=... goes further.")
    took = f" in {result['seconds']:.1f} s" if result["seconds"] is not None else ""
    say(f"{called(result['method'], result['params'])} -> {result['path']}{took}", style="bold")


def called(method: str, params: dict[str, Any]) -> str:
    """The method with the parameters that are not its defaults, briefly."""
    from ..aligners import ALIGNERS

    usual = ALIGNERS[method]().parameters()
    shown = [
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
        if value != usual[name] and value is not False
    ]
    return " ".join([method, *shown])
