"""How far an upgrade is on its way to the users: one small file beside the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..stores.disk import read_state, write_json

__all__ = ["enter", "phase", "record"]


def record(state: Path) -> dict[str, Any]:
    """The phase, and what it needs to be gone back from. `RefusedError` where the file is damaged."""
    found: dict[str, Any] = read_state(state / "phase.json") or {"phase": "planned"}
    return found


def phase(state: Path) -> str:
    """ "planned", "switching", "switched", "rolling back", "rolled back" or "retired"."""
    return str(record(state)["phase"])


def enter(state: Path, name: str, **facts: Any) -> None:
    """Record what is being done before it is done, so that a run that was killed can be understood."""
    write_json(state / "phase.json", {**record(state), **facts, "phase": name})
