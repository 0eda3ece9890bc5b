"""`--method` and `--set name=value` as an aligner."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from ..aligners import Aligner

__all__ = ["build_aligner"]


def build_aligner(name: str, settings: Sequence[str]) -> Aligner:
    """The aligner ``name`` with its ``name=value`` settings. Raises `UsageError` naming what there is."""
    from ..aligners import ALIGNERS, UsageError

    if name not in ALIGNERS:
        raise UsageError(f"--method: there is no '{name}'; there are auto, {', '.join(ALIGNERS)}.")
    kind = ALIGNERS[name]
    hints = get_type_hints(kind)
    known = {f.name: hints[f.name] for f in fields(kind)}
    values: dict[str, Any] = {}
    for text in settings:
        key, equals, raw = text.partition("=")
        key = key.replace("-", "_")
        if not equals or key not in known:
            takes = ", ".join(known) or "nothing"
            raise UsageError(f"--set: expected name=value for {name}, which takes {takes}; got '{text}'.")
        values[key] = typed(raw, known[key], f"--set {key}")
    return kind(**values)


def typed(text: str, hint: Any, what: str) -> Any:
    """``text`` as a value of the annotated type ``hint``."""
    from ..aligners import UsageError

    options = get_args(hint) if get_origin(hint) is not Literal and get_args(hint) else (hint,)
    words = [str(word) for option in options if get_origin(option) is Literal for word in get_args(option)]
    try:
        value = json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except json.JSONDecodeError:
        value = None if text.lower() in ("none", "null") else text
    if isinstance(value, int) and not isinstance(value, bool) and int not in options and float in options:
        value = float(value)
    if value in words or (type(value) in options) or (value is None and NoneType in options):
        return value
    names = words or [getattr(o, "__name__", str(o)).replace("NoneType", "none") for o in options]
    raise UsageError(f"{what}: expected {' or '.join(names)}, got '{text}'.")
