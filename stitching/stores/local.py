"""Clients of local folders that only one process may open, and only once: shared by the stores of this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["borrow", "give_back"]

OPEN: dict[str, list[Any]] = {}


def borrow(place: str, make: Callable[[], Any]) -> Any:
    """The client of ``place``, made where nobody has it."""
    key = str(Path(place).resolve())
    if key not in OPEN:
        OPEN[key] = [make(), 0]
    OPEN[key][1] += 1
    return OPEN[key][0]


def give_back(place: str, close: Callable[[Any], None]) -> None:
    """Say that it is no longer needed here; the last one closes it."""
    key = str(Path(place).resolve())
    OPEN[key][1] -= 1
    if not OPEN[key][1]:
        close(OPEN.pop(key)[0])
