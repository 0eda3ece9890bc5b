"""`suture match`, and what `suture fit` does without pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    BadRowsOption,
    Column,
    IdColumn,
    Ids,
    Json,
    Overwrite,
    Seed,
    Settings,
    Unfamiliar,
    bad_rows_policy,
    check_output,
    open_dumps,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..aligners import Alignment
    from ..stitching.dumps import BadRows, Dump
    from ..stitching.match import Plan

__all__ = ["Seeds", "Unpaired", "fit_without_pairs", "match"]

Seeds = Annotated[
    Path | None, typer.Option(help="Few known pairs of dumps that are otherwise unpaired: columns source and target.")
]
BY = ("csls", "transport", "local-cka")
Unpaired = Annotated[bool, typer.Option("--unpaired", help="The rows do not correspond; nothing is known of pairs.")]


def match(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Dump of the source space: PATH or PATH::key.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Dump of the target space.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .csv, .jsonl or .parquet.")],
    seeds: Seeds = None,
    map_file: Annotated[Path | None, typer.Option("--map", help="A map file made by suture fit.")] = None,
    method: Annotated[
        str, typer.Option(help="Unpaired method; auto: seeded with --seeds, else vecmap, then mini-vec2vec.")
    ] = "auto",
    set_: Settings = None,
    by: Annotated[
        str,
        typer.Option(
            help="csls; transport: all rows compete (Sinkhorn), with --share or --rho some may stay alone; local-cka: "
            "the known pairs of --seeds alone, no map."
        ),
    ] = "csls",
    eps: Annotated[float, typer.Option(help="Entropy of a transport plan, in units of cosine.", min=0)] = 0.05,
    share: Annotated[float | None, typer.Option(help="Share of the rows that have a mate (partial transport).")] = None,
    rho: Annotated[float | None, typer.Option(help="Price of staying alone, in cosine (unbalanced transport).")] = None,
    one_to_one: Annotated[bool, typer.Option("--one-to-one", help="Each target once at most (Hungarian).")] = False,
    column: Column = None,
    ids: Ids = None,
    id_column: IdColumn = None,
    bad_rows: BadRowsOption = "refuse",
    unfamiliar: Unfamiliar = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Find which row of TARGET belongs to each row of SOURCE: columns source, target, confidence.

    Confidence: how much better the match is than the next, 0 a coin flip: in CSLS, in shares of a row's mass
    (transport), or in CKA. --json keys: rows, source_rows, target_rows, method, by, mutual (share of matches that are
    mutual), median_confidence, spread (targets over which a plan lays a row), agreement, seeds_found, known, path,
    seconds.
    """
    from ..aligners import load
    from ..aligners.errors import UsageError
    from ..stitching.match import known_pairs, match_by_anchors, write_matches
    from ..stitching.match import match as match_rows
    from ..stitching.tables import require_table
    from .output import print_json, rows_progress, say

    started = perf_counter()
    require_table(out)
    if map_file is not None and (seeds is not None or method != "auto" or set_):
        raise UsageError("--map is a map that is fitted already; leave --seeds, --method and --set off.")
    plan = transport_plan(by, eps, share, rho)
    if by == "local-cka" and (seeds is None or method != "auto" or set_):
        raise UsageError("--by local-cka makes no map: it needs --seeds, and no --method or --set.")
    inputs = (source, target, seeds, map_file, *(ids or ()))
    check_output(out, *inputs, overwrite=overwrite)
    policy = bad_rows_policy(bad_rows, *inputs, out, overwrite=overwrite)
    dumps = open_dumps((source, target), column, ids, id_column)
    known = None if seeds is None else known_pairs(dumps[0], dumps[1], seeds)
    facts: Mapping[str, Any] = {"method": by}
    if by == "local-cka":
        assert known is not None  # asked for above
        found = match_by_anchors(dumps[0], dumps[1], known, one_to_one=one_to_one, bad_rows=policy)
    else:
        if map_file is not None:
            alignment = load(map_file)
        else:
            alignment = aligned(dumps, method, set_ or [], known, seed, policy, canaries=True)
        facts = alignment.provenance
        with rows_progress(dumps[0].rows, "matching rows") as advance:
            found = match_rows(
                alignment,
                *dumps,
                seeds=known,
                plan=plan,
                one_to_one=one_to_one,
                bad_rows=policy,
                familiar=not unfamiliar,
                advance=advance,
            )
    write_matches(out, found, *dumps, overwrite=overwrite)
    result = {
        "rows": len(found.source),
        "source_rows": dumps[0].rows,
        "target_rows": dumps[1].rows,
        "method": facts["method"],
        "by": by,
        "mutual": found.mutual,
        "median_confidence": float(found.confidence.median()) if len(found.confidence) else None,
        "spread": found.spread,
        "agreement": facts.get("agreement"),
        "seeds_found": facts.get("seeds_found"),
        "known": 0 if known is None else len(known),
        "path": str(out),
        "seconds": round(perf_counter() - started, 3),
    }
    if json:
        print_json(result)
        return
    say(f"{result['rows']} matches by {result['method']}; {result['mutual']:.0%} are mutual; {evidence(facts)}")
    say(f"-> {out} in {result['seconds']:.1f} s", style="bold")


