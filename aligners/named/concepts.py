"""Named concepts as coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..alignment import Alignment
from ..arrays import Array
from ..errors import RefusedError, UsageError
from ..linear.checks import check_choice, check_number
from ..linear.ridge import Ridge
from ..map import Map
from ..maps import Affine
from ..moments import Moments
from ..relative.map import Relative
from .base import LabelledAligner, finite
from .sparse_code import SparseCode

__all__ = ["Concepts", "prototypes"]

Kind = Literal["cosine", "sparse", "ridge", "logistic"]
KINDS = ("cosine", "sparse", "ridge", "logistic")


@dataclass(frozen=True)
class Concepts(LabelledAligner):
    """``s_c(x)``, one coordinate for every named concept: encoders that know the same names share the space.

    A concept is the mean of the rows that bear its name, or the row of its name itself (`fit_concepts`); both are taken
    about the mean of their kind, which closes the gap between names and items. ``kind`` "cosine":
    ``cos(x - m, e_c)``, a relative representation whose anchors have names. "sparse": the code s >= 0 of the unit row
    ``u`` that minimises ``||u - s E||^2 / 2 + penalty sum(s)``, few concepts a row. "ridge" and "logistic": supervised
    probes, linear scores of belonging to c; ``penalty`` in units of the mean variance (ridge), or of squared weights
    beside the mean log loss (logistic). ``standardise``: every coordinate to mean 0 and variance 1 over the rows, so
    that frequent or broad concepts do not drown the others.

    The way back into a space is ridge (GCV) from the coordinates of its own rows: a translation through the names,
    which keeps what the concepts say and nothing else.
    """

    name: ClassVar[str] = "concepts"
    summary: ClassVar[str] = "named concepts as coordinates: axes that mean the same in every encoder"
    paper: ClassVar[str] = "explicit skill dimensions of SESA, after the fact, as relative representations with names"

    kind: Kind = "cosine"
    standardise: bool = True
    penalty: float = 0.05

    def __post_init__(self) -> None:
        check_choice("concepts: kind", self.kind, KINDS)
        check_number("concepts: penalty", self.penalty, 0, above=True)

    def chart(self, x: Tensor, which: Tensor, names: int) -> Map:
        """From labelled rows."""
        if self.kind == "ridge":
            return self.finished(ridge_probes(x, which, names, self.penalty), x)
        if self.kind == "logistic":
            return self.finished(logistic_probes(x, which, names, self.penalty), x)
        return self.placed(prototypes(x, which, names) - x.mean(0), x)

    def placed(self, concepts: Tensor, x: Tensor) -> Map:
        """The coordinates of rows ``x`` ``(n, p)`` by ``concepts`` ``(k, p)``, both about their own means."""
        zero = concepts.new_zeros(len(concepts))
        if self.kind == "sparse":
            return self.finished(SparseCode.of(concepts, x.mean(0), self.penalty), x)
        return self.finished(Relative(concepts, x.mean(0), zero, zero + 1), x)

    def finished(self, mapping: Map, x: Tensor) -> Map:
        """Standardised, if it is to be."""
        if not self.standardise:
            return mapping
        s = mapping.forward(x)
        mean, sd = s.mean(0), s.std(0, correction=0)
        gain = torch.where(sd > 1e-9, 1 / sd.clamp(min=1e-9), 0.0)  # a code that no row uses stays 0
        if isinstance(mapping, Relative):
            return replace(mapping, shift=mean, gain=gain)
        return mapping >> Affine(torch.diag(gain), -mean * gain)

    def fit_concepts(
        self,
        spaces: Mapping[str, Array],
        concepts: Mapping[str, Array],
        names: Sequence[str],
        *,
        canaries: bool = True,
    ) -> Alignment:
        """Join ``spaces`` ``(n_k, p_k)`` by what each encoder makes of ``names``: rows ``concepts[k]`` ``(c, p_k)``.

        Raises `UsageError` for probes, which learn from labels, and `RefusedError` where a space lacks a name.
        """
        if self.kind in ("ridge", "logistic"):
            raise UsageError(f"concepts: {self.kind} probes are learnt from labels (--labels), not from rows of names.")
        if len(names) < 2:
            raise RefusedError(f"concepts: expected at least two names, got {len(names)}.")
        rows = {space: finite(x, space) for space, x in spaces.items()}
        maps = {}
        for space, x in rows.items():
            e = finite(concepts[space], f"the concepts of {space}")
            if e.shape != (len(names), x.shape[1]):
                raise RefusedError(
                    f"{space}: expected a row of {x.shape[1]} dims for each of {len(names)} names, got "
                    f"{tuple(e.shape)}; every encoder must embed the same names, in the same order."
                )
            maps[space] = self.placed(e - e.mean(0), x)
        counts = {space: {"rows": len(x), "left_out": 0} for space, x in rows.items()}
        facts = {"spaces": counts, "held_out": dict.fromkeys(rows)}
        return self.joined(maps, rows, spaces, names, facts, canaries)


def prototypes(x: Tensor, which: Tensor, names: int) -> Tensor:
    """The mean row ``(names, p)`` of each label."""
    counts = torch.bincount(which, minlength=names).double()
    return torch.zeros(names, x.shape[1], dtype=x.dtype).index_add_(0, which, x) / counts[:, None]


def ridge_probes(x: Tensor, which: Tensor, names: int, penalty: float) -> Affine:
    """Ridge of centred rows onto "bears this label", 0 or 1."""
    targets = torch.eye(names, dtype=x.dtype)[which]
    return Ridge(alpha=penalty).solve(Moments.of(x, targets, blocks=("xx", "xy", "y")))


def logistic_probes(x: Tensor, which: Tensor, names: int, penalty: float) -> Affine:
    """Multinomial logistic regression (scikit-learn) of rows in units of their mean spread; the logits."""
    from sklearn.linear_model import LogisticRegression

    mean = x.mean(0)
    unit = (x - mean).square().mean().sqrt()
    found = LogisticRegression(C=1 / (penalty * len(x)), max_iter=2000).fit(((x - mean) / unit).numpy(), which.numpy())
    weight, bias = torch.from_numpy(found.coef_), torch.from_numpy(found.intercept_)
    if names == 2:  # the library keeps one score for two labels
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return Affine.between(mean, weight.T.contiguous() / unit, bias)
