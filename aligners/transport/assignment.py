"""Assignment prediction: a map trained to put a row where its mate stands among prototypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..aligner import Aligner
from ..alignment import Alignment
from ..errors import RefusedError, SutureError
from ..linear.checks import check_choice, check_number, check_rank
from ..linear.ridge import Ridge
from ..maps import Affine
from ..moments import Moments
from ..survey import Survey
from .sinkhorn import sinkhorn

__all__ = ["AssignmentPrediction", "prototypes"]


@dataclass(frozen=True)
class AssignmentPrediction(Aligner):
    """Prototypes V ``(k, q)`` are k-means centroids of the targets; Q is the balanced Sinkhorn assignment of targets.

    ``kind`` "regress": ridge from x to ``mix y + (1 - mix) (m + r Q V)``, closed form: what y says beyond prototypes
    is shrunk. "swapped": ``min -mean_i sum_k Q_ik log softmax_k((x_i W + b) V' / tau)`` from that ridge map on, by
    L-BFGS; on frozen dumps the second term of the paper's swapped loss does not depend on W, and the first is convex.

    ``prototypes``: how many, k. ``eps``: entropy of the assignment, in units of cosine; the smaller, the harder it is
    and the more turns it takes. ``tau``: temperature of "swapped", which takes at most ``rounds`` turns of L-BFGS.
    ``mix``: what is left of y beside its prototypes.

    Balanced means that prototypes are used equally: the authors' code sharpens by a prior and balances nothing. V and Q
    are of centred unit rows. Fitted on the survey's sample, at most 5,000 pairs.
    """

    name: ClassVar[str] = "assignment"
    summary: ClassVar[str] = "map that predicts the assignment of the mate to prototypes (optimal transport)"
    paper: ClassVar[str] = "Park, Lee & Sohn 2024, VLAP (arXiv 2404.09632)"
    affine: ClassVar[bool] = True

    kind: Literal["regress", "swapped"] = "regress"
    prototypes: int = 256
    eps: float = 0.02
    tau: float = 0.1
    mix: float = 0.5
    rounds: int = 200

    def __post_init__(self) -> None:
        check_choice("assignment: kind", self.kind, ("regress", "swapped"))
        check_rank("assignment: prototypes", self.prototypes)
        check_rank("assignment: rounds", self.rounds)
        check_number("assignment: eps", self.eps, 0, above=True)
        check_number("assignment: tau", self.tau, 0, above=True)
        check_number("assignment: mix", self.mix, 0, 1)

    def align(self, survey: Survey) -> Alignment:
        """The map of the sample. Raises `RefusedError` with fewer than ten pairs."""
        x, y = survey.sample.x.double(), survey.sample.y.double()
        if len(x) < 10:
            raise RefusedError(f"assignment: expected at least 10 pairs to find prototypes in, got {len(x)}.")
        mean, length = y.mean(0), torch.linalg.vector_norm(y - y.mean(0), dim=1).mean()
        unit = normalize(y - mean, dim=1)
        v, _ = prototypes(unit, max(2, min(self.prototypes, len(x) // 4)), survey.seed)
        # A ten thousandth of the mass out of place is nothing here; a hundredth of that was not reached by 966 images.
        q = sinkhorn(-(unit @ v.T), self.eps, rounds=5000, tolerance=1e-4) * len(x)
        drawn = self.mix * y + (1 - self.mix) * (mean + length * normalize(q @ v, dim=1))
        mapping = Ridge().solve(Moments.of(x, drawn, survey.sample.weights))
        if self.kind == "swapped":
            mapping = self.swapped(mapping, x, q, v, mean, length)
        agreed = ((mapping.forward(x) - mean) @ v.T).argmax(1) == q.argmax(1)
        return Alignment.one_sided(mapping).with_provenance(prototype_top1=float(agreed.double().mean()))

    def swapped(self, first: Affine, x: Tensor, q: Tensor, v: Tensor, mean: Tensor, length: Tensor) -> Affine:
        """The minimum of the swapped loss near ``first``. Raises `SutureError` where L-BFGS does not come to rest."""
        weight, bias = first.weight.double().clone(), first.bias.double().clone()
        weight.requires_grad_()
        bias.requires_grad_()
        # Far from the ridge map only what V sees is determined: a little of it is asked back.
        anchor = first.weight.double()
        solver = torch.optim.LBFGS([weight, bias], max_iter=self.rounds, line_search_fn="strong_wolfe", history_size=10)

        def loss() -> Tensor:
            solver.zero_grad()
            scores = ((x @ weight + bias - mean) / length) @ v.T / self.tau
            value = -(q * torch.log_softmax(scores, 1)).sum(1).mean() + 0.1 * (weight - anchor).square().mean()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        solver.step(loss)  # type: ignore[no-untyped-call]
        if not bool(torch.isfinite(weight).all()):
            raise SutureError(f"assignment: the swapped loss diverged; raise tau (now {self.tau:g}).")
        return Affine(weight.detach(), bias.detach())


def prototypes(rows: Tensor, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """The ``k`` centroids ``(k, q)`` of k-means, of unit length, and the share of the ``rows`` of each ``(k,)``."""
    from sklearn.cluster import KMeans

    found = KMeans(k, n_init=1, random_state=seed).fit(rows.numpy())
    centres = normalize(torch.from_numpy(found.cluster_centers_.astype(np.float64)), dim=1)
    return centres, torch.bincount(torch.from_numpy(found.labels_).long(), minlength=k).double() / len(rows)
