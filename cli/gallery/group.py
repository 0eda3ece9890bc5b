"""`suture gallery`: the group of commands that move a retrieval gallery to another encoder. One thin file a command."""

from __future__ import annotations

import typer

from .apply import apply
from .backfill import backfill
from .estimate import estimate
from .look import inspect
from .moving import retire, rollback, status, switch, verify
from .plan import plan
from .sample import sample

__all__ = ["gallery"]

gallery = typer.Typer(
    name="gallery",
    help="Know whether to move a retrieval gallery to a new encoder, and move it.",
    no_args_is_help=True,
)


@gallery.callback()
def main() -> None:
    """Know whether to move a retrieval gallery to a new encoder, and move it."""


for command in (sample, estimate, inspect, plan, apply, status, verify, switch, rollback, backfill, retire):
    gallery.command()(command)
