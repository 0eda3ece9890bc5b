"""What a strategy costs: what has to be embedded, what has to be written, what a query goes through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["cost", "family", "in_words", "served"]


def family(strategy: str) -> str:
    """ "cascade" of "cascade@50", "dual" of "dual-concat"."""
    return "dual" if strategy.startswith("dual") else strategy.partition("@")[0]


def cost(
    strategy: str,
    rows: int,
    old_dim: int,
    new_dim: int,
    itemsize: int,
    *,
    base: str = "",
    distinct: int | None = None,
    price: float | None = None,
) -> dict[str, Any]:
    """The cost of a strategy on ``rows`` gallery rows, a number of the index taking ``itemsize`` bytes.

    ``base``: what recalls for a cascade, or serves the rows that a backfill has not re-embedded; what it writes is
    written, and its encoders are asked. ``distinct``: gallery rows that the measured queries recalled, or that are
    filled up. The value has ``gallery_embeddings`` at once and their price at ``price`` a thousand; for a cascade at
    most ``embeddings_per_query``, each row once, and the ``distinct_rows_recalled``; ``rows_written`` and
    ``bytes_written`` to the index; the ``query_encoders`` that a query goes through.
    """
    kind, filled = family(strategy), distinct or 0
    embedded = {"re-embed": rows, "backfill": filled}.get(kind, 0)
    width = width_written(base if kind in ("cascade", "backfill") else strategy, old_dim, new_dim)
    others = 0 if width is None else rows - embedded
    per_query = int(strategy[8:]) if kind == "cascade" else 0
    asked = set(encoders(strategy)) | (set(encoders(base)) if kind in ("cascade", "backfill") else set())
    return {
        "gallery_embeddings": embedded,
        "embeddings_per_query": per_query,
        "distinct_rows_recalled": distinct if per_query else None,
        "rows_written": embedded + others,
        "bytes_written": (embedded * new_dim + others * (width or 0)) * itemsize,
        "query_encoders": sorted(asked, reverse=True),  # old, new
        "price": None if price is None else (filled if per_query else embedded) * price / 1000,
    }


def width_written(strategy: str, old_dim: int, new_dim: int) -> int | None:
    """The dims of the old rows' vectors that it writes; None where the old index stays as it is."""
    widths = {"map": new_dim, "dual-concat": old_dim + new_dim, "expanded": max(old_dim, new_dim)}
    return widths.get(strategy)


def encoders(strategy: str) -> list[str]:
    """Whose vectors of a query it needs itself."""
    return {"stay": ["old"], "dual": ["old", "new"]}.get(family(strategy), ["new"])


def in_words(cost: Mapping[str, Any]) -> str:
    """A cost in a few words."""
    parts = []
    if cost["gallery_embeddings"]:
        parts.append(f"embed {cost['gallery_embeddings']}")
    if cost["embeddings_per_query"]:
        parts.append(f"embed {cost['embeddings_per_query']} a query: {cost['distinct_rows_recalled']} rows")
    if cost["rows_written"]:
        parts.append(f"write {cost['rows_written']}")
    if len(cost["query_encoders"]) > 1:
        parts.append("two encoders")
    return ", ".join(parts) or "none"


def served(result: Mapping[str, Any]) -> list[str]:
    """What recalls for the cascades and what serves the rows that a backfill has not reached, as far as measured."""
    measured = {family(s["name"]) for s in result["strategies"] if s["metrics"]}
    out = [f"Cascades recall by {result['recall_by']}."] if "cascade" in measured else []
    if "backfill" in measured:
        by = result["backfill_by"]
        out.append(f"Backfill goes in the order {by['order']}, the rest is served by {by['base']}.")
    return out
