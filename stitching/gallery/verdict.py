"""What to do, what it costs, and whether it passes the gates that were set beforehand."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...aligners.errors import UsageError

__all__ = ["ORDER", "Gate", "Verdict", "cost", "family", "judge_gate", "verdict"]

# Cheapest first: what has to be embedded, then what has to be written, then what a query costs.
ORDER = (
    *("stay", "bridge", "dual", "dual-tuned", "map", "dual-concat", "cascade@10", "cascade@50", "cascade@200"),
    *("expanded", "backfill@10", "backfill@25", "backfill@50", "re-embed"),
)
ENOUGH = 0.95  # of what the best strategy reaches; a cheaper one that keeps it is preferred


@dataclass(frozen=True)
class Verdict:
    """``name``: one of the strategies without its number, or "undecided"; ``strategy``: which row of the table.

    ``more_queries``: about how many more would decide it.
    """

    name: str
    strategy: str | None
    sentence: str
    more_queries: int | None = None


def family(strategy: str) -> str:
    """ "cascade" of "cascade@50", "dual" of "dual-concat"."""
    return "dual" if strategy.startswith("dual") else strategy.partition("@")[0]


def verdict(rows: Sequence[Mapping[str, Any]], metric: str, queries: int, *, pairing: str, scope: str) -> Verdict:
    """The cheapest strategy that is better than staying and keeps 95 % of the best such one.

    Better: the chance that it is not, from the bootstrap, is below 5 % after Holm's correction (Holm 1979) for the
    number of strategies. ``rows`` are those of the table; ``pairing`` is the verdict of the audit.
    """
    judged = (row for row in rows if row["name"] in ORDER and (row["metrics"] or {}).get(metric) is not None)
    table = {row["name"]: row for row in judged}
    if pairing == "unrelated":
        return Verdict(
            "stay",
            "stay",
            "Stay: the pairs look unrelated, true pairs outscore shuffled ones no more often than chance. Are the rows "
            "of one dump shifted or shuffled against the other?",
        )
    if scope != "gallery":
        return Verdict("undecided", None, "Undecided: not judged on your gallery, see the note.")
    value = {name: row["metrics"][metric]["estimate"] for name, row in table.items()}
    if "stay" not in table:
        return without_old(table, value, metric)
    sure = clearly_better(table)
    if not sure:
        return not_better(table, value, metric, queries)
    best = max(sure, key=value.__getitem__)
    chosen = next(name for name in ORDER if name in sure and value[name] >= ENOUGH * value[best])
    said = f"{title(chosen)}: {metric} {value[chosen]:.3f} against {value['stay']:.3f} of staying"
    if chosen != best:
        said += f", {value[chosen] / value[best]:.0%} of {best} ({value[best]:.3f})"
    return Verdict(family(chosen), chosen, said + "." + left(table, value, chosen))


def left(table: Mapping[str, Any], value: Mapping[str, float], chosen: str) -> str:
    """What was left out of the comparison, if the oracle was."""
    return "" if "re-embed" in table or chosen == "re-embed" else " Re-embedding was not measured: no full pool."


def clearly_better(table: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The strategies that are better than staying, by Holm's correction."""
    doubts = sorted((row["doubt"], name) for name, row in table.items() if row["doubt"] is not None)
    sure: set[str] = set()
    for i, (doubt, name) in enumerate(doubts):
        if doubt * (len(doubts) - i) >= 0.05:
            break
        sure.add(name)
    return sure


def not_better(table: Mapping[str, Any], value: Mapping[str, float], metric: str, queries: int) -> Verdict:
    """Nothing beats staying: because it is no better, or because there are too few queries to tell."""
    others = {name: row["difference"][metric] for name, row in table.items() if name != "stay"}
    leader = max(others, key=lambda name: float(others[name]["estimate"]))
    gap = others[leader]
    old = value["stay"]
    if all(d["low"] == d["high"] == 0 for name, d in others.items() if name in ("map", "re-embed")) and others:
        return Verdict("stay", "stay", f"Stay: the new model finds the same as the old one, {metric} {old:.3f}.")
    if "re-embed" in others and others["re-embed"]["high"] <= 0:
        new = value["re-embed"]
        return Verdict(
            "stay", "stay", f"Stay: the new model is worse here, re-embedded {metric} {new:.3f} against {old:.3f}."
        )
    if gap["estimate"] <= 0 or gap["high"] <= 0.005 * max(old, 1e-9):
        said = (
            f"Stay: nothing beats the old model's {metric} {old:.3f}; the nearest, {leader}, has {value[leader]:.3f}."
        )
        return Verdict("stay", "stay", said)
    half = (gap["high"] - gap["low"]) / 2
    needed = math.ceil(queries * (1.8 * half / gap["estimate"]) ** 2)  # 1.8: the correction for many strategies
    more = max(needed - queries, math.ceil(queries / 2))
    said = (
        f"Undecided: the best, {leader}, has {metric} {value[leader]:.3f} against {old:.3f} of staying, difference "
        f"{gap['estimate']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]; about {more} more queries would tell."
    )
    return Verdict("undecided", leader, said, more)


