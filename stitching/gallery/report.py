"""An estimate as one page that needs no network: the verdict in words, then the numbers, then how they were made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ... import __version__
from .costs import in_words, served
from .figures import figures
from .verdict import presumes_the_move

__all__ = ["report"]

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff; margin: 0 auto; max-width: 80rem;
  padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid #d5dbe3; padding-bottom: .25rem; }
p, li { max-width: 48rem; }
.lead { font-size: 1.1rem; }
.small, small { color: #5a6675; font-size: .875rem; }
.note { border-left: 4px solid #c77700; padding: .25rem 1rem; background: #fff7e8; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .4rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e8ecf1; }
th:first-child, td:first-child { text-align: left; }
.stacked small { display: block; } .stacked th { white-space: normal; vertical-align: bottom; }
.stacked td:last-child { white-space: normal; font-size: .85em; min-width: 7rem; line-height: 1.2; }
tr.chosen { background: #e9f3ec; font-weight: 600; }
tr.null { color: #8a94a1; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { font-weight: 600; } dd { margin: 0; }
.query { border: 1px solid #d5dbe3; border-radius: 6px; padding: .5rem 1rem; margin: 1rem 0; }
.query ol { margin: .25rem 0; } .right { background: #dff0e3; }
code { font-size: .85em; overflow-wrap: anywhere; }
"""


def report(result: Mapping[str, Any], command: str = "") -> str:
    """The page. ``result`` is what an estimate found; ``command`` made it. Needs plotly (extra ``report``)."""
    parts = (
        f"<h1>{escape(headline(result))}</h1>",
        f'<p class="lead">{escape(result["conclusion"])}</p>',
        *(f'<p class="note">{escape(note)}</p>' for note in result["notes"]),
        spent(result),
        gates(result["gates"]),
        "<h2>Every strategy</h2>",
        strategies(result),
        *sections(result),
        thresholds(result),
        queries(result),
        made(result, command),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(headline(result))}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def headline(result: Mapping[str, Any]) -> str:
    """The verdict in a few words."""
    words = {
        "stay": "Stay with the old model",
        "bridge": "Bridge: new queries, old gallery",
        "map": "Map the gallery",
        "dual": "Ask the old index by both models",
        "cascade": "Let old vectors recall and new ones rank",
        "expanded": "Expanded form",
        "backfill": "Re-embed a part",
        "re-embed": "Re-embed everything",
        "undecided": "Undecided",
    }
    name = result["verdict"]
    presumed = ", if you move" if presumes_the_move(name, result["metric"]) else ""
    return f"Gallery estimate: {words[name]}{presumed}"


def spent(result: Mapping[str, Any]) -> str:
    """What the verdict costs, in a sentence."""
    row = next((s for s in result["strategies"] if s["name"] == result["strategy"]), None)
    if row is None or row["cost"] is None:
        return ""
    cost = row["cost"]
    at_once, written = cost["gallery_embeddings"], cost["rows_written"]
    said = [f"{at_once:,} gallery rows to embed at once" if at_once else "nothing to embed at once"]
    if cost["embeddings_per_query"]:
        said.append(
            f"at most {cost['embeddings_per_query']} a query while the cache warms up, each row once "
            f"({cost['distinct_rows_recalled']:,} different rows for these {result['queries']:,} queries)"
        )
    size = cost["bytes_written"] / 1e6
    said.append(f"{written:,} rows ({size:,.1f} MB) to write" if written else "nothing to write to the index")
    said.append(f"queries go through the {' and the '.join(cost['query_encoders'])} encoder")
    if cost["price"] is not None:
        said.append(f"price {cost['price']:,.2f}")
    return f"<p>Cost of {escape(row['name'])}: {'; '.join(said)}.</p>"


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def interval(value: Mapping[str, Any] | None) -> str:
    """``.243 [.231, .255]``."""
    if value is None or value.get("estimate") is None:
        return "–"
    return f"{number(value['estimate'])} <small>[{number(value['low'])}, {number(value['high'])}]</small>"


