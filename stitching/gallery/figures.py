"""The figures of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..dumps.extras import need

__all__ = ["figures"]

COLOURS = ("#3b5b92", "#c2553a", "#3d8b5f", "#8a5aa8", "#b08a1e", "#4f98a8", "#7a7f87", "#1c2430")
MOST_SLICES = 15


def figures(result: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Title, a sentence, and the plotly figure."""
    go = need("plotly.graph_objects", "report")
    yield "Beside staying", *overview(go, result)
    if len(result["size_curve"]) > 1:
        yield "With more rows", *sizes(go, result)
    if result["backfill_curves"]:
        yield "Re-embedding a part", *backfill(go, result)
    if result["slices"]:
        yield "Worst slices", *worst(go, result)


def layout(go: Any, height: int, x: str, y: str, **more: Any) -> Any:
    """An empty figure in the style of the page."""
    figure = go.Figure()
    figure.update_layout(
        template="simple_white",
        height=height,
        margin={"l": 110, "r": 20, "t": 10, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#1c2430"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis_title=x,
        yaxis_title=y,
        **more,
    )
    return figure


def bars(values: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Intervals as error bars."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [v["high"] - v["estimate"] for v in values],
        "arrayminus": [v["estimate"] - v["low"] for v in values],
        "thickness": 1.5,
        "width": 4,
    }


def overview(go: Any, result: Mapping[str, Any]) -> tuple[str, Any]:
    """The metric of every strategy with its interval."""
    metric = result["metric"]
    found = [s for s in result["strategies"] if s["metrics"] and s["kind"] == "strategy" and s["metrics"].get(metric)]
    values = [s["metrics"][metric] for s in found]
    figure = layout(go, 60 + 30 * len(found), metric, "", yaxis={"autorange": "reversed"}, showlegend=False)
    chosen = [COLOURS[2] if s["name"] == result["strategy"] else COLOURS[0] for s in found]
    figure.add_trace(
        go.Scatter(
            x=[v["estimate"] for v in values],
            y=[s["name"] for s in found],
            mode="markers",
            marker={"size": 9, "color": chosen},
            error_x={**bars(values), "color": "#7a7f87"},
        )
    )
    stay = next((v["estimate"] for s, v in zip(found, values, strict=True) if s["name"] == "stay"), None)
    if stay is not None:
        figure.add_vline(x=stay, line={"color": COLOURS[1], "dash": "dot", "width": 1.5})
    told = f"{metric} with its interval; the dotted line is staying, the verdict is green."
    return told, figure


def sizes(go: Any, result: Mapping[str, Any]) -> tuple[str, Any]:
    """The metric over nested samples of the gallery."""
    curve = result["size_curve"]
    sizes = [c["rows"] for c in curve]
    axis = {"type": "log", "tickvals": sizes, "ticktext": [f"{rows:,}" for rows in sizes]}
    figure = layout(go, 380, "gallery rows", curve[-1]["metric"], xaxis=axis)
    for i, name in enumerate(curve[-1]["strategies"]):
        points = [(c["rows"], c["strategies"][name]) for c in curve if name in c["strategies"]]
        line(go, figure, [p[0] for p in points], [p[1] for p in points], name, i)
    told = (
        f"Nested random samples of the gallery; {curve[-1]['rows']:,} rows are the most that were tested, and beyond "
        "them every line is extrapolated."
    )
    return told, figure


def backfill(go: Any, result: Mapping[str, Any]) -> tuple[str, Any]:
    """The metric by the share that is re-embedded."""
    curves = result["backfill_curves"]
    figure = layout(go, 380, "share re-embedded", curves[0]["metric"], xaxis={"tickformat": ".0%"})
    for i, curve in enumerate(curves):
        name = f"{curve['order']}, rest by {curve['base']} (area {curve['area']:.3f})"
        line(go, figure, [p["share"] for p in curve["points"]], curve["points"], name, i)
    steps = curves[0]["violations"]
    told = (
        "In which order rows are re-embedded, and how the rest is served; the largest area first. residual: where maps "
        "err most on the nearest pairs; norm: rows that come out short of a map. Measured, not interpolated, at the "
        f"dots. Steps down in the best: {steps}."
    )
    return told, figure


def line(go: Any, figure: Any, x: Sequence[float], values: Sequence[Mapping[str, float]], name: str, i: int) -> None:
    """One line with intervals."""
    colour = COLOURS[i % len(COLOURS)]
    figure.add_trace(
        go.Scatter(
            x=list(x),
            y=[v["estimate"] for v in values],
            error_y={**bars(values), "color": colour},
            mode="lines+markers",
            name=name,
            line={"color": colour, "dash": "solid" if i < len(COLOURS) else "dot"},
        )
    )


def worst(go: Any, result: Mapping[str, Any]) -> tuple[str, Any]:
    """The slices where the strategy gains least."""
    shown = result["slices"][:MOST_SLICES]
    names = [f"{s['column']}: {s['slice']} (n = {s['queries']})" for s in shown]
    figure = layout(go, 80 + 30 * len(shown), "gain over staying", "", yaxis={"autorange": "reversed"})
    figure.update_layout(margin={"l": 220})
    values = [s["difference"] for s in shown]
    raw = go.Scatter(
        x=[v["estimate"] for v in values],
        y=names,
        mode="markers",
        name="as measured",
        marker={"size": 8, "color": COLOURS[0]},
        error_x={**bars(values), "color": "#7a7f87"},
    )
    shrunken = go.Scatter(
        x=[s["shrunken"] for s in shown],
        y=names,
        mode="markers",
        name="shrunken to the mean",
        marker={"size": 9, "symbol": "diamond-open", "color": COLOURS[1]},
    )
    figure.add_traces([raw, shrunken])
    figure.add_vline(x=0, line={"color": "#7a7f87", "dash": "dot", "width": 1.5})
    told = f"{shown[0]['strategy']} minus stay by slices of at least 10 queries, worst first."
    return told, figure
