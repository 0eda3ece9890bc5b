"""Named coordinates: what `suture fit` does with labels or names, and `suture concepts`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from .many import named_dumps
from .options import IdColumn, Ids, Json, check_map_output, open_dumps, open_one

__all__ = ["ConceptDumps", "Labels", "Names", "concepts", "fit_named", "needs_labels"]

Labels = Annotated[
    list[Path] | None,
    typer.Option(help="Labels by which --method concepts or simplex joins spaces; one file for all, or one for each."),
]
ConceptDumps = Annotated[
    list[str] | None, typer.Option("--concepts", help="Dump of the embedded names, for each space: --method concepts.")
]
Names = Annotated[Path | None, typer.Option(help="The names of the rows of --concepts, one a line; else their ids.")]


def needs_labels(method: str) -> bool:
    """Whether that is the name of a method that joins spaces by labels."""
    from ..aligners import ALIGNERS

    return method in ALIGNERS and ALIGNERS[method].needs == "labels"


def fit_named(
    specs: Sequence[str],
    out: Path,
    *,
    method: str,
    settings: Sequence[str],
    labels: Sequence[Path] | None,
    concepts: Sequence[str] | None,
    names: Path | None,
    columns: tuple[list[str] | None, list[Path] | None, list[str] | None],
    canaries: bool,
    seed: int,
    overwrite: bool,
    json: bool,
) -> None:
    """Fit by labels or names, save, and say how held-out rows find theirs."""
    from ..aligners import Concepts, LabelledAligner, save_alignment
    from ..aligners.errors import UsageError
    from ..stitching.named import fit_concepts, fit_labels
    from .output import print_json
    from .settings import build_aligner

    started = perf_counter()
    aligner = build_aligner(method, settings)
    if not isinstance(aligner, LabelledAligner) or bool(labels) == bool(concepts):
        raise UsageError(
            "--method concepts takes --labels or --concepts (one dump of names for each space), --method simplex takes "
            f"--labels; got --method {method} with {'both' if labels and concepts else 'neither'}."
            if isinstance(aligner, LabelledAligner)
            else f"--labels and --concepts go with --method concepts or simplex, not with {method}."
        )
    if concepts and not isinstance(aligner, Concepts):
        raise UsageError(f"--concepts goes with --method concepts, not with {method}; it takes --labels.")
    check_map_output(out, *specs, *(labels or ()), *(concepts or ()), names, overwrite=overwrite)
    if len(specs) == 2:
        dumps = dict(zip(("source", "target"), open_dumps(specs, *columns), strict=True))
    else:
        dumps = named_dumps(specs, *columns)
    if concepts and isinstance(aligner, Concepts):
        alignment = fit_concepts(aligner, dumps, [open_one(c) for c in concepts], names, canaries=canaries)
    else:
        alignment = fit_labels(aligner, dumps, labels or (), seed=seed, canaries=canaries)
    save_alignment(alignment.with_provenance(requested=method, seed=seed), out, overwrite=overwrite)
    facts = alignment.provenance
    result = {
        "method": method,
        "params": facts["params"],
        "names": len(facts["names"]),
        "spaces": {name: {**facts["spaces"][name], "dim": dump.dim} for name, dump in dumps.items()},
        "shared_dim": alignment.shared_dim,
        "held_out": facts["held_out"],
        "path": str(out),
        "seconds": round(perf_counter() - started, 3),
    }
    print_json(result) if json else show_fit(result)


def show_fit(result: dict[str, Any]) -> None:
    """What the spaces have in common, and what labels of held-out rows say of it."""
    from .output import say, table

    rows = ", ".join(
        f"{name} ({s['rows']} rows, {s['dim']} dims" + (f", {s['left_out']} left out)" if s["left_out"] else ")")
        for name, s in result["spaces"].items()
    )
    say(f"{result['names']} names in {len(result['spaces'])} spaces: {rows}.")
    judged = {name: found for name, found in result["held_out"].items() if found}
    if judged:
        columns = ("accuracy", "most_frequent", "auroc")
        shown = [(name, *(f"{found[c]:.3f}" for c in columns), str(found["rows"])) for name, found in judged.items()]
        table(("held out", "right label", "most frequent", "AUROC", "rows"), shown)
    else:
        say("Not judged: without labels, or with too few of them, nothing can be held out.")
    say(f"{result['method']} -> {result['path']} in {result['seconds']:.1f} s", style="bold")


def concepts(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="A map file by --method concepts.")],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Dump of the first space.")],
    target: Annotated[str | None, typer.Argument(metavar="[TARGET]", help="Dump of the second space.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Label of each row of SOURCE, or a table: id and label.")] = None,
    match: Annotated[
        list[str] | None, typer.Option(help="ROW:ROW, a row of SOURCE and one of TARGET: why do they match?")
    ] = None,
    side: Annotated[tuple[str, str], typer.Option(metavar="NAME NAME", help="Names of the two spaces in the map.")] = (
        "source",
        "target",
    ),
    ids: Ids = None,
    id_column: IdColumn = None,
    by_row: Annotated[bool, typer.Option("--by-row", help="Rows belong together by position.")] = False,
    json: Json = False,
) -> None:
    """What named coordinates are worth: AUROC of each concept, agreement of two encoders on it, why rows match."""
    from ..aligners import load
    from ..aligners.errors import UsageError
    from ..stitching.named import explain
    from .output import print_json

    pairs = []
    for text in match or ():
        parts = text.split(":")
        if len(parts) != 2 or not all(part.isdecimal() for part in parts):
            raise UsageError(f"--match: expected ROW:ROW, two row numbers, got '{text}'.")
        pairs.append((int(parts[0]), int(parts[1])))
    opened = open_dumps([source] if target is None else [source, target], None, ids, id_column)
    dumps = dict(zip(side, opened, strict=False))
    result = {
        "map": str(map_file),
        **explain(load(map_file), dumps, labels=labels, matches=pairs, by_row=by_row),
    }
    print_json(result) if json else show(result)


def show(result: dict[str, Any]) -> None:
    """A line a concept, those on which encoders agree least at the end; then the matches."""
    from .output import say, table

    def text(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    ordered = sorted(result["concepts"], key=lambda c: -(c["agreement"] or -1))
    sides = list(result["rows"])
    rows = [(c["name"], *(text(c["auroc"].get(s)) for s in sides), text(c["agreement"])) for c in ordered]
    table(("concept", *(f"AUROC {s}" for s in sides), "agreement (Spearman)"), rows)
    if result["paired"] is not None:
        say(f"Agreement over {result['paired']} items that both dumps have.")
    for found in result["matches"]:
        most = ", ".join(f"{c['name']} {c['adds']:+.3f}" for c in found["concepts"])
        say(f"{found['rows'][0]}:{found['rows'][1]} cosine {found['cosine']:.3f}: {most}")
