"""The rows of the stitching table: how vectors of one encoder get into the head of another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from suture.aligners import Distill, HeadDistill, LeastSquares, Map, Pairs, Procrustes, Ridge, Survey
from suture.aligners.choose import Candidate, winner
from suture.aligners.fit import candidates, fit
from suture.stitching.models import Head, HeadJudge, RelativeSpace

HEAD_ROWS = 4000

# The translators of Maiorca et al. 2023 by our own estimators; their "affine", which they train, is ridge here.
TRANSLATORS: dict[str, Callable[[Tensor, Tensor], Map]] = {
    "linear": lambda x, y: LeastSquares(standardise=True).fit(x, y).translate(),
    "l-ortho": lambda x, y: LeastSquares(standardise=True, orthogonalise=True).fit(x, y).translate(),
    "affine (ridge)": lambda x, y: Ridge().fit(x, y).translate(),
    "ortho": lambda x, y: Procrustes(standardise=True).fit(x, y).translate(),
    "ours: auto": lambda x, y: fit(Survey.of(Pairs.of(x, y), canaries=False)).translate(),
    "ours: distilled": lambda x, y: Distill().fit(x, y).translate(),
}


def by_the_head(x: Tensor, y: Tensor, head: Head) -> Map:
    """What `suture fit --head` gives: a closed form or the map trained for the head, as it takes held-out rows best."""
    survey = Survey.of(Pairs.of(x, y), canaries=False)
    judge = HeadJudge(survey, head)
    tried = [v for a in (*candidates(), HeadDistill(head)) for v in a.variants(survey)]
    return winner([Candidate(a, judge(a)) for a in tried]).aligner.align(survey).translate()


def distilled_by_the_head(x: Tensor, y: Tensor, head: Head) -> Map:
    """The map trained for the head, whatever else might do better."""
    return HeadDistill(head).fit(x, y).translate()


# The same where the head that rows will go into is known.
FOR_THE_HEAD: dict[str, Callable[[Tensor, Tensor, Head], Map]] = {
    "ours: by the head": by_the_head,
    "ours: distilled by the head": distilled_by_the_head,
}


def linear_head(rows: Tensor, labels: Tensor) -> Head:
    """Logistic regression on standardised rows, as one linear head on the rows themselves."""
    rows, labels = rows[:HEAD_ROWS], labels[:HEAD_ROWS]
    mean, deviation = rows.mean(0), rows.std(0).clamp(min=1e-6)
    model = LogisticRegression(max_iter=150, tol=1e-3, C=0.1).fit(((rows - mean) / deviation).numpy(), labels.numpy())
    weight = torch.from_numpy(np.asarray(model.coef_)).float() / deviation
    return Head(weight, torch.from_numpy(np.asarray(model.intercept_)).float() - weight @ mean)


def accuracy(head: Head, rows: Tensor, labels: Tensor) -> float:
    """Share of rows that the head gets right."""
    return float((head.choices(rows) == labels).float().mean())


RELATIVE = {"relative": False, "relative, centred": True}  # whether the anchors' mean is taken off first


def relative_maps(x: Tensor, y: Tensor, *, centre: bool) -> tuple[Map, Map]:
    """Cosines to the anchors, at unit length, for either encoder."""
    space = RelativeSpace(len(x), centre=centre, unit=True)
    return space.of(x), space.of(y)


def latentis() -> dict[str, Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]]:
    """The translators of latentis 0.0.8 as its authors use them; none where it is not installed."""
    try:
        from latentis.transform.base import StandardScaling
        from latentis.transform.dim_matcher import ZeroPadding
        from latentis.transform.translate import functional as f
        from latentis.transform.translate.aligner import MatrixAligner, SGDAffineAligner, Translator
    except ImportError:
        return {}

    def translator(make: Callable[[], object]) -> Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]:
        def fitted(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
            made = Translator(
                make(), x_transform=StandardScaling(), y_transform=StandardScaling(), dim_matcher=ZeroPadding()
            )
            made.fit(x, y)
            return lambda rows: made.transform(rows)[0].detach()

        return fitted

    return {
        "latentis linear": translator(lambda: MatrixAligner("linear", f.lstsq_align_state)),
        "latentis l-ortho": translator(lambda: MatrixAligner("l-ortho", f.lstsq_ortho_align_state)),
        "latentis affine (SGD)": translator(lambda: SGDAffineAligner(num_steps=300, lr=1e-3, random_seed=0)),
        "latentis ortho": translator(lambda: MatrixAligner("ortho", f.svd_align_state)),
    }
