"""`suture split`, `contrast` and `units`: what spaces share, what sets rows apart, which units correspond."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import ByRow, IdColumn, Ids, Json, Overwrite, Seed, check_map_output, check_output, open_dumps

if TYPE_CHECKING:
    from ..aligners import Alignment

__all__ = ["contrast", "split", "units"]

Prefix = Annotated[str, typer.Option("--out", "-o", help="Start of the names of the map files to write.")]
Source = Annotated[str, typer.Argument(metavar="SOURCE", help="Dump of one space: PATH or PATH::key.")]
Target = Annotated[str, typer.Argument(metavar="TARGET", help="Dump of the same items in the other space.")]


def split(
    source: Source,
    target: Target,
    out: Prefix,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Shared directions; by default by a permutation test.")
    ] = None,
    eps: Annotated[float, typer.Option(help="Ridge of the CCA, in units of the mean variance.")] = 0.01,
    ids: Ids = None,
    id_column: IdColumn = None,
    by_row: ByRow = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Take two spaces apart: OUT.shared has the directions of both, OUT.source and OUT.target what is left of each.

    `suture apply OUT.shared... --side source|target` gives shared coordinates, the two others those of their own space.
    """
    from ..aligners import Survey
    from ..stitching.dumps import pair
    from ..stitching.parts import split_spaces
    from ..stitching.stream import PairedDumps
    from .output import rows_progress, say

    started = perf_counter()
    paths = outputs(out, ("shared", "source", "target"), source, target, *(ids or ()), overwrite=overwrite)
    pairing = pair(*open_dumps((source, target), None, ids, id_column), by_row=by_row)
    with rows_progress(pairing.rows, "reading pairs") as advance:
        survey = Survey.of(PairedDumps(pairing, advance), seed=seed)
    parts, facts = split_spaces(survey, rank, eps=eps, seed=seed)
    result = {"rows": pairing.rows, **facts, **written(parts, paths, started, overwrite=overwrite)}
    if finished(result, json):
        return
    shares = " and ".join(f"{facts['variance'][side]:.1%} of the {side}'s variance" for side in ("source", "target"))
    say(f"{facts['rank']} directions are shared; they explain {shares}.")
    show_files(result)


def contrast(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Dump of the rows that are of interest.")],
    background: Annotated[str, typer.Argument(metavar="BACKGROUND", help="Dump of rows of the same space without it.")],
    out: Prefix,
    rank: Annotated[int, typer.Option(min=1, help="Number of salient directions.")] = 10,
    alpha: Annotated[float, typer.Option(min=0, help="How much the background's variance counts against one.")] = 1.0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Contrastive PCA: OUT.salient has what varies in TARGET and not in BACKGROUND, OUT.common the rest."""
    from ..stitching.parts import contrasted
    from .output import say

    started = perf_counter()
    paths = outputs(out, ("salient", "common"), target, background, overwrite=overwrite)
    of_interest, without = open_dumps((target, background))
    parts, facts = contrasted(of_interest, without, rank, alpha=alpha)
    result = {"rank": rank, "alpha": alpha, **facts, **written(parts, paths, started, overwrite=overwrite)}
    if finished(result, json):
        return
    shares = facts["variance"]
    say(
        f"{rank} salient directions hold {shares['target']:.1%} of the target's variance and "
        f"{shares['background']:.1%} of the background's."
    )
    show_files(result)


def units(
    source: Source,
    target: Target,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Table to write, one unit a row: .csv, .jsonl or .parquet.")
    ] = None,
    clusters: Annotated[int | None, typer.Option(min=2, help="Group the units of both spaces into so many.")] = None,
    ids: Ids = None,
    id_column: IdColumn = None,
    by_row: ByRow = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """How far two spaces share their very axes: units matched one by one, one to one, and in groups."""
    from ..stitching.dumps import pair
    from ..stitching.parts import units_of
    from ..stitching.tables import require_table, write_table
    from .output import say, table

    started = perf_counter()
    if out is not None:
        require_table(out)
        check_output(out, source, target, *(ids or ()), overwrite=overwrite)
    pairing = pair(*open_dumps((source, target), None, ids, id_column), by_row=by_row)
    records, shared = units_of(pairing, clusters, seed=seed)
    if out is not None:
        write_table(out, {key: [r[key] for r in records] for key in records[0]}, overwrite=overwrite)
    spaces = [{r["cluster"] for r in records if r["space"] == side} for side in ("source", "target")]
    result = {
        "rows": pairing.rows,
        "units": {side: sum(r["space"] == side for r in records) for side in ("source", "target")},
        **shared,
        "clusters": clusters,
        "shared_clusters": None if clusters is None else len((spaces[0] & spaces[1]) - {None}),
        "path": None if out is None else str(out),
        "seconds": round(perf_counter() - started, 3),
    }
    if finished(result, json):
        return
    meaning = {"semi": "best partner of each unit", "bipartite": "partners one to one", "canonical": "best directions"}
    table(("mean correlation", "of", "value"), [(key, meaning[key], f"{shared[key]:.3f}") for key in meaning])
    if clusters is not None:
        say(f"{result['shared_clusters']} of {clusters} clusters have units of both spaces.")
    if shared["canonical"] > 1.5 * shared["bipartite"]:
        say("They share directions, not axes: a rotation is needed (`suture fit`), units do not correspond.")
    if out is not None:
        say(f"-> {out}", style="bold")


def outputs(prefix: str, parts: tuple[str, ...], *inputs: str | Path, overwrite: bool) -> dict[str, Path]:
    """The file of each part, all of them checked before anything is read."""
    paths = {part: Path(f"{prefix.removesuffix('.safetensors')}.{part}.safetensors") for part in parts}
    for path in paths.values():
        check_map_output(path, *inputs, overwrite=overwrite)
    return paths


def written(
    parts: Mapping[str, Alignment], paths: Mapping[str, Path], started: float, *, overwrite: bool
) -> dict[str, Any]:
    """Save the parts; their dims, files, and the time taken."""
    from ..aligners import save_alignment

    for name, part in parts.items():
        save_alignment(part, paths[name], overwrite=overwrite)
    return {
        "dims": {name: part.shared_dim for name, part in parts.items()},
        "paths": {name: str(path) for name, path in paths.items()},
        "seconds": round(perf_counter() - started, 3),
    }


def finished(result: dict[str, Any], json: bool) -> bool:
    """Whether all has been said, as JSON."""
    from .output import print_json

    if json:
        print_json(result)
    return json


def show_files(result: dict[str, Any]) -> None:
    """One line a file."""
    from .output import say

    for name, path in result["paths"].items():
        say(f"{name}: {result['dims'][name]} dims -> {path}", style="bold")