def grid(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], kind: str = "") -> str:
    """A table; each row has a class, and cells that are HTML already. Intervals are under their number if "stacked"."""
    body = "".join(f'<tr class="{mark}">' + "".join(cells) + "</tr>" for mark, cells in rows)
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="wide"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def cells(*values: str) -> list[str]:
    """Plain cells."""
    return [f"<td>{value}</td>" for value in values]


def strategies(result: Mapping[str, Any]) -> str:
    """The table with intervals, nulls last, and what could not be measured."""
    metric = result["metric"]
    overlap = next((m for s in result["strategies"] for m in s["metrics"] or () if m.startswith("overlap@")), None)
    names = list(
        dict.fromkeys([metric, *(["recall@10"] if metric == "ndcg@10" else []), *([overlap] if overlap else [])])
    )
    ratios = ("retention", "update_gain", "negative_flips", "positive_flips")  # gain says what the difference says
    rows = []
    for s in told_apart(result):
        kind = "chosen" if s["name"] == result["strategy"] else s["kind"]
        values = [interval(s["metrics"].get(n)) for n in names]
        values += [interval((s["difference"] or {}).get(metric)), *(interval(s["quantities"].get(r)) for r in ratios)]
        values.append(escape(in_words(s["cost"])) if s["cost"] else "–")
        first = f'<td title="{escape(s["what"])}">{escape(s["name"])}</td>'
        rows.append((kind, [first, *cells(*values)]))
    head = ("strategy", *names, f"{metric} minus stay", *(r.replace("_", " ") for r in ratios), "cost")
    reasons = [f"<li>{escape(s['name'])}: {escape(s['reason'])}</li>" for s in result["strategies"] if s["reason"]]
    missing = f'<ul class="small">{"".join(reasons)}</ul>' if reasons else ""
    percent = f"{result['level']:.0%}"
    over = "queries" if result["groups"] is None else f"groups of queries ({result['groups']:,})"
    told = f'<p class="small">In brackets: {percent} intervals over {over}. Evidence: {escape(result["evidence"])}.</p>'
    told += "".join(f'<p class="small">{escape(line)}</p>' for line in served(result))
    meant = "".join(f"<dt>{escape(s['name'])}</dt><dd>{escape(s['what'])}</dd>" for s in told_apart(result))
    words = f"<details open><summary>What each strategy is</summary><dl class='small'>{meant}</dl></details>"
    beats = compatible(result["compatible"]) if result["scope"] == "gallery" else ""
    return grid(head, rows, "stacked") + told + words + beats + missing + smaller(result)


