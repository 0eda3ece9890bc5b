"""Judging a stitched head where it will serve: accuracy and macro-F1 on labelled rows, beside what it replaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from ...aligners.alignment import Alignment
from ...aligners.audit import ENOUGH as MANY
from ...aligners.audit import Likeness
from ...aligners.errors import RefusedError
from ...aligners.maps import Affine, Map
from ...aligners.recognise import require_side
from ..dumps import Dump
from ..rows import in_order_of, rows_of, screened
from .labels import class_numbers
from .onnxhead import Chooser
from .stitch import Unit, model_map

__all__ = ["evaluate_head"]

Numbers = NDArray[np.float64]
DRAWS = 2000
SAMPLE = 2000
ENOUGH = 50  # below this many rows the check of native rows would refuse right ones
MEANING = {
    "native": "the target's own rows in the head: what it was made for",
    "stitched": "source rows through the map, scaled as the target's rows were, in the head",
    "folded": "source rows in the head with the map folded into it: nothing is scaled in between",
    "relative": "source rows as similarities to the anchors, in a head that was trained on such",
    "absolute": "source rows in the head as they are",
    "majority": "the most frequent label, always",
}
DEFINITIONS = {
    "accuracy": "share of rows whose class with the highest score is their label",
    "macro_f1": "2 tp / (labelled + chosen) of each class that occurs among the labels, averaged",
    "share_of_native": "accuracy divided by native accuracy, on the same rows; null where that is 0",
    "interval": "95 % percentile bootstrap over rows, 2000 draws, paired between strategies",
}


def evaluate_head(
    alignment: Alignment,
    head: Chooser,
    source: Dump,
    labels: Sequence[Any],
    *,
    labels_name: str = "labels",
    native: Dump | None = None,
    relative_head: Chooser | None = None,
    relative: Alignment | None = None,
    normalize: Unit = "auto",
    by_row: bool = False,
    familiar: bool = True,
    seed: int = 0,
    advance: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Every strategy that the inputs allow, as plain JSON values.

    ``head`` knows the target's space, ``source`` is a dump of the source's (the new encoder), ``labels`` one a row;
    from ``labels_name``; ``native`` the same items by the target's encoder, matched by id where both have ids, unless
    ``by_row``; rows matched by position are compared with mapped ones (`require_same_items`).
    ``relative_head`` knows the shared space of ``relative``, an alignment by the method "relative" (by default
    ``alignment`` itself). Raises `RefusedError` on rows of the wrong side, unknown labels, heads of another width.
    """
    mapping = model_map(alignment, normalize=normalize)
    plain = alignment.translate("source", "target")
    require_takes(head, mapping.target_dim, "head", "the map gives")
    own = alignment if relative is None else relative
    truth = class_numbers(labels, head, labels_name)
    strategies: dict[str, Callable[[Tensor], Tensor] | str] = {
        "stitched": lambda x: head.choices(mapping(x)),
        "folded": lambda x: head.choices(plain(x)),
        "absolute": head.choices if source.dim == head.dim else f"the spaces have {source.dim} and {head.dim} dims",
        "relative": "needs a head that was trained on relative rows (--relative-head)",
        "native": "needs the same rows by the target's encoder (--native)",
    }
    if not isinstance(plain, Affine):
        strategies["folded"] = f"a map of kind {plain.kind} cannot be folded"
    elif normalize == "none" or (normalize == "auto" and not unit_rows(alignment, "target")):
        strategies["folded"] = "is the same as stitched: nothing is scaled between map and head"
    if relative_head is not None:
        into = model_map(own, into="shared", normalize=normalize)
        if own.map_of("target").kind not in ("relative", "product"):
            raise RefusedError(
                "--relative-head needs a map by the method relative, whose shared space it knows; name that map with "
                "--relative-map."
            )
        require_takes(relative_head, into.target_dim, "relative head", "the shared space has")
        if relative_head.labels != head.labels:
            raise RefusedError("the relative head knows other classes than the head; give heads of the same task.")
        known = relative_head
        strategies["relative"] = lambda x: known.choices(into(x))
    choices = chosen(alignment, own, source, strategies, familiar=familiar, advance=advance)
    if native is not None:
        rows = in_order_of(source, native, by_row=by_row)
        first = True
        parts = []
        for block in rows.blocks():
            if first:
                require_side(alignment, "target", block, native.name, behaviour=familiar)
                first = False
            parts.append(head.choices(block))
        choices["native"] = torch.cat(parts).numpy()
        if by_row or source.ids is None or native.ids is None:
            require_same_items(mapping, source, native, seed)
    choices["majority"] = np.full_like(truth, np.bincount(truth).argmax())
    found = summary(truth, choices, seed)
    table = [
        {"name": name, "what": what, **(found.get(name) or {"metrics": None, "difference": None})}
        | {"reason": None if name in found else strategies[name]}
        for name, what in MEANING.items()
    ]
    return {
        "rows": len(truth),
        "classes": len(head.labels),
        "labelled_classes": len(np.unique(truth)),
        "strategies": table,
        "conclusion": conclusion({each["name"]: each for each in table}),
        "definitions": DEFINITIONS,
        "seed": seed,
    }


