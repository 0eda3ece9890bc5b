"""All ordered pairs of encoders: the head of one on the vectors of the other, by every method."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import permutations, product
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from suture.aligners.measures.bootstrap import Bootstrap
from suture.stitching.models import Head

from .encoders import PRETRAINED, TRAINED_FOR_THE_TASK, Images
from .methods import FOR_THE_HEAD, RELATIVE, TRANSLATORS, accuracy, latentis, linear_head, relative_maps

Dumps = dict[str, tuple[Tensor, Tensor]]
FIRST_DRAW = 10  # the defaults of HeadDistill were set on draws 0 and 1 of three of these encoders
GROUPS = ("trained for the task", "with an autoencoder", "with a pretrained network", "two pretrained networks")
ROWS = (
    *("no-stitch", "absolute", "relative", "relative, centred"),
    *("linear", "l-ortho", "affine (ridge)", "ortho", "ours: auto", "ours: distilled", "ours: by the head"),
    "ours: distilled by the head",
    *("latentis linear", "latentis l-ortho", "latentis affine (SGD)", "latentis ortho"),
)
SWEPT = (
    *("relative", "relative, centred", "linear", "l-ortho", "affine (ridge)", "ortho"),
    *("ours: by the head", "latentis affine (SGD)"),
)


def group(a: str, b: str) -> str:
    """Which pairs are averaged together."""
    seen_elsewhere = len({a, b} & set(PRETRAINED))
    if seen_elsewhere:
        return GROUPS[1 + seen_elsewhere]
    return GROUPS[0] if {a, b} <= set(TRAINED_FOR_THE_TASK) else GROUPS[1]


def anchors_of(n: int, count: int, seed: int) -> Tensor:
    """Row numbers of anchor items, drawn from the training images."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:count]


def wanted(dumps: Dumps, seeds: int) -> list[tuple[str, str, int]]:
    """Ordered pairs and draws of anchors: all of encoders trained for the task, one draw of others.

    Of a pretrained network and another one, which are slow, three pairs both ways.
    """
    some = [set(pair) for pair in zip(PRETRAINED, ("cnn, seed 0", "resnet", "mlp"), strict=True)]
    out = []
    for a, b in permutations(dumps, 2):
        if group(a, b) != GROUPS[2] or {a, b} in some:
            out += [(a, b, FIRST_DRAW + i) for i in range(seeds if group(a, b) == GROUPS[0] else 1)]
    return out


def measure(dumps: Dumps, images: Images, seeds: int, kept: Path) -> dict[tuple[str, str], list[float]]:
    """Accuracies by method and group of pairs, anchors = dims of the wider encoder.

    Each pair is written to ``kept`` (JSON lines) when it is done: a run that was broken off goes on where it was.
    """
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    done = {(c["a"], c["b"], c["seed"]): c["scores"] for c in map(json.loads, lines)}
    heads = {name: linear_head(train, images.train_labels) for name, (train, _) in dumps.items()}
    native = {name: accuracy(heads[name], test, images.test_labels) for name, (_, test) in dumps.items()}
    print({name: round(value, 3) for name, value in native.items()}, file=sys.stderr, flush=True)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    started = perf_counter()
    for a, b, seed in wanted(dumps, seeds):
        if (a, b, seed) not in done:
            anchors = anchors_of(len(images.train), max(dumps[name][0].shape[1] for name in (a, b)), seed)
            done[a, b, seed] = cell(dumps, images, heads[b], a, b, anchors, ROWS) | {"no-stitch": native[b]}
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"a": a, "b": b, "seed": seed, "scores": done[a, b, seed]}) + "\n")
            print(f"{perf_counter() - started:.0f} s: {a} -> {b}", file=sys.stderr, flush=True)
        for name, value in done[a, b, seed].items():
            found[name, group(a, b)].append(value)
    return found