def told_apart(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of the table that were measured, without cut and quantised ones."""
    return [s for s in result["strategies"] if s["metrics"] is not None and s["kind"] != "variant"]


def compatible(found: Mapping[str, bool | None]) -> str:
    """Whether new queries alone beat staying."""
    words = {True: "yes", False: "no", None: "open"}
    said = ", ".join(f"{escape(name)} {words[value]}" for name, value in found.items())
    return f'<p class="small">Compatible (new queries alone beat staying): {said}.</p>'


def smaller(result: Mapping[str, Any]) -> str:
    """Cut and quantised rows."""
    metric = result["metric"]
    found = [s for s in result["strategies"] if s["kind"] == "variant" and s["metrics"]]
    if not found:
        return ""
    rows = [
        ("", [f'<td title="{escape(s["what"])}">{escape(s["name"])}</td>', *cells(interval(s["metrics"][metric]))])
        for s in found
    ]
    return f"<details><summary>Cut and quantised rows</summary>{grid(('rows', metric), rows)}</details>"


def sections(result: Mapping[str, Any]) -> list[str]:
    """The figures, each under its heading; plotly's code comes with the first."""
    from plotly.io import to_html

    out = []
    for i, (title, told, figure) in enumerate(figures(result)):
        drawn = to_html(
            figure,
            full_html=False,
            include_plotlyjs="inline" if i == 0 else False,
            config={"displayModeBar": False, "responsive": True},
            div_id=f"figure-{i}",
        )
        out.append(f"<h2>{escape(title)}</h2><p class='small'>{escape(told)}</p>{drawn}")
    return out


def gates(judged: Sequence[Mapping[str, Any]]) -> str:
    """Gates and how they came out."""
    if not judged:
        return ""
    rows = []
    for g in judged:
        first = escape(g["gate"]), escape(g["strategy"] or "–")
        rows.append(("", cells(*first, interval(g["value"]), escape(g["result"]), escape(g["reason"] or ""))))
    return "<h2>Gates</h2>" + grid(("gate", "strategy", "value", "result", "reason"), rows)


def thresholds(result: Mapping[str, Any]) -> str:
    """Where score thresholds go."""
    found = result["thresholds"]
    if not found:
        return ""
    names = list(found[0]["new"])
    rows = [
        ("", cells(number(t["old"], 1), f"{t['passes']:.0%}", *(interval(t["new"][n]) for n in names))) for t in found
    ]
    return (
        "<h2>Score thresholds</h2><p class='small'>A filter at this old score passes this share of the first ten "
        "results; the same share passes at these scores of each strategy.</p>"
        + grid(("old score", "passes", *names), rows)
    )


def queries(result: Mapping[str, Any]) -> str:
    """Three queries, before and after."""
    if not result["examples"]:
        return ""
    out = ["<h2>Three queries</h2>"]
    for e in result["examples"]:
        lists = []
        sides = (("stay", e["stay"]), (str(result["examples_of"]), e["found"]))
        for (name, found), rank in zip(sides, e["ranks"], strict=True):
            place = f"right answer at place {rank}" if rank else "right answer not among the first ten"
            title = f"{name}: {place}" if e["right"] else name
            items = "".join(f'<li class="{"right" if t in e["right"] else ""}">{escape(t)}</li>' for t in found)
            lists.append(f"<div class='small'>{escape(title)}</div><ol>{items}</ol>")
        answer = f"<div class='small'>right: {escape('; '.join(e['right']))}</div>" if e["right"] else ""
        asked = f"<b>{escape(e['query'])}</b> <small>({escape(e['kind'])})</small>"
        out.append(f'<div class="query">{asked}{answer}{"".join(lists)}</div>')
    return "".join(out)


def made(result: Mapping[str, Any], command: str) -> str:
    """How it was made, so that it can be made again."""
    audit = result["map"]["audit"]
    known = result["queries_with_answers"]
    answers = "without" if known is None else f"{known:,} of them with"
    facts = {
        "command": command or "from Python",
        "suture": __version__,
        "gallery": f"{result['gallery']}, {result['gallery_rows']:,} rows",
        "new vectors known of": f"{result['pool_rows'] or 0:,} gallery rows",
        "queries": f"{result['queries']:,}, {answers} right answers",
        "map": f"{result['map']['method']} {result['map']['params']}",
        "pairs": f"{result['pairs']:,}, audit: {audit['verdict']}",
        "mixing weights": ", ".join(f"{n}: a = {m['a']} ({m['how']})" for n, m in result["mixing"].items()) or "none",
        "query hash": result["query_hash"],
        "seed": result["seed"],
    }
    rows = "".join(f"<dt>{escape(k)}</dt><dd><code>{escape(str(v))}</code></dd>" for k, v in facts.items())
    words = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in result["definitions"].items())
    hold = (
        "The numbers hold for queries like these on this gallery; more rows make each lower, see the curve."
        if result["scope"] == "gallery"
        else "The numbers are those of the held-out pairs alone; they do not hold for your gallery."
    )
    return (
        "<h2>How this was made</h2><p>Nulls (shuffled pairs, a random rotation) are in the table and must be at "
        f"chance. {hold}</p>"
        f"<dl class='small'>{rows}</dl>"
        f"<details><summary>Definitions</summary><dl class='small'>{words}</dl></details>"
    )
