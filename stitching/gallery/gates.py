"""Conditions that were set beforehand, and whether an estimate meets them."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...aligners.errors import UsageError
from .table import METRICS, NULLS, QUANTITIES
from .variants import FORMED, FORMS
from .verdict import FEWEST, ORDER

__all__ = ["Gate", "doubted", "judge_gate", "judge_gates", "require_overlap", "require_strategy", "too_few"]

STRATEGIES = (*ORDER, *NULLS, *(f"{base} {form}" for base in FORMED for form in FORMS))
FORM = re.compile(r"\s*([a-z_]+(?:@\d+)?)\s*(>=|<=|>|<)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Gate:
    """``quantity`` of a strategy against a ``bound``."""

    text: str
    quantity: str
    sign: Literal[">", ">=", "<", "<="]
    bound: float

    @classmethod
    def parse(cls, text: str) -> Gate:
        """``retention>=0.95``. Raises `UsageError` for what is no such thing, or no quantity of an estimate."""
        found = FORM.fullmatch(text)
        if found is None:
            raise UsageError(
                f"--gate: expected something like retention>=0.95 (a quantity, one of > >= < <=, a plain number: 0.95 "
                f"and not 95%), got '{text}'."
            )
        quantity, sign, bound = found.groups()
        if quantity not in METRICS + QUANTITIES and not re.fullmatch(r"overlap@\d+", quantity):
            known = ", ".join((*METRICS, "overlap@10", *QUANTITIES))
            raise UsageError(f"--gate {text.strip()}: there is no '{quantity}'; there are {known}.")
        return cls(text.strip(), quantity, sign, float(bound))  # type: ignore[arg-type]


def require_strategy(name: str) -> str:
    """The name. Raises `UsageError` where there is no such strategy."""
    if name not in STRATEGIES:
        raise UsageError(f"--strategy: there is no '{name}'; there are {', '.join(STRATEGIES)}.")
    return name


def require_overlap(gates: Sequence[Gate], k: int | None) -> None:
    """Raises `UsageError` where a gate is on another overlap than ``overlap@k``, which the pool tells."""
    for gate in gates:
        if gate.quantity.startswith("overlap@") and gate.quantity != f"overlap@{k}":
            told = "needs --pool" if k is None else f"this pool tells overlap@{k}"
            raise UsageError(f"--gate {gate.text}: {told}.")


def judge_gates(
    gates: Sequence[Gate], rows: Sequence[Mapping[str, Any]], strategy: str | None, *, doubt: str | None
) -> list[dict[str, Any]]:
    """Each gate on the row of that ``strategy``; ``doubt``: why nothing here can pass or fail, if so."""
    row = next((row for row in rows if row["name"] == strategy), None)
    if row is None:
        absent = doubt or f"{strategy} was not measured"
        row = {"name": strategy, "metrics": None, "quantities": {}, "reason": absent}
    judged = [judge_gate(gate, row) for gate in gates]
    return [{**each, "result": "undecided", "reason": doubt} if doubt else each for each in judged]


def judge_gate(gate: Gate, row: Mapping[str, Any]) -> dict[str, Any]:
    """``{"gate", "strategy", "value", "result", "reason"}``: pass or fail only where the whole interval says so.

    ``reason``: why it is undecided, else None.
    """
    value = {**(row["metrics"] or {}), **row["quantities"]}.get(gate.quantity)
    out = {"gate": gate.text, "strategy": row["name"], "value": value}
    if value is None or value["estimate"] is None:
        reason = row["reason"] or f"{gate.quantity} could not be measured"
        return {**out, "result": "undecided", "reason": reason}
    compare = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}[gate.sign]
    ends = [compare(value["low"], gate.bound), compare(value["high"], gate.bound)]
    if any(ends) and not all(ends):
        return {**out, "result": "undecided", "reason": "its interval holds the bound; more queries narrow it"}
    return {**out, "result": "pass" if all(ends) else "fail", "reason": None}


def doubted(said: str, gated: str | None, *, scope: str, few: str | None) -> str | None:
    """Why no gate can pass or fail, if so; ``few`` is what `too_few` says."""
    if scope != "gallery":
        return "judged on held-out pairs, not on your gallery"
    if few is not None:
        return few
    if said == "undecided" and gated is None:
        return "the verdict is undecided; --strategy names what to judge"
    return None


def too_few(units: int, *, grouped: bool) -> str | None:
    """Why no interval can be trusted, if so. ``units``: answered queries, or groups of them where ``grouped``."""
    if units >= FEWEST:
        return None
    what = "groups of queries" if grouped else "queries"
    return f"bounds from fewer than {FEWEST} {what} with answers cannot be trusted, there are {units}"