def cell(
    dumps: Dumps,
    images: Images,
    head: Head,
    a: str,
    b: str,
    anchors: Tensor,
    names: Sequence[str],
    own: dict[str, Head] | None = None,
) -> dict[str, float]:
    """Accuracies of the ``head`` of b on the vectors of a, by those of the methods ``names`` that can be had.

    ``own``: relative decoders of b with these anchors, by name, filled as they are trained.
    """
    (train_a, test_a), (train_b, _) = dumps[a], dumps[b]
    x, y = train_a[anchors], train_b[anchors]
    own, scores = {} if own is None else own, {}
    if "absolute" in names and train_a.shape[1] == train_b.shape[1]:
        scores["absolute"] = accuracy(head, test_a, images.test_labels)
    methods = TRANSLATORS | latentis() | {name: partial(fitted, head=head) for name, fitted in FOR_THE_HEAD.items()}
    for name in names:
        if name in methods:
            scores[name] = accuracy(head, methods[name](x, y)(test_a), images.test_labels)
        elif name in RELATIVE:
            into_a, into_b = relative_maps(x, y, centre=RELATIVE[name])
            if name not in own:
                own[name] = linear_head(into_b(train_b), images.train_labels)
            scores[name] = accuracy(own[name], into_a(test_a), images.test_labels)
    return scores


def paired(found: dict[tuple[str, str], list[float]], name: str, other: str, groups: tuple[str, ...]) -> str:
    """The mean difference over the pairs of these groups, with its 95 % interval."""
    columns = {n: torch.tensor([v for g in groups for v in found.get((n, g), [])]).double() for n in (name, other)}
    gap = Bootstrap(columns).difference(name, other)
    return f"{name} less {other}: {gap.estimate:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"


def rows_of(found: dict[tuple[str, str], list[float]]) -> list[list[str]]:
    """The table: mean and standard deviation over pairs and draws of anchors, and the share of no-stitch."""
    out = []
    groups = [g for g in GROUPS if ("no-stitch", g) in found]
    for name in ROWS:
        cells = [name]
        for which in groups:
            values, base = found.get((name, which)), found.get(("no-stitch", which))
            if not values or not base:
                cells += ["-", "-"]
                continue
            share = f"{np.mean(values) / np.mean(base):.1%}" if len(values) == len(base) else "-"
            cells += [f"{np.mean(values):.3f} ±{np.std(values):.3f}", share]
        out.append(cells)
    return out


def sweep(dumps: Dumps, images: Images, counts: tuple[int, ...], draws: int, kept: Path) -> dict[str, list[float]]:
    """Accuracy by number of anchors over all ordered pairs of encoders that were trained for the task.

    Each number of anchors of a pair is written to ``kept`` when it is done, as in `measure`.
    """
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    done = {(c["a"], c["b"], c["seed"], c["count"]): c["scores"] for c in map(json.loads, lines)}
    heads = {name: linear_head(dumps[name][0], images.train_labels) for name in TRAINED_FOR_THE_TASK}
    curves: dict[str, list[float]] = defaultdict(list)
    for count in counts:
        names = [name for name in SWEPT if name not in FOR_THE_HEAD or count >= 30]  # fewer leave nothing to hold out
        found: dict[str, list[float]] = defaultdict(list)
        for draw, b in product(range(FIRST_DRAW, FIRST_DRAW + draws), TRAINED_FOR_THE_TASK):
            anchors = anchors_of(len(images.train), count, draw)
            own: dict[str, Head] = {}
            for a in TRAINED_FOR_THE_TASK:
                if a == b:
                    continue
                if (a, b, draw, count) not in done:
                    scores = cell(dumps, images, heads[b], a, b, anchors, names, own)
                    done[a, b, draw, count] = scores
                    with kept.open("a", encoding="utf-8") as file:
                        line = {"a": a, "b": b, "seed": draw, "count": count, "scores": scores}
                        file.write(json.dumps(line) + "\n")
                for name, value in done[a, b, draw, count].items():
                    found[name].append(value)
                found["no-stitch"].append(accuracy(heads[b], dumps[b][1], images.test_labels))
        for name in ("no-stitch", *SWEPT):
            curves[name].append(float(np.mean(found[name])) if found[name] else float("nan"))
        print(count, {name: round(values[-1], 3) for name, values in curves.items()}, file=sys.stderr, flush=True)
    return curves