def require_same_items(mapping: Map, source: Dump, native: Dump, seed: int) -> None:
    """Raises `RefusedError` where mapped rows are no closer to native rows of the same position than to others.

    The cosine of up to 2,000 sampled pairs, each side about its own mean, beside that of the same rows shuffled
    (`suture.aligners.audit.Likeness`): refused are unrelated rows and, from 200 on, mispaired ones. Fewer than 50 rows
    are not compared.
    """
    if source.rows < ENOUGH:
        return
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(source.rows, generator=generator)[:SAMPLE].sort().values
    mate = torch.randperm(len(rows), generator=generator)
    mapped, own = mapping(rows_of(source, rows)).double(), rows_of(native, rows).double()
    mapped, own = mapped - mapped.mean(0), own - own.mean(0)
    true = torch.cosine_similarity(mapped, own)
    null = torch.cosine_similarity(mapped[mate], own[mate.roll(1)])  # nobody meets his own
    found = Likeness.of(true, null)
    if found.verdict == "unrelated":
        raise RefusedError(
            f"expected {native.name} to hold the items of {source.name} in the same order, but mapped rows are no "
            f"closer to native rows of the same position than to others ({found.auc:.2f} of pairs ahead, chance is "
            ".50). Give ids for both (--ids FILE or --id-column NAME); if the order is right, this map carries nothing "
            "over."
        )
    if found.verdict == "mispaired" and len(rows) >= MANY:
        raise RefusedError(
            f"expected {native.name} to hold the items of {source.name} in the same order, but about "
            f"{found.wrong:.0%} of its rows look like those of other items: is a row missing, or one too many, on the "
            "way? Give ids for both (--ids FILE or --id-column NAME)."
        )


def unit_rows(alignment: Alignment, side: str) -> bool:
    """Whether the rows of that side had unit length when the map was fitted."""
    space = alignment.spaces.get(side)
    return space is not None and space.unit


def require_takes(head: Chooser, dim: int, what: str, gives: str) -> None:
    """Raises `RefusedError` for a head of another width."""
    if head.dim != dim:
        raise RefusedError(
            f"the {what} takes {head.dim} dims, {gives} {dim}. Is this the head of the target's space, and the map the "
            "right way round (new encoder -> the space that the head knows)?"
        )


