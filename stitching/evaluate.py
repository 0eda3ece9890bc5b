"""Evaluating a map where it will serve: new queries on the whole mapped gallery, beside doing nothing and doing all."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..aligners.alignment import Alignment
from ..aligners.errors import UsageError
from ..aligners.measures.bootstrap import Bootstrap
from ..aligners.measures.retrieval import METRICS, Relevant, overlap, rank_metrics, search
from ..aligners.recognise import require_side, require_space
from ..aligners.survey import Survey
from .apply import BLOCK, serving_map
from .dumps import Dump
from .rows import Reader, all_rows, answer_lists, in_order_of, reader, rows_of, screened

__all__ = ["evaluate"]

T = TypeVar("T")
COMPARED = 5000  # gallery rows that cosine and r2 are of; more would cost a pass each, and tell no more
Track = Callable[[Sequence[T], str], Iterable[T]]

MEANING = {
    "map": "target-space queries on the mapped source gallery",
    "stay": "source-space queries on the source gallery: doing nothing",
    "re-embed": "target-space queries on the target gallery: what the map stands in for",
    "identity": "target-space queries on the source gallery as it is",
    "mean": "target-space queries on a gallery that holds the target's mean everywhere",
    "shuffled": "target-space queries on the mapped gallery with its rows handed round",
}
DEFINITIONS = {
    "recall@k": "share of a query's relevant rows among the first k, averaged over queries",
    "mrr": "1 / rank of the first relevant row",
    "ndcg@10": "binary gains, discount 1/log2(1+rank), over the best possible",
    "overlap@10": "share of the ten rows that the target's own queries find in the target's own gallery",
    "cosine": "mean cosine of a gallery's rows with the target's own rows of the same items, 5000 of them at most",
    "r2": "1 - squared errors of these rows, as they are served, over the squares about the target's mean at fit time",
    "interval": "95 % percentile bootstrap over queries, 2000 draws, paired between strategies",
}


@dataclass(frozen=True)
class Gallery(Reader):
    """One gallery to search, and the queries that search it."""

    queries: Tensor


def untracked(items: Sequence[T], what: str) -> Iterable[T]:
    """The items, with nobody watching."""
    return items


def evaluate(
    alignment: Alignment,
    queries: Dump,
    gallery: Dump,
    *,
    source_queries: Dump | None = None,
    target_gallery: Dump | None = None,
    relevant: Sequence[Any] | None = None,
    by_row: bool = False,
    familiar: bool = True,
    seed: int = 0,
    track: Track[Any] = untracked,
) -> dict[str, Any]:
    """Every strategy that the inputs allow, as plain JSON values.

    ``queries`` and ``target_gallery`` are target-space dumps, ``gallery`` and ``source_queries`` source-space ones;
    ``relevant`` holds, for each query, an array of the gallery rows that are right. Queries, and galleries, that have
    ids are matched by them unless ``by_row``. Ranking is exact, by cosine, over the whole gallery, which is read block
    by block. Raises `RefusedError` on rows of the wrong side, and `UsageError` where there is nothing to judge by.
    """
    if relevant is None and target_gallery is None:
        raise UsageError(
            "nothing to judge by: give the right answers (--relevant), or the target's own vectors of the gallery "
            "(--target-gallery), or both."
        )
    q = all_rows(queries)
    require_side(alignment, "target", q, queries.name, behaviour=familiar)
    require_first(alignment, "source", gallery, familiar=familiar)
    mapping, _ = serving_map(alignment)
    own = reader(gallery)
    galleries: dict[str, Gallery | str] = {
        "map": Gallery(lambda: map(mapping, own.blocks()), lambda r: mapping(own.rows(r)), q),
        "stay": "needs the source-space queries (--source-queries)",
        "re-embed": "needs the target's own vectors of the gallery (--target-gallery)",
        "identity": f"the spaces have {gallery.dim} and {queries.dim} dims",
        "mean": mean_gallery(alignment, q, gallery),
    }
    native: Reader | None = None
    if source_queries is not None:
        require_first(alignment, "source", source_queries, familiar=familiar)
        old = in_order_of(queries, source_queries, by_row=by_row).all()
        galleries["stay"] = Gallery(own.blocks, own.rows, old)
    if gallery.dim == queries.dim:
        galleries["identity"] = Gallery(own.blocks, own.rows, q)
    if target_gallery is not None:
        require_first(alignment, "target", target_gallery, familiar=familiar)
        native = in_order_of(gallery, target_gallery, by_row=by_row)
        galleries["re-embed"] = Gallery(native.blocks, native.rows, q)
    answers = None if relevant is None else answer_lists(relevant, len(q), gallery.rows)
    found: dict[str, dict[str, Tensor]] = {}
    truth: Tensor | None = None
    for name in track(("re-embed", "map", "stay", "identity", "mean", "shuffled"), "searching"):
        where = galleries["map" if name == "shuffled" else name]
        if isinstance(where, str):
            continue
        order = permutation(gallery.rows, seed) if name == "shuffled" else None
        top, found[name] = searched(where, answers, order)
        truth = top if name == "re-embed" else truth
        if truth is not None:
            found[name]["overlap@10"] = overlap(top, truth)
    strategies = summary(found, galleries, len(q), seed)
    compared = {} if native is None else nearness(galleries, native, alignment, gallery.rows, seed)
    unknown = dict.fromkeys(("cosine", "r2"), absent("needs --target-gallery"))
    for each in strategies:
        if each["metrics"] is not None:
            each["metrics"] |= compared.get(each["name"], unknown)
    return {
        "queries": len(q),
        "gallery_rows": gallery.rows,
        "queries_with_answers": None if answers is None else len(torch.unique(answers[0])),
        "strategies": strategies,
        "conclusion": conclusion(strategies),
        "definitions": DEFINITIONS,
        "seed": seed,
    }


def searched(
    where: Gallery, answers: tuple[Tensor, Tensor] | None, order: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The rows found ``(m, 10)`` and the metrics per query; ``order`` hands the gallery's rows round."""
    relevant = None
    if answers is not None:
        query, row = answers
        moved = row if order is None else order[row]
        relevant = Relevant(query, moved, where.rows(moved))
    hits = search(where.queries, where.blocks(), relevant=relevant)
    top = hits.top if order is None else order.argsort()[hits.top]
    if relevant is None or hits.rank is None:
        return top, {}
    return top, rank_metrics(hits.rank, relevant.query, len(where.queries))


