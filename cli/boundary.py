"""The border of the terminal: errors become one clear message and an exit code, never a traceback.

Exit codes: 0 ok, 1 error, 2 usage, 3 refused for safety, 4 gate failed, 5 undecided, 6 incomplete.
"""

from __future__ import annotations

import json
import os
from typing import Any

import typer

from .group import Group

__all__ = ["Commands"]

AS_JSON = "suture.as_json"


class Commands(Group):
    """The group of commands, with the border around it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """``--bad-rows quarantine FILE`` is one option with two words; the parser knows only one."""
        ctx.meta[AS_JSON] = "--json" in args
        joined: list[str] = []
        for word in args:
            quarantine = joined[-1:] == ["--bad-rows=quarantine"] or joined[-2:] == ["--bad-rows", "quarantine"]
            if quarantine and not word.startswith("-"):
                joined[-1] += f" {word}"
            else:
                joined.append(word)
        return super().parse_args(ctx, joined)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; report what it raises."""
        # Threads that spin while they wait make a shared machine crawl (measured: a fit of 12 s took 204 s); this must
        # be said before torch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(error, BrokenPipeError):
                raise  # whoever read our output has seen enough: the parser ends quietly
            as_json, code = ctx.meta[AS_JSON], exit_code(error)
            if code is None and as_json and hasattr(error, "format_message"):
                print_error(error.format_message(), 2)  # the parser tells people itself
            if code is None or os.environ.get("SUTURE_DEBUG"):
                raise
            report(error, code, as_json=as_json)
            raise typer.Exit(code) from None


def exit_code(error: Exception) -> int | None:
    """The exit code that an error stands for; None for those that the parser reports itself."""
    if type(error).__module__.startswith(("typer", "click")):
        return None
    from ..aligners.errors import IncompleteError, RefusedError, UsageError

    codes = {UsageError: 2, RefusedError: 3, IncompleteError: 6}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), 1)


def report(error: Exception, code: int, *, as_json: bool) -> None:
    """The message on stderr, and as an object on stdout where JSON was asked for."""
    from ..aligners.errors import SutureError

    if isinstance(error, SutureError):
        text = str(error)
    elif isinstance(error, OSError):
        text = f"{error.filename or 'the system'}: {error.strerror or error}."
    else:
        text = (
            f"unexpected {type(error).__name__}: {error}. This is a fault of suture; run again with SUTURE_DEBUG=1 and "
            "report what it prints."
        )
    word = {3: "refused", 6: "incomplete"}.get(code, "error")
    typer.echo(f"{word}: {text}", err=True)
    if as_json:
        print_error(text, code)


def print_error(text: str, code: int) -> None:
    """The error as one object on stdout."""
    typer.echo(json.dumps({"error": text, "exit_code": code}))
