"""Aligner: frozen hyper-parameters; `fit` returns an `Alignment`. Nothing has an unfitted state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from inspect import get_annotations, getdoc
from typing import Any, ClassVar, Literal, Self

from .alignment import Alignment
from .arrays import Array
from .maps import Affine
from .moments import ALL_BLOCKS, Block, Moments
from .pairs import Pairs
from .survey import Survey

__all__ = ["Aligner", "LinearAligner", "Needs"]

Needs = Literal["pairs", "few pairs", "no pairs", "labels", "a head", "many spaces"]


@dataclass(frozen=True)
class Aligner(ABC):
    """A method of alignment with its hyper-parameters as fields.

    ``name`` is its name in the registry, ``summary`` one line on what it does, ``paper`` where it comes from, ``needs``
    what it is fitted on. The docstring of a method says what each of its parameters does; ``seed``, where it has one,
    is that of every draw: the same rows and seed give the same map.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[Needs] = "pairs"
    affine: ClassVar[bool] = False

    @property
    def blocks(self) -> frozenset[Block]:
        """The moments that it needs with these hyper-parameters."""
        return ALL_BLOCKS

    @property
    def reads_rows(self) -> bool:
        """Whether it needs the rows once more, beyond their moments: held-out fits then cost passes of their own."""
        return True

    @abstractmethod
    def align(self, survey: Survey) -> Alignment:
        """The maps alone, without provenance, fitted on all that was surveyed."""

    def variants(self, survey: Survey) -> Sequence[Self]:
        """This aligner with what was left open spread out, simplest first: what held-out rows are to choose among."""
        return (self,)

    def settle(self, survey: Survey) -> Self:
        """This aligner with every hyper-parameter that was left open chosen on held-out rows of the survey."""
        from .choose import best  # choose builds on aligners

        return best(self.variants(survey), survey)

    @classmethod
    def explanation(cls) -> str:
        """The docstrings of the method and of those that it has parameters from, its own first."""
        own = [base for base in cls.__mro__ if issubclass(base, Aligner) and base is not Aligner]
        return "\n\n".join(getdoc(base) or "" for base in own if base is cls or _has_parameters(base))

    def parameters(self) -> dict[str, Any]:
        """The hyper-parameters as plain JSON values."""
        return asdict(self)

    def fit(self, x: Array, y: Array, *, keys: Array | None = None, weights: Array | None = None) -> Alignment:
        """Align ``x`` ``(n, p)`` to ``y`` ``(n, q)``, row i of both being the same item.

        ``keys`` ``(n,)``: integers that rows of one group share, so that held-out rows never see their own group.
        ``weights`` ``(n,)``: how much each pair counts. Raises `SutureError` on arrays that do not fit together.
        """
        return self.fit_survey(Survey.of(Pairs.of(x, y, keys, weights), blocks=self.blocks))

    def fit_survey(self, survey: Survey) -> Alignment:
        """Align what was surveyed, open hyper-parameters settled and the provenance written down."""
        settled = self.settle(survey)
        fitted = settled.align(survey).to(survey.moments.dtype)
        return Alignment(
            fitted.maps,
            fitted.back,
            {"source": survey.source, "target": survey.target},
            {"method": self.name, "params": settled.parameters(), "rows": int(survey.moments.n), **fitted.provenance},
        )


def _has_parameters(kind: type[Aligner]) -> bool:
    return not {f.name for f in fields(kind)}.isdisjoint(get_annotations(kind))


@dataclass(frozen=True)
class LinearAligner(Aligner):
    """A method that needs only the moments of the pairs. A new one writes `solve`.

    ``rotates``: it is built on the rotation of the moments, of which the provenance then says whether it is unique.
    """

    affine: ClassVar[bool] = True
    rotates: ClassVar[bool] = False

    @abstractmethod
    def solve(self, moments: Moments) -> Affine:
        """The map from source to target that these moments determine."""

    def align_moments(self, moments: Moments) -> Alignment:
        """The alignment of both spaces; one-sided unless the method has a shared space of its own."""
        return Alignment.one_sided(self.solve(moments))

    @property
    def reads_rows(self) -> bool:
        """Only where these hyper-parameters need more than the moments."""
        return False

    def align(self, survey: Survey) -> Alignment:
        """By the moments of all pairs."""
        return self.align_moments(survey.moments).with_provenance(**self.facts(survey.moments))

    def facts(self, moments: Moments) -> dict[str, Any]:
        """What the provenance says of the rotation: ``{"rank", "dims", "unique"}`` of the cross-covariance.

        Fewer pairs than dims, or dims that no pair speaks of, leave it open how the rest is turned.
        """
        if not self.rotates:
            return {}
        rank, dims = moments.polar_xy[1], min(moments.source_dim, moments.target_dim)
        return {"rotation": {"rank": rank, "dims": dims, "unique": rank == dims}}


def needed_blocks(aligners: Iterable[Aligner]) -> frozenset[Block]:
    """All blocks of the moments that any of the ``aligners`` needs."""
    return frozenset().union(*(a.blocks for a in aligners))
