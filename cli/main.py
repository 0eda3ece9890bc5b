"""The `suture` command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .apply import apply
from .boundary import Commands
from .compose import compose, invert
from .demo.command import demo
from .evaluate import evaluate
from .evaluate_head import evaluate_head
from .fit import fit
from .gallery.group import gallery
from .group import group
from .inspect import inspect
from .many import extend, pick
from .match import match
from .methods import methods
from .named import concepts
from .parts import contrast, split, units
from .reshape import recombine, truncate
from .stitch import export, fold, stitch

__all__ = ["app"]

app = group(
    "suture",
    "Align latent spaces after the fact: fit a map between two embedding dumps, judge it honestly, use it.",
    fit,
    match,
    apply,
    evaluate,
    inspect,
    compose,
    invert,
    pick,
    extend,
    truncate,
    recombine,
    split,
    contrast,
    units,
    concepts,
    stitch,
    fold,
    export,
    evaluate_head,
    methods,
    demo,
    gallery,
    base=Commands,
)


def show_version(asked: bool) -> None:
    """Print the version and stop."""
    if asked:
        typer.echo(f"suture {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Version.")] = False,
) -> None:
    """Align latent spaces after the fact: fit a map between two embedding dumps, judge it honestly, use it."""
