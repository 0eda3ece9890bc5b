"""What to do."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .costs import family

__all__ = ["FEWEST", "ORDER", "Verdict", "presumes_the_move", "verdict"]

# Cheapest first: what has to be embedded, then what has to be written, then what a query costs.
ORDER = (
    *("stay", "bridge", "dual", "dual-tuned", "map", "dual-concat", "cascade@10", "cascade@50", "cascade@200"),
    *("expanded", "backfill@10", "backfill@25", "backfill@50", "re-embed"),
)
ENOUGH = 0.95  # of what the best strategy reaches; a cheaper one that keeps it is preferred
NEARLY_ALL = 0.9  # of the gallery: a cascade that recalls as much costs what re-embedding it costs
# Answered queries, or groups, that bounds need. Simulated nDCG that is 0 for 70 to 90 % of the queries: 90 % percentile
# intervals hold 42 to 76 % with 5, 63 to 83 % with 10, 85 to 88 % with 20.
FEWEST = 20


@dataclass(frozen=True)
class Verdict:
    """``name``: one of the strategies without its number, or "undecided"; ``strategy``: which row of the table.

    ``more_queries``: about how many more would decide it, or prove what only looks better than the strategy.
    """

    name: str
    strategy: str | None
    sentence: str
    more_queries: int | None = None


@dataclass(frozen=True)
class Found:
    """The rows of the ``table`` that have the ``metric``, by name, of ``queries`` of which ``answered`` have answers.

    ``base`` recalls for the cascades.
    """

    table: Mapping[str, Mapping[str, Any]]
    metric: str
    queries: int
    answered: int
    gallery_rows: int
    base: str

    def value(self, name: str) -> float:
        """The metric of a strategy."""
        return float(self.table[name]["metrics"][self.metric]["estimate"])

    def gap(self, name: str) -> Mapping[str, float]:
        """The interval of its difference to staying."""
        gap: Mapping[str, float] = self.table[name]["difference"][self.metric]
        return gap

    def recalled(self, name: str) -> int:
        """How many rows of the gallery these queries recalled for it; 0 where it is no cascade."""
        return int((self.table[name]["cost"] or {}).get("distinct_rows_recalled") or 0)

    def nearly_all(self, name: str) -> bool:
        """Whether that was so much of the gallery that it saves nothing."""
        return self.recalled(name) >= NEARLY_ALL * self.gallery_rows

    def offered(self, names: Collection[str]) -> list[str]:
        """Those names, cheapest first, without cascades that recalled nearly all rows; with these if there is no other.

        Where re-embedding was not measured such a cascade stands for it.
        """
        ordered = [name for name in ORDER if name in names]
        if "re-embed" not in self.table:
            return ordered
        return [name for name in ordered if not self.nearly_all(name)] or ordered

    def best(self, names: Collection[str]) -> tuple[str, str]:
        """The cheapest of those names that keeps 95 % of the best, and the best."""
        best = max(self.offered(names), key=self.value)
        return next(n for n in self.offered(names) if self.value(n) >= ENOUGH * self.value(best)), best

    def more_queries(self, name: str) -> int:
        """About how many more would prove that a strategy ahead of staying is better."""
        gap = self.gap(name)
        half = (gap["high"] - gap["low"]) / 2
        # 1.8: the correction for many strategies
        needed = math.ceil(self.answered * (1.8 * half / gap["estimate"]) ** 2)
        return max(needed - self.answered, math.ceil(self.answered / 2), FEWEST - self.answered)


def verdict(
    rows: Sequence[Mapping[str, Any]],
    metric: str,
    *,
    queries: int,
    answered: int,
    gallery_rows: int,
    base: str,
    pairing: str,
    scope: str,
) -> Verdict:
    """The cheapest strategy that is better than staying and keeps 95 % of the best such one.

    Better: the chance that it is not, from the bootstrap, is below 5 % after Holm's correction (Holm 1979) for the
    number of strategies. ``rows`` are those of the table; ``base`` recalls for cascades; ``pairing`` is the verdict of
    the audit.
    """
    if pairing == "unrelated":
        return Verdict(
            "stay",
            "stay",
            "Stay: the pairs look unrelated, true pairs outscore shuffled ones no more often than chance. Are the rows "
            "of one dump shifted or shuffled against the other?",
        )
    if scope != "gallery":
        return Verdict("undecided", None, "Undecided: not judged on your gallery, see the note.")
    judged = (row for row in rows if row["name"] in ORDER and (row["metrics"] or {}).get(metric) is not None)
    found = Found({row["name"]: row for row in judged}, metric, queries, answered, gallery_rows, base)
    sure = clearly_better(found.table)
    if "stay" not in found.table:
        said = without_old(found)
    elif finds_the_same(found):
        # Whatever is better than staying here, a query vector trained on labels, owes nothing to the new model.
        same = f"Stay: the new model finds the same as the old one, {metric} {found.value('stay'):.3f}."
        said = Verdict("stay", "stay", same + left(found))
    else:
        said = better(found, sure) if sure else not_better(found)
    if presumes_the_move(said.name, metric):
        return replace(said, sentence=f"If you have decided to move, {said.sentence[0].lower()}{said.sentence[1:]}")
    return said


def presumes_the_move(name: str, metric: str) -> bool:
    """Whether a verdict says how to move and not whether: nearness to the new model cannot tell if that is better."""
    return metric.startswith("overlap") and name not in ("stay", "undecided")


def clearly_better(table: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The strategies that are better than staying, by Holm's correction."""
    doubts = sorted((row["doubt"], name) for name, row in table.items() if row["doubt"] is not None)
    sure: set[str] = set()
    for i, (doubt, name) in enumerate(doubts):
        if doubt * (len(doubts) - i) >= 0.05:
            break
        sure.add(name)
    return sure


