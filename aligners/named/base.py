"""LabelledAligner: what the methods have in common that join spaces by the names of their labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..aligner import Aligner, Needs
from ..alignment import Alignment
from ..arrays import Array, as_matrix
from ..errors import RefusedError, SutureError, UsageError
from ..linear.ridge import Ridge
from ..map import Map
from ..maps import Affine, build_map
from ..moments import Moments
from ..pairs import mix
from ..survey import Survey, all_unit, space_of
from .agreement import auroc

__all__ = ["Labelled", "LabelledAligner", "way_back"]

FEWEST = 50  # rows of which a fifth are held out


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows ``x`` ``(n, p)`` in float64 and the number ``(n,)`` of each one's label among the names; ``left_out`` rows
    had a label that not all spaces have."""

    x: Tensor
    which: Tensor
    left_out: int


@dataclass(frozen=True)
class LabelledAligner(Aligner):
    """A method for two spaces or more that share the names of labels, not items. A new one writes `chart`.

    Every space is fitted by itself, so that a space more changes none of the others.
    """

    needs: ClassVar[Needs] = "labels"

    @abstractmethod
    def chart(self, x: Tensor, which: Tensor, names: int) -> Map:
        """The map of rows ``(n, p)`` with labels ``(n,)``, numbers below ``names``, into the common space."""

    def scores(self, coordinates: Tensor, names: int) -> Tensor:
        """How much rows ``(n, D)`` of the common space belong to each label: ``(n, names)``."""
        return coordinates

    def align(self, survey: Survey) -> Alignment:
        """Raises `UsageError`: pairs are not what it is fitted on."""
        raise UsageError(
            f"{self.name} joins spaces by labels, not by pairs; use fit_labelled (suture fit A B --method {self.name} "
            "--labels FILE, once for both or once for each)."
        )

    def fit_labelled(
        self, spaces: Mapping[str, Array], labels: Mapping[str, Sequence[Any]], *, seed: int = 0, canaries: bool = True
    ) -> Alignment:
        """Join ``spaces`` ``(n_k, p_k)`` by name, given a label ``(n_k,)`` of each row.

        Rows whose label some space has not are left out. Raises `RefusedError` with fewer than two common labels.
        """
        names, parts = gathered(spaces, labels)
        maps = {space: self.chart(part.x, part.which, len(names)) for space, part in parts.items()}
        held = {space: self.held_out(part, names, seed) for space, part in parts.items()}
        counts = {space: {"rows": len(part.x), "left_out": part.left_out} for space, part in parts.items()}
        rows = {space: part.x for space, part in parts.items()}
        return self.joined(maps, rows, spaces, names, {"spaces": counts, "held_out": held}, canaries)

    def joined(
        self,
        maps: Mapping[str, Map],
        fitted: Mapping[str, Tensor],
        spaces: Mapping[str, Array],
        names: Sequence[str],
        facts: dict[str, Any],
        canaries: bool,
    ) -> Alignment:
        """The alignment of ``maps``, with a way back into each space by ridge from the coordinates of its own rows."""
        back = {space: way_back(mapping, fitted[space]) for space, mapping in maps.items()}
        remembered = {}
        for space, given in spaces.items():
            rows = as_matrix(given, space)
            keys = mix(torch.arange(len(rows)))
            sample = rows[keys.argsort()[:5000]].float()
            print_ = f"{len(rows)}:{int(mix(keys).sum()) & (1 << 64) - 1:016x}"
            remembered[space] = space_of(
                sample, keys.sort().values[:5000], rows.double().mean(0), all_unit(rows), print_, canaries
            )
        made = {"method": self.name, "params": self.parameters(), "names": list(names), **facts}
        made["rows"] = sum(len(x) for x in fitted.values())
        kept = {space: single(mapping) for space, mapping in maps.items()}
        return Alignment(kept, back, remembered, made).to(torch.float32)

    def held_out(self, part: Labelled, names: Sequence[str], seed: int) -> dict[str, float] | None:
        """How a fit on four fifths of the rows labels the others; None where too few rows or labels are left."""
        if len(part.x) < FEWEST:
            return None
        test = mix(torch.arange(len(part.x)), seed + 1).argsort().argsort() < len(part.x) // 5
        if len(torch.unique(part.which[~test])) < len(names):
            return None
        scores = self.scores(self.chart(part.x[~test], part.which[~test], len(names))(part.x[test]), len(names))
        truth = part.which[test]
        each = torch.stack([auroc(scores[:, c], truth == c) for c in range(len(names))])
        return {
            "rows": len(truth),
            "accuracy": float((scores.argmax(1) == truth).double().mean()),
            "most_frequent": float(torch.bincount(truth).max() / len(truth)),
            "auroc": float(each.nanmean()),
        }


def gathered(spaces: Mapping[str, Array], labels: Mapping[str, Sequence[Any]]) -> tuple[list[str], dict[str, Labelled]]:
    """The names that all spaces have, in order, and the rows of each space that bear one."""
    if len(spaces) < 2:
        raise UsageError(f"expected at least two spaces, got {len(spaces)}.")
    rows = {space: finite(x, space) for space, x in spaces.items()}
    texts = {space: [str(label) for label in labels[space]] for space in spaces}
    for space, text in texts.items():
        if len(text) != len(rows[space]):
            raise SutureError(f"{space}: expected one label per row, got {len(text)} for {len(rows[space])} rows.")
    names = sorted(set.intersection(*map(set, texts.values())))
    if len(names) < 2:
        counts = ", ".join(f"{space} has {len(set(text))}" for space, text in texts.items())
        raise RefusedError(
            f"expected at least two labels that all spaces have, got {len(names)} ({counts}). Are they written alike?"
        )
    number = {name: i for i, name in enumerate(names)}
    parts = {}
    for space, text in texts.items():
        which = torch.tensor([number.get(label, -1) for label in text])
        kept = which >= 0
        parts[space] = Labelled(rows[space][kept], which[kept], int((~kept).sum()))
    return names, parts


def finite(x: Array, what: str) -> Tensor:
    """Rows in float64. Raises `RefusedError` on rows that are not finite, or all the same."""
    rows = as_matrix(x, what).double()
    if not bool(torch.isfinite(rows).all()):
        raise RefusedError(f"{what}: expected finite rows, got NaN or infinite values; drop those rows first.")
    if not float((rows - rows[0]).abs().max()) > 0:
        raise RefusedError(f"{what}: expected rows that differ, got no variance at all: all rows are the same.")
    return rows


def single(mapping: Map) -> Map:
    """The same map with its numbers in float32."""
    return build_map(mapping.kind, {name: t.float() for name, t in mapping.tensors().items()}, mapping.settings())


def way_back(mapping: Map, x: Tensor) -> Affine:
    """Ridge (GCV) from the coordinates of rows ``x`` ``(n, p)`` to the rows."""
    return Ridge().solve(Moments.of(mapping.forward(x), x, blocks=("xx", "xy", "y")))