def without_old(table: Mapping[str, Any], value: Mapping[str, float], metric: str) -> Verdict:
    """The old model is gone: staying is no choice."""
    best = max(value, key=value.__getitem__)
    chosen = next(name for name in ORDER if name in value and value[name] >= ENOUGH * value[best])
    said = (
        f"{title(chosen)}: {metric} {value[chosen]:.3f}"
        + (f", {value[chosen] / value[best]:.0%} of {best}" if chosen != best else "")
        + ". Without the queries by the old encoder (--old-queries) it cannot be told whether staying would be better."
    )
    return Verdict(family(chosen), chosen, said)


def title(strategy: str) -> str:
    """The strategy as the first words of a sentence."""
    words = {
        "stay": "Stay",
        "bridge": "Bridge: map new queries into the old space",
        "map": "Map the gallery into the new space",
        "dual": "Keep the index and ask it by both encoders (dual)",
        "dual-tuned": "Keep the index and ask it by both encoders, by a vector trained on labels (dual-tuned)",
        "dual-concat": "Ask old and mapped vectors together by both encoders (dual-concat)",
        "expanded": "Expanded form",
        "re-embed": "Re-embed everything",
    }
    if strategy.startswith("cascade@"):
        return f"Cascade: recall {strategy[8:]} rows from the old gallery, re-embed those, rank by the new model"
    if strategy.startswith("backfill@"):
        return f"Re-embed {strategy[9:]} % of the gallery in the best order"
    return words[strategy]


def cost(
    strategy: str,
    rows: int,
    old_dim: int,
    new_dim: int,
    itemsize: int,
    distinct: int | None,
    price: float | None = None,
) -> dict[str, Any]:
    """What a strategy costs: ``gallery_embeddings`` at once and their price at ``price`` a thousand; for a cascade at
    most ``embeddings_per_query``, each row once, and the ``distinct_rows_recalled`` by the queries that were measured;
    ``rows_written`` and ``bytes_written`` to the index; the ``query_encoders`` that a query goes through.
    """
    embedded = written = width = per_query = 0
    encoders = {"stay": ["old"], "dual": ["old", "new"]}.get(family(strategy), ["new"])
    if strategy == "re-embed":
        embedded, written, width = rows, rows, new_dim
    elif strategy in ("map", "expanded"):
        written, width = rows, new_dim if strategy == "map" else max(old_dim, new_dim)
    elif strategy == "dual-concat":
        written, width = rows, old_dim + new_dim
    elif strategy.startswith("backfill@"):
        embedded = written = distinct or 0
        width = new_dim
    elif strategy.startswith("cascade@"):
        per_query = int(strategy[8:])
    return {
        "gallery_embeddings": embedded,
        "embeddings_per_query": per_query,
        "distinct_rows_recalled": distinct if per_query else None,
        "rows_written": written,
        "bytes_written": written * width * itemsize,
        "query_encoders": encoders,
        "price": None if price is None else (embedded or (distinct or 0) * bool(per_query)) * price / 1000,
    }


@dataclass(frozen=True)
class Gate:
    """``quantity`` of a strategy against a ``bound``."""

    text: str
    quantity: str
    sign: Literal[">", ">=", "<", "<="]
    bound: float

    @classmethod
    def parse(cls, text: str) -> Gate:
        """``retention>=0.95``. Raises `UsageError` for what is no such thing."""
        found = re.fullmatch(r"\s*([a-z_]+(?:@\d+)?)\s*(>=|<=|>|<)\s*(-?\d*\.?\d+(?:e-?\d+)?)\s*", text)
        if found is None:
            raise UsageError(f"--gate: expected something like retention>=0.95, got '{text}'.")
        quantity, sign, bound = found.groups()
        return cls(text.strip(), quantity, sign, float(bound))  # type: ignore[arg-type]


def judge_gate(gate: Gate, row: Mapping[str, Any]) -> dict[str, Any]:
    """``{"gate", "strategy", "value", "result"}``: pass or fail only where the whole interval says so."""
    known = {**(row["metrics"] or {}), **row["quantities"]}
    if gate.quantity not in known:
        raise UsageError(f"--gate {gate.text}: there is no '{gate.quantity}'; there are {', '.join(sorted(known))}.")
    value = known[gate.quantity]
    out = {"gate": gate.text, "strategy": row["name"], "value": value}
    if value is None or value["estimate"] is None:
        return {**out, "result": "undecided", "reason": f"{gate.quantity} could not be measured"}
    compare = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}[gate.sign]
    ends = [compare(value["low"], gate.bound), compare(value["high"], gate.bound)]
    return {**out, "result": "pass" if all(ends) else "undecided" if any(ends) else "fail"}
