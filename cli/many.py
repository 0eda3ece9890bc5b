"""Alignments of many spaces: what `suture fit` does with more than two dumps, `suture pick` and `suture extend`."""

from __future__ import annotations

from collections.abc import Sequence
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
    bad_rows_policy,
    check_map_output,
    open_dumps,
)

if TYPE_CHECKING:
    from ..stitching.dumps import Dump

__all__ = ["extend", "fit_spaces", "is_multiway", "pick"]

Out = Annotated[Path, typer.Option("--out", "-o", help="The map file to write (.safetensors).")]
ByRow = Annotated[bool, typer.Option("--by-row", help="Join by position although there are ids.")]


def is_multiway(method: str) -> bool:
    """Whether that is the name of a method for many spaces."""
    from ..aligners import ALIGNERS

    return method in ALIGNERS and ALIGNERS[method].needs == "many spaces"


def named_dumps(
    specs: Sequence[str],
    column: Sequence[str] | None,
    ids: Sequence[Path] | None,
    id_column: Sequence[str] | None,
) -> dict[str, Dump]:
    """Dumps by the names of their spaces: NAME=PATH, else the stem of the file, dots as dashes."""
    from ..aligners.errors import UsageError
    from ..stitching.dumps.open import split_key

    names, paths = [], []
    for spec in specs:
        name, equals, path = spec.partition("=")
        if not equals or split_key(spec)[0].exists():
            name, path = split_key(spec)[0].stem, spec
        names.append(name.replace(".", "-"))
        paths.append(path)
    if len(set(names)) < len(names):
        raise UsageError(f"expected every space under a name of its own, got {', '.join(names)}; write NAME=PATH.")
    return dict(zip(names, open_dumps(paths, column, ids, id_column), strict=True))


def fit_spaces(
    specs: Sequence[str],
    out: Path,
    *,
    method: str,
    settings: Sequence[str],
    columns: tuple[list[str] | None, list[Path] | None, list[str] | None],
    by_row: bool,
    policy: str,
    canaries: bool,
    seed: int,
    overwrite: bool,
    json: bool,
) -> None:
    """Fit an alignment of all the dumps, save it, and say how held-out items of each space find those of the others.

    --json keys: method, params, items, spaces (rows and dims by name), shared_dim, any_to_any, fusion, path, seconds.
    """
    from ..aligners import MultiwayAligner, save_alignment
    from ..aligners.errors import UsageError
    from ..stitching.many import ManyDumps
    from .output import print_json, rows_progress
    from .settings import build_aligner

    started = perf_counter()
    if not is_multiway(method):
        raise UsageError(f"--method {method} joins two spaces; for {len(specs)} there are gpa, gcca, srm and bind.")
    aligner = build_aligner(method, settings)
    assert isinstance(aligner, MultiwayAligner)
    dumps = named_dumps(specs, *columns)
    check_map_output(out, *(dump.path for dump in dumps.values()), *(columns[1] or ()), overwrite=overwrite)
    many = ManyDumps.of(dumps, by_row=by_row, bad_rows=bad_rows_policy(policy))
    with rows_progress(many.rows, "reading items") as advance:
        many = ManyDumps(many.dumps, many.table, many.bad_rows, advance)
        alignment = aligner.fit_many(many, seed=seed, canaries=canaries).with_provenance(requested=method, seed=seed)
    save_alignment(alignment, out, overwrite=overwrite)
    facts = alignment.provenance
    result = {
        "method": facts["method"],
        "params": facts["params"],
        "items": facts["rows"],
        "spaces": {name: {"rows": facts["space_rows"][name], "dim": dump.dim} for name, dump in dumps.items()},
        "shared_dim": alignment.shared_dim,
        "any_to_any": facts["any_to_any"],
        "fusion": facts.get("fusion"),
        "bad_rows": many.bad,
        "path": str(out),
        "seconds": round(perf_counter() - started, 3),
    }
    print_json(result) if json else show(result, facts)


