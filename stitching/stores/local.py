"""Clients of local folders that only one process may open, and only once: shared by the stores of this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["borrow", "give_back"]

OPEN: dict[str, list[Any]] = {}


def borrow(place: str, make: Callable[[], Any]) -> Any:
    """The client of ``place``, made where nobody has it."""
    if place not in OPEN:
        OPEN[place] = [make(), 0]
    OPEN[place][1] += 1
    return OPEN[place][0]


def give_back(place: str, close: Callable[[Any], None]) -> None:
    """Say that it is no longer needed here; the last one closes it."""
    OPEN[place][1] -= 1
    if not OPEN[place][1]:
        close(OPEN.pop(place)[0])
