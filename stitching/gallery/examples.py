"""Three queries as a reader can judge them: won, lost, and the same before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .measure import Measured

__all__ = ["examples"]

SHOWN = 3


def examples(
    measured: Measured, strategy: str, query_texts: Sequence[Any] | None, gallery_texts: Sequence[Any] | None
) -> list[dict[str, Any]]:
    """A query that the strategy won, one that it lost, one that it left as it was, as far as there are such.

    ``[{"kind", "query", "right": [...], "stay": [...], "found": [...]}]`` with texts, or row numbers without them: the
    first three rows before and after; held-out pairs that stand for a gallery have no texts. The one nearest the
    middle of its kind is shown, not the most flattering.
    """
    if "stay" not in measured.metrics or strategy not in measured.top:
        return []
    gain = measured.judged(strategy) - measured.judged("stay")
    right: dict[int, list[int]] = {}
    if measured.inputs.query is not None and measured.inputs.row is not None:
        for query, row in zip(measured.inputs.query.tolist(), measured.inputs.row.tolist(), strict=True):
            right.setdefault(query, []).append(row)

    whole = measured.inputs.scope == "gallery"

    def text(row: int) -> str:
        if not whole:
            return f"held-out pair {row}"
        return f"row {row}" if gallery_texts is None else str(gallery_texts[row])

    def rows(name: str, query: int) -> list[str]:
        return [text(row) for row in measured.top[name][query, :SHOWN].tolist() if row >= 0]

    found_something = measured.judged("stay") > 0
    out = []
    for kind, mask in (("won", gain > 0), ("lost", gain < 0), ("the same", (gain == 0) & found_something)):
        some = mask.nonzero()[:, 0]
        if not len(some):
            continue
        query = int(some[gain[some].argsort(stable=True)[len(some) // 2]]) if kind != "the same" else int(some[0])
        answers = right.get(query, [])
        out.append(
            {
                "kind": kind,
                "query": f"query {query}" if query_texts is None else str(query_texts[query]),
                "right": [text(row) for row in answers[:SHOWN]],
                "stay": rows("stay", query),
                "found": rows(strategy, query),
                "ranks": [placed(measured, name, query, answers) for name in ("stay", strategy)],
            }
        )
    return out


def placed(measured: Measured, name: str, query: int, answers: Sequence[int]) -> int | None:
    """The place of the first right row among the first ten, from 1."""
    hit = torch.isin(measured.top[name][query], torch.tensor(list(answers), dtype=torch.int64)).nonzero()[:, 0]
    return int(hit[0]) + 1 if len(hit) else None