def chosen(
    alignment: Alignment,
    relative: Alignment,
    source: Dump,
    strategies: Mapping[str, Callable[[Tensor], Tensor] | str],
    *,
    familiar: bool,
    advance: Callable[[int], None],
) -> dict[str, NDArray[np.int64]]:
    """What each strategy that needs only source rows chooses, in one pass."""
    running = {name: f for name, f in strategies.items() if not isinstance(f, str)}
    found: dict[str, list[Tensor]] = {name: [] for name in running}
    first = True
    for block in screened(source):
        if first:
            for each in (alignment, relative):
                require_side(each, "source", block, source.name, behaviour=familiar)
            first = False
        for name, choose in running.items():
            found[name].append(choose(block))
        advance(len(block))
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def summary(truth: NDArray[np.int64], choices: Mapping[str, NDArray[np.int64]], seed: int) -> dict[str, Any]:
    """Metrics with intervals, and paired differences to native where there is one.

    Rows that agree in label and all choices are interchangeable: a draw of rows with replacement is a multinomial draw
    of such kinds of rows, which costs the same whatever the number of rows.
    """
    names = list(choices)
    kinds, counts = np.unique(np.stack([truth, *(choices[n] for n in names)], axis=1), axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    n, step = len(truth), max(1, 8_000_000 // len(kinds))
    drawn = [
        scores(rng.multinomial(n, counts / n, size=min(step, DRAWS - start)).astype(np.float64), kinds)
        for start in range(0, DRAWS, step)
    ]
    whole = scores(counts[None].astype(np.float64), kinds)[:, :, 0]
    draws = np.concatenate(drawn, axis=2)  # metric, strategy, draw
    found: dict[str, Any] = {}
    difference: dict[str, Any] | None
    for i, name in enumerate(names):
        metrics = {m: interval(whole[j, i], draws[j, i]) for j, m in enumerate(("accuracy", "macro_f1"))}
        difference = None
        if "native" in names and name != "native":
            base = names.index("native")
            difference = {
                m: interval(whole[j, i] - whole[j, base], draws[j, i] - draws[j, base])
                for j, m in enumerate(("accuracy", "macro_f1"))
            }
            shares = draws[0, i] / np.maximum(draws[0, base], 1 / n)
            nothing = whole[0, base] == 0
            difference["share_of_native"] = None if nothing else interval(whole[0, i] / whole[0, base], shares)
        found[name] = {"metrics": metrics, "difference": difference}
    return found


def scores(weights: Numbers, kinds: NDArray[np.int64]) -> Numbers:
    """Accuracy and macro-F1 ``(2, strategies, draws)`` of ``kinds`` ``(k, 1 + strategies)`` of rows, each its label and
    what was chosen, that occur ``weights`` ``(draws, k)`` times."""
    classes = int(kinds.max()) + 1
    truth, rows = kinds[:, 0], np.arange(len(kinds))

    def per_class(of: NDArray[np.int64], which: NDArray[np.bool_]) -> Numbers:
        ones = csr_matrix((which.astype(np.float64), (rows, of)), shape=(len(kinds), classes))
        return np.asarray((ones.T @ weights.T).T)

    every = np.ones(len(kinds), bool)
    labelled = per_class(truth, every)
    present = labelled > 0
    out = np.empty((2, kinds.shape[1] - 1, len(weights)))
    for i in range(kinds.shape[1] - 1):
        right = kinds[:, i + 1] == truth
        out[0, i] = weights @ right / weights.sum(1)
        hits, taken = per_class(truth, right), per_class(kinds[:, i + 1], every)
        f1 = 2 * hits / np.maximum(labelled + taken, 1)
        out[1, i] = (f1 * present).sum(1) / present.sum(1)
    return out


def interval(estimate: float, draws: Numbers) -> dict[str, float]:
    """An estimate with its percentile interval."""
    low, high = np.quantile(draws, (0.025, 0.975))
    return {"estimate": float(estimate), "low": float(low), "high": float(high)}


def conclusion(by_name: Mapping[str, Any]) -> str:
    """What the table says, in one sentence, and what should give pause, in more."""
    accuracy = {name: each["metrics"]["accuracy"] for name, each in by_name.items() if each["metrics"] is not None}
    said, floor = [verdict(by_name)], accuracy["majority"]["estimate"]
    if "native" in accuracy and accuracy["native"]["estimate"] < floor:
        said.append(
            f"Native itself ({accuracy['native']['estimate']:.3f}) is below the most frequent label ({floor:.3f}): "
            "are these the labels of that head's task, and the native rows those of its encoder?"
        )
    if "absolute" in accuracy and accuracy["absolute"]["low"] > accuracy["stitched"]["high"]:
        said.append(
            f"Without the map the rows do better (absolute {accuracy['absolute']['estimate']:.3f}): the map hurts, or "
            "these rows are by the encoder that the head knows."
        )
    return " ".join(said)


def verdict(by_name: Mapping[str, Any]) -> str:
    """The stitched head beside native, or beside the most frequent label."""
    stitched, difference = by_name["stitched"]["metrics"]["accuracy"], by_name["stitched"]["difference"]
    said = f"accuracy {stitched['estimate']:.3f}"
    floor = by_name["majority"]["metrics"]["accuracy"]["estimate"]
    if stitched["high"] <= floor:
        return f"The stitched head is no better than always saying the most frequent label: {said} against {floor:.3f}."
    if difference is None:
        return f"The stitched head has {said}; what it loses cannot be told: native {by_name['native']['reason']}."
    base, gap = by_name["native"]["metrics"]["accuracy"]["estimate"], difference["accuracy"]
    told = f"{said} against {base:.3f}, difference {gap['estimate']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"
    if gap["high"] < 0:
        kept = f" ({difference['share_of_native']['estimate']:.1%} of it)" if difference["share_of_native"] else ""
        return f"The stitched head loses to the encoder it was trained on: {told}{kept}."
    if gap["low"] > 0:
        return f"The stitched head beats the encoder it was trained on: {told}."
    return f"The stitched head and the encoder it was trained on cannot be told apart: {told}."
