"""Dumps that meet in named coordinates: fitting them by labels or by rows of names, and what the coordinates say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..aligners.alignment import Alignment
from ..aligners.errors import RefusedError, UsageError
from ..aligners.named.agreement import auroc, contributions, spearman
from ..aligners.named.base import LabelledAligner
from ..aligners.named.concepts import Concepts
from ..aligners.recognise import require_side
from .dumps import Dump
from .dumps.idfiles import open_ids
from .models.labels import read_labels
from .rows import all_rows, partners

__all__ = ["explain", "fit_concepts", "fit_labels"]

TOP = 5


def fit_labels(
    aligner: LabelledAligner, dumps: Mapping[str, Dump], labels: Sequence[Path], *, seed: int, canaries: bool
) -> Alignment:
    """Join the spaces by a file of labels for each, or one that holds for all."""
    files = spread(labels, len(dumps), "--labels")
    rows = {name: all_rows(dump) for name, dump in dumps.items()}
    given = {name: read_labels(path, dump) for (name, dump), path in zip(dumps.items(), files, strict=True)}
    return aligner.fit_labelled(rows, given, seed=seed, canaries=canaries)


def fit_concepts(
    aligner: Concepts, dumps: Mapping[str, Dump], concepts: Sequence[Dump], names: Path | None, *, canaries: bool
) -> Alignment:
    """Join the spaces by what each encoder makes of the names: a dump of names for each, in the same order.

    Names are those in the file ``names``, one a line, else the ids of the dumps, which must agree.
    """
    if len(concepts) != len(dumps):
        raise UsageError(f"--concepts: expected a dump of names for each of {len(dumps)} spaces, got {len(concepts)}.")
    listed = [ids_of(dump) for dump in concepts] if names is None else [texts(names)] * len(concepts)
    if any(each != listed[0] for each in listed):
        raise RefusedError("expected the same names in the same order in all --concepts, they differ.")
    for dump, each in zip(concepts, listed, strict=True):
        if len(each) != dump.rows or len(set(each)) < len(each):
            raise RefusedError(f"{dump.name}: expected {dump.rows} names that differ, got {len(each)}.")
    rows = {name: all_rows(dump) for name, dump in dumps.items()}
    own = {name: all_rows(dump) for name, dump in zip(dumps, concepts, strict=True)}
    return aligner.fit_concepts(rows, own, listed[0], canaries=canaries)


def ids_of(dump: Dump) -> list[str]:
    """The names of rows that a dump has. Raises `RefusedError` where it has none."""
    if dump.ids is None:
        raise RefusedError(f"{dump.name} has no ids to name its rows; give the names (--names FILE, one a line).")
    return [str(name) for block in dump.ids.blocks() for name in block.tolist()]


def texts(path: Path) -> list[str]:
    """The names in a file."""
    return [str(name) for block in open_ids(path, "name").blocks() for name in block.tolist()]


def spread(files: Sequence[Path], count: int, option: str) -> Sequence[Path]:
    """One file for each, out of one or one for each."""
    if len(files) not in (1, count):
        raise UsageError(f"{option}: expected one file, or one for each of {count} spaces, got {len(files)}.")
    return [*files] * (count if len(files) == 1 else 1)


def explain(
    alignment: Alignment,
    dumps: Mapping[str, Dump],
    *,
    labels: Path | None = None,
    matches: Sequence[tuple[int, int]] = (),
    by_row: bool = False,
) -> dict[str, Any]:
    """What each concept is worth on one or two dumps, by the name of their space in ``alignment``.

    AUROC of its coordinate for the rows that bear its name (``labels``, of the first dump and those that belong to
    it), Spearman's correlation of its coordinates between both, and for each of ``matches``, a row of either dump, the
    concepts that add most to their cosine. Raises `RefusedError` for a map without names.
    """
    names = alignment.provenance.get("names")
    if names is None or len(names) != alignment.shared_dim:
        raise RefusedError("expected a map whose coordinates have names (suture fit --method concepts), got another.")
    coordinates = {}
    for side, dump in dumps.items():
        rows = all_rows(dump)
        require_side(alignment, side, rows, dump.name)
        coordinates[side] = alignment.map_of(side)(rows).double()
    first, *others = dumps
    mates = None if not others else partners(dumps[first], dumps[others[0]], by_row=by_row)
    given = None if labels is None else [str(label) for label in read_labels(labels, dumps[first])]
    scores: dict[str, list[float | None]] = {}
    for side, s in coordinates.items():
        kept = torch.arange(len(s)) if side == first else mates
        if given is not None and kept is not None:
            there = kept >= 0
            truth = [label for label, yes in zip(given, there.tolist(), strict=True) if yes]
            own = s[kept[there]]
            scores[side] = [number(auroc(own[:, c], bears(truth, name))) for c, name in enumerate(names)]
    agreed: list[float | None] = [None] * len(names)
    both = None if mates is None else (mates >= 0).nonzero()[:, 0]
    if both is not None and mates is not None and len(both) > 1:
        agreed = list(map(number, spearman(coordinates[first][both], coordinates[others[0]][mates[both]])))
    return {
        "rows": {side: len(s) for side, s in coordinates.items()},
        "paired": None if both is None else len(both),
        "concepts": [
            {"name": name, "auroc": {side: each[c] for side, each in scores.items()}, "agreement": agreed[c]}
            for c, name in enumerate(names)
        ],
        "matches": [match(names, coordinates, pair) for pair in matches],
    }


def bears(labels: Sequence[str], name: str) -> Tensor:
    """Which rows have that label."""
    return torch.tensor([label == name for label in labels])


def number(value: Tensor) -> float | None:
    """A number, or nothing where it is not defined."""
    return None if bool(value.isnan()) else round(float(value), 6)


def match(names: Sequence[str], coordinates: Mapping[str, Tensor], pair: tuple[int, int]) -> dict[str, Any]:
    """The cosine of two rows in named coordinates, and the concepts that add most to it."""
    sides = [*coordinates.items()]
    rows = []
    for (side, s), row in zip((sides[0], sides[-1]), pair, strict=True):
        if not 0 <= row < len(s):
            raise UsageError(f"--match: expected a row within 0..{len(s) - 1} of the {side} dump, got {row}.")
        rows.append(s[row][None])
    added = contributions(*rows)[0]
    top = added.argsort(descending=True, stable=True)[:TOP].tolist()
    return {
        "rows": list(pair),
        "cosine": round(float(added.sum()), 6),
        "concepts": [{"name": names[c], "adds": round(float(added[c]), 6)} for c in top],
    }
