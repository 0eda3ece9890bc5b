"""Groups of commands, each built when it is asked for: reading the options of all thirty took half of `suture --help`.

Help is plain text: the rich kind loads a parser of Markdown and one of source code, for as long again.
"""

from __future__ import annotations

import inspect
from collections import UserDict
from collections.abc import Callable
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.main import get_command

__all__ = ["Group", "group"]


class Members(UserDict[str, Any]):
    """Commands by name. What is put in is a function or a group; what is taken out is built."""

    def __getitem__(self, name: str) -> Any:
        member = self.data[name]
        if isinstance(member, typer.Typer):
            return get_command(member)
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        alone.command(name)(member)
        return get_command(alone)

    def summary(self, name: str) -> str:
        """The first sentence of the help of one, without building it."""
        member = self.data[name]
        words = member.info.help if isinstance(member, typer.Typer) else inspect.getdoc(member)
        return " ".join((words or "").partition("\n\n")[0].split())


class Group(TyperGroup):
    """A group of commands; `group` makes one."""

    members: ClassVar[dict[str, Any]]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings | {"commands": None})
        self.commands: Any = Members(self.members)

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in the order given."""
        del ctx
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Their names and what each is for."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.commands.summary(name)) for name in self.commands])


def group(
    name: str, summary: str, *members: Callable[..., None] | typer.Typer, base: type[Group] = Group
) -> typer.Typer:
    """A group of functions (`evaluate_head` is called `evaluate-head`) and of other groups."""
    named = {str(m.info.name) if isinstance(m, typer.Typer) else m.__name__.replace("_", "-"): m for m in members}
    return typer.Typer(
        name=name,
        cls=type(base.__name__, (base,), {"members": named}),
        help=summary,
        callback=lambda: None,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