def aligned(
    dumps: list[Dump],
    method: str,
    settings: list[str],
    known: Tensor | None,
    seed: int,
    policy: BadRows,
    *,
    canaries: bool,
) -> Alignment:
    """The alignment by an unpaired method; auto is the first for which there is evidence.

    Raises `UsageError` for a method that needs pairs, `RefusedError` where there is no evidence.
    """
    from ..aligners.errors import UsageError
    from ..aligners.unpaired.base import NoEvidenceError, UnpairedAligner
    from ..stitching.match import fit_unpaired
    from .settings import build_aligner

    names = [method] if method != "auto" else ["seeded"] if known is not None else ["vecmap", "mini-vec2vec"]
    refusals = []
    for name in names:
        aligner = build_aligner(name, settings)
        if not isinstance(aligner, UnpairedAligner):
            raise UsageError(
                f"--method {name} is fitted on pairs; without them there are {', '.join(unpaired_methods())}."
            )
        try:
            return fit_unpaired(aligner, *dumps, seeds=known, seed=seed, bad_rows=policy, canaries=canaries)
        except NoEvidenceError as error:
            refusals.append(str(error))
    raise NoEvidenceError(" ".join(refusals))


def unpaired_methods() -> list[str]:
    """The names of the methods that need no pairs, or a few."""
    from ..aligners import ALIGNERS
    from ..aligners.unpaired.base import UnpairedAligner

    return [name for name, kind in ALIGNERS.items() if issubclass(kind, UnpairedAligner)]


def fit_without_pairs(
    dumps: list[Dump],
    out: Path,
    *,
    method: str,
    settings: list[str],
    seeds: Path | None,
    seed: int,
    policy: BadRows,
    canaries: bool,
    overwrite: bool,
) -> dict[str, Any]:
    """Fit, save, and say what is known of it.

    Keys: method, params, rows (known pairs), unpaired_rows, source_dim, target_dim, agreement, seeds_found,
    mutual_neighbours, held_out and held_out_reason, path, seconds.
    """
    from ..aligners import save_alignment
    from ..stitching.match import known_pairs

    started = perf_counter()
    known = None if seeds is None else known_pairs(dumps[0], dumps[1], seeds)
    reason = "no pairs are left to hold out; 'seeds_found', 'agreement' or 'mutual_neighbours' is the evidence"
    alignment = aligned(dumps, method, settings, known, seed, policy, canaries=canaries).with_provenance(
        requested=method, seed=seed, held_out=None, held_out_reason=reason
    )
    save_alignment(alignment, out, overwrite=overwrite)
    keys = (
        "method",
        "params",
        "rows",
        "unpaired_rows",
        "agreement",
        "seeds_found",
        "mutual_neighbours",
        "held_out",
        "held_out_reason",
    )
    return {
        **{key: alignment.provenance[key] for key in keys},
        "source_dim": dumps[0].dim,
        "target_dim": dumps[1].dim,
        "path": str(out),
        "seconds": round(perf_counter() - started, 3),
        "evidence": evidence(alignment.provenance),
    }


def evidence(facts: Mapping[str, Any]) -> str:
    """What speaks for a map that was made without pairs, in a sentence, from its provenance."""
    if facts.get("seeds_found") is not None:
        return f"{facts['seeds_found']:.0%} of the known pairs found each other while they were hidden (chance: 5%)."
    if facts.get("agreement") is not None:
        return (
            f"maps found again on separate halves agree on {facts['agreement']:.0%} of nearest targets (chance: none)."
        )
    if facts.get("mutual_neighbours") is not None:
        return f"{facts['mutual_neighbours']:.0%} of rows are mutual nearest neighbours."
    return "the map was fitted before." if facts["method"] != "local-cka" else "the known pairs alone were used."


def transport_plan(by: str, eps: float, share: float | None, rho: float | None) -> Plan | None:
    """What --by asks for; None where no plan is made. Raises `UsageError` where it does not go with the others."""
    from ..aligners.errors import UsageError
    from ..stitching.match import Plan

    if by not in BY:
        raise UsageError(f"--by: expected one of {', '.join(BY)}, got {by!r}.")
    if by != "transport":
        if share is not None or rho is not None:
            raise UsageError("--share and --rho are of --by transport.")
        return None
    return Plan(eps, share, rho)
