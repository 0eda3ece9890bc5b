"""What `suture fit` says of the pairs and of the map beside the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["cautions", "left_out", "pairing_line"]


def cautions(facts: Mapping[str, Any], source_dim: int) -> list[str]:
    """What to know before a map is trusted, by the ``facts`` of its provenance: a sentence each, with advice."""
    said = []
    method, rows, rotation = facts["method"], facts["rows"], facts.get("rotation")
    # Of enough pairs, directions are missing in which a space hardly varies (three of MiniLM's 384): no matter.
    if rotation is not None and not rotation["unique"] and rows <= rotation["dims"]:
        said.append(
            f"{method}: the {rows} pairs determine {rotation['rank']} of the {rotation['dims']} directions of the "
            "rotation, the others are turned arbitrarily. Give more pairs, or take --method ridge, which leaves out "
            "what no pair speaks of (blend takes half of either)."
        )
    if method == "least-squares" and rows < 2 * source_dim:
        said.append(
            f"{method}: {rows} pairs for {source_dim} source dims are fitted together with their noise. Give more "
            f"(twice the dims at least, {2 * source_dim}), or take --method ridge."
        )
    return said


def left_out(pairing: dict[str, Any]) -> list[str]:
    """The rows that have no mate, and those that have several or share an id; nothing where there are none."""
    sides = ("source", "target")
    of_a_table = pairing["by"] == "pairs"
    alone = [
        f"{pairing[f'{side}_only']} of {pairing[f'{side}_rows']} {side} rows (such as "
        f"{pairing[f'{side}_only_examples'][0]!r})"
        for side in sides
        if pairing[f"{side}_only"]
    ]
    several = [
        f"{pairing[f'{side}_repeated']} {side} {'rows' if of_a_table else 'ids'} (such as "
        f"{pairing[f'{side}_repeated_examples'][0]!r})"
        for side in sides
        if pairing[f"{side}_repeated"]
    ]
    said = "Paired more than once" if of_a_table else "In more than one row"
    return [f"{what}: {' and '.join(each)}." for what, each in (("Without a mate", alone), (said, several)) if each]


def pairing_line(audit: dict[str, Any]) -> str:
    """What the audit of the pairing says, in a sentence."""
    if audit["auc"] is None:
        return "Too few pairs to tell wrong ones from right ones."
    told = f"True pairs outscore shuffled ones in {audit['auc']:.1%} of cases"
    if audit["verdict"] == "unknown":
        return f"{told}: single wrong pairs cannot be told here."
    return f"{told}; {audit['suspect_share']:.1%} suspects."
