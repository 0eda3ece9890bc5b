"""All ordered pairs of encoders: the head of one on the vectors of the other, by every method."""

from __future__ import annotations

import sys
from collections import defaultdict
from itertools import permutations
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from suture.aligners.measures.bootstrap import Bootstrap

from .encoders import PRETRAINED, TRAINED_FOR_THE_TASK, Images
from .methods import TRANSLATORS, accuracy, by_the_head, latentis, linear_head, relative_maps

Dumps = dict[str, tuple[Tensor, Tensor]]
GROUPS = ("trained for the task", "with an autoencoder", "with the pretrained network")
ROWS = (
    *("no-stitch", "absolute", "relative", "relative, centred"),
    *("linear", "l-ortho", "affine (ridge)", "ortho", "ours: auto", "ours: by the head", "ours: distilled"),
    *("latentis linear", "latentis l-ortho", "latentis affine (SGD)", "latentis ortho"),
)


SWEPT = (
    *("relative, centred", "linear", "affine (ridge)", "ortho", "ours: by the head", "ours: distilled"),
    "latentis affine (SGD)",
)


def group(a: str, b: str) -> str:
    """Which pairs are averaged together."""
    if PRETRAINED in (a, b):
        return GROUPS[2]
    return GROUPS[0] if {a, b} <= set(TRAINED_FOR_THE_TASK) else GROUPS[1]


def anchors_of(n: int, count: int, seed: int) -> Tensor:
    """Row numbers of anchor items, drawn from the training images."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:count]


def wanted(dumps: Dumps, seeds: int) -> list[tuple[str, str, int]]:
    """Ordered pairs and draws of anchors: all of encoders trained for the task, one draw of others, few slow ones."""
    some = {(PRETRAINED, "cnn, seed 0"), ("cnn, seed 0", PRETRAINED), (PRETRAINED, "resnet"), ("resnet", PRETRAINED)}
    out = []
    for a, b in permutations(dumps, 2):
        if group(a, b) != GROUPS[2] or (a, b) in some:
            out += [(a, b, seed) for seed in range(seeds if group(a, b) == GROUPS[0] else 1)]
    return out


def measure(dumps: Dumps, images: Images, seeds: int) -> dict[tuple[str, str], list[float]]:
    """Accuracies by method and group of pairs, anchors = dims of the wider encoder."""
    heads = {name: linear_head(train, images.train_labels) for name, (train, _) in dumps.items()}
    native = {name: accuracy(heads[name], test, images.test_labels) for name, (_, test) in dumps.items()}
    print({name: round(value, 3) for name, value in native.items()}, file=sys.stderr, flush=True)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    peers, started = latentis(), perf_counter()
    for a, b, seed in wanted(dumps, seeds):
        (train_a, test_a), (train_b, _), head = dumps[a], dumps[b], heads[b]
        rows = anchors_of(len(train_a), max(train_a.shape[1], train_b.shape[1]), seed)
        x, y = train_a[rows], train_b[rows]
        scores = {"no-stitch": native[b]}
        if train_a.shape[1] == train_b.shape[1]:
            scores["absolute"] = accuracy(head, test_a, images.test_labels)
        methods = TRANSLATORS | peers | {"ours: by the head": lambda x, y, head=head: by_the_head(x, y, head)}
        for name, fitted in methods.items():
            scores[name] = accuracy(head, fitted(x, y)(test_a), images.test_labels)
        for name, centre in (("relative", False), ("relative, centred", True)):
            into_a, into_b = relative_maps(x, y, centre=centre)
            own = linear_head(into_b(train_b), images.train_labels)
            scores[name] = accuracy(own, into_a(test_a), images.test_labels)
        for name, value in scores.items():
            found[name, group(a, b)].append(value)
        told = " ".join(f"{name} {value:.3f}," for name, value in scores.items())
        print(f"{perf_counter() - started:.0f} s: {a} -> {b}: {told}", file=sys.stderr, flush=True)
    return found


def paired(found: dict[tuple[str, str], list[float]], name: str, other: str) -> str:
    """The mean difference over the pairs of encoders trained for the task, with its 95 % interval."""
    columns = {n: torch.tensor(found[n, GROUPS[0]], dtype=torch.float64) for n in (name, other)}
    gap = Bootstrap(columns).difference(name, other)
    return f"{name} less {other}: {gap.estimate:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"


def rows_of(found: dict[tuple[str, str], list[float]]) -> list[list[str]]:
    """The table: mean and standard deviation over pairs and draws of anchors, and the share of no-stitch."""
    out = []
    for name in ROWS:
        cells = [name]
        for which in GROUPS:
            values, base = found.get((name, which)), found.get(("no-stitch", which))
            if not values or not base:
                cells += ["-", "-"]
                continue
            share = f"{np.mean(values) / np.mean(base):.1%}" if len(values) == len(base) else "-"
            cells += [f"{np.mean(values):.3f} ±{np.std(values):.3f}", share]
        out.append(cells)
    return out


def sweep(dumps: Dumps, images: Images, counts: tuple[int, ...]) -> dict[str, list[float]]:
    """Accuracy by number of anchors over four pairs of encoders that were trained for the task."""
    names = TRAINED_FOR_THE_TASK
    pairs = [(names[i], names[j]) for i, j in ((0, 1), (1, 2), (2, 3), (3, 0))]
    heads = {name: linear_head(dumps[name][0], images.train_labels) for name in names}
    curves: dict[str, list[float]] = defaultdict(list)
    for count in counts:
        row = defaultdict(list)
        for a, b in pairs:
            rows = anchors_of(len(images.train), count, 0)
            x, y, test, head = dumps[a][0][rows], dumps[b][0][rows], dumps[a][1], heads[b]
            methods = {name: TRANSLATORS[name] for name in ("linear", "affine (ridge)", "ortho", "ours: distilled")}
            methods |= {k: f for k, f in latentis().items() if k == "latentis affine (SGD)"}
            if count >= 20:  # fewer leave nothing to choose by
                methods["ours: by the head"] = lambda x, y, head=head: by_the_head(x, y, head)
            for name, fitted in methods.items():
                row[name].append(accuracy(head, fitted(x, y)(test), images.test_labels))
            into_a, into_b = relative_maps(x, y, centre=True)
            own = linear_head(into_b(dumps[b][0]), images.train_labels)
            row["relative, centred"].append(accuracy(own, into_a(test), images.test_labels))
            row["no-stitch"].append(accuracy(head, dumps[b][1], images.test_labels))
        for name in ("no-stitch", *SWEPT):
            curves[name].append(float(np.mean(row[name])) if name in row else float("nan"))
        print(count, {name: round(values[-1], 3) for name, values in curves.items()}, file=sys.stderr, flush=True)
    return curves
