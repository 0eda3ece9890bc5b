"""`--method` and `--set name=value` as an aligner."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from ..aligners import Aligner

__all__ = ["build_aligner", "choices", "hints"]


def build_aligner(name: str, settings: Sequence[str]) -> Aligner:
    """The aligner ``name`` with its ``name=value`` settings. Raises `UsageError` naming what there is."""
    from ..aligners import ALIGNERS, UsageError

    if name not in ALIGNERS:
        raise UsageError(f"--method: there is no '{name}'; there are auto, {', '.join(ALIGNERS)}.")
    kind = ALIGNERS[name]
    known = hints(kind)
    values: dict[str, Any] = {}
    for text in settings:
        key, equals, raw = text.partition("=")
        key = key.replace("-", "_")
        if not equals or key not in known:
            takes = ", ".join(known) or "nothing"
            raise UsageError(f"--set: expected name=value for {name}, which takes {takes}; got '{text}'.")
        values[key] = typed(raw, known[key], f"--set {key}")
    return kind(**values)


def hints(kind: type[Aligner]) -> dict[str, Any]:
    """The annotated type of each parameter."""
    found = get_type_hints(kind)
    return {f.name: found[f.name] for f in fields(kind)}


def options(hint: Any) -> tuple[Any, ...]:
    """The types that an annotation admits."""
    return get_args(hint) if get_origin(hint) is not Literal and get_args(hint) else (hint,)


def words(hint: Any) -> list[str]:
    """The words that it admits, where it names them."""
    return [str(word) for each in options(hint) if get_origin(each) is Literal for word in get_args(each)]


def choices(hint: Any) -> list[str]:
    """What may be written for it: words, or the names of types."""
    plain = [
        getattr(o, "__name__", str(o)).replace("NoneType", "none")
        for o in options(hint)
        if get_origin(o) is not Literal
    ]
    return [*words(hint), *plain]


def typed(text: str, hint: Any, what: str) -> Any:
    """``text`` as a value of the annotated type ``hint``."""
    from ..aligners import UsageError

    try:
        value = json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except json.JSONDecodeError:
        value = None if text.lower() in ("none", "null") else text
    if isinstance(value, int) and not isinstance(value, bool) and int not in options(hint) and float in options(hint):
        value = float(value)
    if value in words(hint) or type(value) in options(hint) or (value is None and NoneType in options(hint)):
        return value
    raise UsageError(f"{what}: expected {' or '.join(words(hint) or choices(hint))}, got '{text}'.")