def summary(
    found: dict[str, dict[str, Tensor]], galleries: dict[str, Gallery | str], queries: int, seed: int
) -> list[dict[str, Any]]:
    """One entry a strategy: each metric with its interval, and its paired difference to ``stay``."""
    columns = {f"{name} {metric}": v for name, metrics in found.items() for metric, v in metrics.items()}
    boot = Bootstrap(columns, seed=seed)
    entries: list[dict[str, Any]] = []
    for name, what in MEANING.items():
        if name not in found:
            entries.append({"name": name, "what": what, "metrics": None, "difference": None, "reason": galleries[name]})
            continue
        metrics: dict[str, Any] = {}
        difference: dict[str, Any] = {}
        for metric in METRICS:
            key, base = f"{name} {metric}", f"stay {metric}"
            if key not in columns:
                needs = "--target-gallery" if metric == "overlap@10" else "--relevant"
                metrics[metric] = absent(f"needs {needs}")
                continue
            metrics[metric] = boot.mean(key).as_json()
            if base in columns and name != "stay":
                difference[metric] = boot.difference(key, base).as_json()
        entries.append(
            {"name": name, "what": what, "metrics": metrics, "difference": difference or None, "reason": None}
        )
    return entries


def absent(reason: str) -> dict[str, Any]:
    """What stands for a metric that could not be measured."""
    return {"estimate": None, "low": None, "high": None, "reason": reason}