def finds_the_same(found: Found) -> bool:
    """Whether new queries, on mapped and on new rows, find just what old ones find."""
    moved = [found.gap(name) for name in ("map", "re-embed") if name in found.table]
    return found.value("stay") > 0 and bool(moved) and all(gap["low"] == gap["high"] == 0 for gap in moved)


def better(found: Found, sure: set[str]) -> Verdict:
    """Some are better than staying for sure."""
    chosen, best = found.best(sure)
    said = f"{title(found, chosen)} against {found.value('stay'):.3f} of staying" + share_of(found, chosen, best) + "."
    others = [n for n in found.offered(found.table) if n not in sure and ENOUGH * found.value(n) > found.value(chosen)]
    more = None
    if others:
        leader = max(others, key=found.value)
        more = found.more_queries(leader)
        said += (
            f" {listed(others)} {'look' if len(others) > 1 else 'looks'} better still, {leader} with "
            f"{found.value(leader):.3f}, but not for sure better than staying; about {more} more queries would tell."
        )
    return Verdict(family(chosen), chosen, said + recalls(found, chosen, sure) + left(found), more)


def not_better(found: Found) -> Verdict:
    """Nothing beats staying: because it is no better, or because there are too few queries to tell."""
    metric, old = found.metric, found.value("stay")
    others = found.offered([name for name in found.table if name != "stay"])
    leader = max(others, key=found.value)
    new = found.value("re-embed" if "re-embed" in others else leader)
    if old == new == 0:
        return nothing_found("neither the old model nor the new one finds")
    if "re-embed" in others and found.gap("re-embed")["high"] < 0:
        said = f"Stay: the new model is worse here, re-embedded {metric} {new:.3f} against {old:.3f}."
    elif found.gap(leader)["estimate"] <= 0 or found.gap(leader)["high"] <= 0.005 * old:
        said = (
            f"Stay: nothing that was measured beats the old model's {metric} {old:.3f}; the nearest, {leader}, has "
            f"{found.value(leader):.3f}."
        )
    else:
        gap, more = found.gap(leader), found.more_queries(leader)
        said = (
            f"Undecided: the best, {leader}, has {metric} {found.value(leader):.3f} against {old:.3f} of staying, "
            f"difference {gap['estimate']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]; about {more} more queries "
            "would tell."
        )
        return Verdict("undecided", leader, said + left(found), more)
    return Verdict("stay", "stay", said + left(found))


def without_old(found: Found) -> Verdict:
    """The old model is gone: staying is no choice."""
    chosen, best = found.best(found.table)
    if found.value(best) == 0:
        return nothing_found("nothing finds")
    said = f"{title(found, chosen)}{share_of(found, chosen, best)}.{recalls(found, chosen, found.table)}{left(found)}"
    said += " Without the queries by the old encoder (--old-queries) it cannot be told whether staying would be better."
    return Verdict(family(chosen), chosen, said)


def nothing_found(what: str) -> Verdict:
    """No answer to any query is among the first ten."""
    return Verdict(
        "undecided",
        None,
        f"Undecided: {what} a right answer to any of these queries among its first ten, so they cannot tell. Are the "
        "answers (--relevant) those of these queries, and of this gallery?",
    )


def share_of(found: Found, chosen: str, best: str) -> str:
    """What the chosen one keeps of the best, if that is another."""
    if chosen == best:
        return ""
    return f", {found.value(chosen) / found.value(best):.0%} of {best} ({found.value(best):.3f})"


def recalls(found: Found, chosen: str, names: Collection[str]) -> str:
    """How much of the gallery a cascade recalled: that which was chosen, or one that was passed over."""
    passed = [name for name in ORDER if name in names and name not in found.offered(names)]
    passed = [name for name in passed if found.value(name) >= ENOUGH * found.value(chosen)]
    cascade = chosen if found.recalled(chosen) else passed[0] if passed else None
    if cascade is None:
        return ""
    rows = found.recalled(cascade)
    told = f"hese {found.queries:,} queries recalled {rows:,} of {found.gallery_rows:,} rows"
    if cascade != chosen:
        return f" {cascade} was passed over, it costs what re-embedding everything costs: t{told}."
    return f" T{told}{', which costs what re-embedding everything costs' * found.nearly_all(cascade)}."


def left(found: Found) -> str:
    """What was left out of the comparison."""
    cascades = any(name.startswith("cascade@") for name in found.table)
    if "re-embed" in found.table:
        return ""
    return f" Re-embedding {'was' if cascades else 'and cascades were'} not measured: no full --pool."


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def title(found: Found, strategy: str) -> str:
    """The strategy as the first words of a sentence, and its metric."""
    words = {
        "stay": "Stay",
        "bridge": "Bridge: map new queries into the old space",
        "map": "Map the gallery into the new space",
        "dual": "Keep the index and ask it by both encoders (dual)",
        "dual-tuned": "Keep the index and ask it by both encoders, by a vector trained on labels (dual-tuned)",
        "dual-concat": "Ask old and mapped vectors together by both encoders (dual-concat)",
        "expanded": "Expanded form",
        "re-embed": "Re-embed everything",
        "cascade": f"Cascade: recall {strategy[8:]} rows by {found.base}, re-embed those, rank by the new model",
        "backfill": f"Re-embed {strategy[9:]} % of the gallery in the best order",
    }
    return f"{words.get(strategy) or words[family(strategy)]}: {found.metric} {found.value(strategy):.3f}"
