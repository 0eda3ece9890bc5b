"""`suture compose` and `suture invert`: maps made of maps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json, Overwrite, Unfamiliar, check_map_output

if TYPE_CHECKING:
    from ..aligners import Alignment

__all__ = ["compose", "invert"]

Out = Annotated[Path, typer.Option("--out", "-o", help="The map file to write (.safetensors).")]


def compose(
    maps: Annotated[list[Path], typer.Argument(help="Two or more map files, first applied first.")],
    out: Out,
    unfamiliar: Unfamiliar = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Join maps end to end: 1 -> 2 and 2 -> 3 give 1 -> 3."""
    from ..aligners import load
    from ..aligners.errors import UsageError
    from ..aligners.recognise import require_joint

    if len(maps) < 2:
        raise UsageError(f"compose: expected two or more maps, got {len(maps)}.")
    check_map_output(out, *maps, overwrite=overwrite)
    whole = load(maps[0])
    for before, path in pairwise(maps):
        following = load(path)
        require_joint(whole, following, f"{before} and {path}", behaviour=not unfamiliar)
        whole >>= following
    written(whole, out, overwrite=overwrite, json=json)


def invert(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="The map to turn round.")],
    out: Out,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Turn a map round, exactly, or say why that is not possible."""
    from ..aligners import load

    check_map_output(out, map_file, overwrite=overwrite)
    written(load(map_file).inverse(), out, overwrite=overwrite, json=json)


def written(alignment: Alignment, out: Path, *, overwrite: bool, json: bool) -> None:
    """Save the new map and say what it is."""
    from ..aligners import save_alignment
    from .output import print_json, say

    save_alignment(alignment, out, overwrite=overwrite)
    mapping = alignment.translate()
    dims = {"source_dim": mapping.source_dim, "target_dim": mapping.target_dim}
    if json:
        print_json({"method": alignment.provenance["method"], "kind": mapping.kind, **dims, "path": str(out)})
    else:
        say(f"{mapping.kind} map, {dims['source_dim']} -> {dims['target_dim']} dims -> {out}")
        say("It has not been judged as a whole: run `suture evaluate` on it.")