def show(result: dict[str, Any], facts: Any) -> None:
    """The table of any-to-any matching."""
    from .output import say, table

    spaces = ", ".join(f"{name} ({s['rows']} rows, {s['dim']} dims)" for name, s in result["spaces"].items())
    say(f"{result['items']} items in {len(result['spaces'])} spaces: {spaces}.")
    found = result["any_to_any"]
    if found:
        rows = [(way, f"{v['recall@1']:.3f}", f"{v['cosine']:.3f}", str(v["items"])) for way, v in found.items()]
        table(("held-out items", "find their mate (R@1)", "cosine", "items"), rows)
    else:
        say("Too few items to hold any out: nothing is known of how good this is.")
    if result["fusion"]:
        show_fusion(result["fusion"])
    if facts.get("alternation", {}).get("advice"):
        say(facts["alternation"]["advice"])
    say(f"{result['method']} -> {result['path']} in {result['seconds']:.1f} s", style="bold")


def show_fusion(fusion: dict[str, Any]) -> None:
    """The weights, and what fusing gains and costs."""
    from .output import say, table

    for modality, weights in fusion["weights"].items():
        say(f"{modality}: " + ", ".join(f"{w:.2f} of {space}" for space, w in weights.items()))
    ways = ("fused", "equal", "single")
    rows = [(way, *(f"{found[w]:.3f}" for w in ways)) for way, found in fusion["recall@1"].items()]
    table((f"R@1 of {fusion['items']} held-out items", "fused", "equal weights", "best single space"), rows)
    for way, found in fusion["retention"].items():
        say(f"{way}: {found['own']:.3f} in its own space, {found['fused']:.3f} fused.")


def pick(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="A map file of many spaces.")],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Name of the space to come from.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Name of the space to go to.")],
    out: Out,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Take the map between two spaces out of an alignment of many."""
    from ..aligners import load
    from ..aligners.errors import UsageError
    from .compose import written

    check_map_output(out, map_file, overwrite=overwrite)
    if source == target:
        raise UsageError(f"pick: expected two spaces, got '{source}' twice.")
    written(load(map_file).between(source, target), out, overwrite=overwrite, json=json)


def extend(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="A map file of many spaces.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Dump of the space to add: NAME=PATH or PATH.")],
    known: Annotated[list[str], typer.Argument(metavar="KNOWN...", help="Dumps of spaces in it: NAME=PATH.")],
    out: Out,
    method: Annotated[str, typer.Option(help="A linear method for the new map; auto: a scaled rotation.")] = "auto",
    set_: Settings = None,
    column: Column = None,
    ids: Ids = None,
    id_column: IdColumn = None,
    by_row: ByRow = False,
    bad_rows: BadRowsOption = "refuse",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Add a space to an alignment without refitting the others, by items that it shares with some of them."""
    import torch

    from ..aligners import LinearAligner, Procrustes, load, save_alignment
    from ..aligners.errors import UsageError
    from ..aligners.multiway.extend import add_stream
    from ..aligners.recognise import require_side
    from ..stitching.many import ManyDumps
    from .output import print_json, rows_progress, say
    from .settings import build_aligner

    started = perf_counter()
    aligner = Procrustes(scale=True) if method == "auto" else build_aligner(method, set_ or [])
    if method == "auto" and set_:
        raise UsageError("--set goes with one --method, not with auto.")
    if not isinstance(aligner, LinearAligner):
        raise UsageError(f"extend: expected a linear method, got {method}.")
    alignment = load(map_file)
    dumps = named_dumps((new, *known), column, ids, id_column)
    check_map_output(out, map_file, *(d.path for d in dumps.values()), *(ids or ()), overwrite=overwrite)
    name, *others = dumps
    for other in others:
        alignment.map_of(other)
        require_side(alignment, other, torch.from_numpy(next(dumps[other].blocks())), dumps[other].name)
    many = ManyDumps.of(dumps, by_row=by_row, bad_rows=bad_rows_policy(bad_rows))
    with rows_progress(many.rows, "reading items") as advance:
        many = ManyDumps(many.dumps, many.table, many.bad_rows, advance)
        wider = add_stream(alignment, name, many, aligner, seed=seed)
    save_alignment(wider, out, overwrite=overwrite)
    added = wider.provenance["added"][-1]
    result = {
        "added": name,
        "items": added["items"],
        "any_to_any": added["any_to_any"],
        "spaces": list(wider.sides),
        "path": str(out),
        "seconds": round(perf_counter() - started, 3),
    }
    if json:
        print_json(result)
        return
    for way, found in (added["any_to_any"] or {}).items():
        say(f"{way}: {found['recall@1']:.3f} of {found['items']} held-out items find their mate.")
    say(f"{name} added by {added['items']} items -> {out}; the other maps are as they were.", style="bold")