def nearness(
    galleries: Mapping[str, Gallery | str], native: Reader, alignment: Alignment, rows: int, seed: int
) -> dict[str, dict[str, Any]]:
    """``cosine`` and ``r2`` of each gallery's rows beside the ``native`` ones of the same items, on a sample."""
    order = permutation(rows, seed)
    some = order[:COMPARED].sort().values
    y = native.rows(some).double()
    space = alignment.spaces.get("target")
    mean = None if space is None or space.mean is None else space.mean.double()
    spread = torch.zeros(len(y)) if mean is None else (y - mean).square().sum(1)
    columns = {"spread": spread}
    flat = absent("this map keeps no mean of its target space" if mean is None else "the target's rows are all alike")
    found: dict[str, dict[str, Any]] = {"stay": dict.fromkeys(("cosine", "r2"), absent("searches the source's space"))}
    names = [n for n in MEANING if n != "stay" and not isinstance(galleries["map" if n == "shuffled" else n], str)]
    for name in names:
        where = galleries["map" if name == "shuffled" else name]
        assert not isinstance(where, str)  # left out above
        x = where.rows(order[some] if name == "shuffled" else some).double()
        columns |= {f"{name} cosine": torch.cosine_similarity(x, y), f"{name} error": (x - y).square().sum(1)}
    boot = Bootstrap(columns, seed=seed)
    for name in names:
        found[name] = {"cosine": boot.mean(f"{name} cosine").as_json(), "r2": flat}
        if float(spread.sum()) > 0:
            error = boot.ratio(f"{name} error", "spread")
            found[name]["r2"] = {"estimate": 1 - error.estimate, "low": 1 - error.high, "high": 1 - error.low}
    return found


def conclusion(strategies: Sequence[dict[str, Any]]) -> str:
    """What the table says about the map, in one sentence."""
    by_name = {s["name"]: s for s in strategies}
    mapped, stay = by_name["map"], by_name["stay"]
    metric = "ndcg@10" if mapped["metrics"]["ndcg@10"]["estimate"] is not None else "overlap@10"
    score = mapped["metrics"][metric]["estimate"]
    if stay["metrics"] is None:
        return (
            f"The mapped gallery scores {metric} {score:.3f}; whether that beats staying on the source encoder cannot "
            f"be told: staying {stay['reason']}."
        )
    d = mapped["difference"][metric]
    old = stay["metrics"][metric]["estimate"]
    interval = f"difference {d['estimate']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"
    if d["low"] == d["high"] == 0:
        return f"Mapping and staying on the source encoder find the same: {metric} {score:.3f} either way."
    if d["low"] > 0:
        return (
            f"The mapped gallery beats staying on the source encoder: {metric} {score:.3f} against {old:.3f}, "
            f"{interval}."
        )
    if d["high"] < 0:
        return f"Stay: the mapped gallery loses to doing nothing, {metric} {score:.3f} against {old:.3f}, {interval}."
    return (
        f"Undecided between mapping and staying: {metric} {score:.3f} against {old:.3f}, {interval}; more queries "
        "would tell."
    )


def label_inputs(
    survey: Survey, queries: Dump, gallery: Dump, relevant: Sequence[Any], *, familiar: bool = True
) -> tuple[Tensor, Callable[[], Iterator[Tensor]], Relevant]:
    """Labelled queries as `LabelJudge` takes them: query rows, gallery blocks, and the right answers.

    Raises `RefusedError` on rows that cannot be of the spaces that were surveyed.
    """
    spaces = {"source": survey.source, "target": survey.target}
    for side, dump in (("target", queries), ("source", gallery)):
        require_space(spaces, side, next(screened(dump)), dump.name, behaviour=familiar)
    query, row = answer_lists(relevant, queries.rows, gallery.rows)
    return all_rows(queries), lambda: screened(gallery), Relevant(query, row, rows_of(gallery, row))


def permutation(n: int, seed: int) -> Tensor:
    """A fixed random order of ``n`` rows."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def require_first(alignment: Alignment, side: str, dump: Dump, *, familiar: bool) -> None:
    """Refuse a dump whose first rows cannot be of that side."""
    require_side(alignment, side, next(screened(dump)), dump.name, behaviour=familiar)


def mean_gallery(alignment: Alignment, queries: Tensor, gallery: Dump) -> Gallery | str:
    """A gallery that predicts the target's mean for every row."""
    space = alignment.spaces.get("target")
    if space is None or space.mean is None:
        return "this map keeps no mean of its target space"
    mean = space.mean

    def blocks() -> Iterator[Tensor]:
        for start in range(0, gallery.rows, BLOCK):
            yield mean.expand(min(BLOCK, gallery.rows - start), -1)

    return Gallery(blocks, lambda rows: mean.expand(len(rows), -1), queries)
