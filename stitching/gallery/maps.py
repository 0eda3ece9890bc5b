"""The maps that strategies are made of, all fitted on the same pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...aligners.aligner import Aligner
from ...aligners.alignment import Alignment
from ...aligners.audit import PROBE, audit
from ...aligners.choose import best, cross_fit, shuffled
from ...aligners.fit import candidates
from ...aligners.fit import fit as choose_and_fit
from ...aligners.linear.blend import Blend
from ...aligners.linear.procrustes import Procrustes
from ...aligners.linear.ridge import Ridge
from ...aligners.linear.rotation_ridge import RotationRidge
from ...aligners.maps import Affine, Map
from ...aligners.moments import Moments
from ...aligners.pairs import Pairs, PairStream
from ...aligners.survey import Survey
from ..evaluate import Track

__all__ = ["Maps", "expansion", "fit_maps"]

STRENGTHS = (10.0, 1.0, 0.1)
ANCHORS = 2000  # pairs by which the error of a gallery row is predicted


@dataclass(frozen=True, eq=False)
class Maps:
    """``alignment``: old to new, and its way back the bridge, new to old; ``expanded`` ``(q, max(p, q))``: see there.

    ``shuffled`` and ``random``: the nulls, a map fitted on pairs handed round and a random rotation. ``anchors``
    ``(a, p)``: old rows of pairs, and ``residual`` ``(a,)`` how far from their new rows maps put them that had not
    seen them (1 - cosine). ``pairing``: what the audit of the pairs says.
    """

    alignment: Alignment
    expanded: Affine
    shuffled: Map
    random: Map
    anchors: Tensor
    residual: Tensor
    pairing: dict[str, Any]

    @property
    def forward(self) -> Map:
        """Old to new."""
        return self.alignment.translate("source", "target")

    @property
    def bridge(self) -> Map:
        """New to old."""
        return self.alignment.back["source"]


def fit_maps(pairs: PairStream, aligners: Sequence[Aligner] | None = None, *, seed: int = 0, track: Track[Any]) -> Maps:
    """Fit them. The map old to new is the best of ``aligners``, by default of ``auto``'s; the bridge of closed forms.

    Raises `RefusedError` where pairs are too few to choose on.
    """
    survey = Survey.of(pairs, seed=seed)
    tried = candidates(pairs=survey.moments.n) if aligners is None else aligners
    alignment = choose_and_fit(survey, tried, track=track)
    back = reversed_survey(survey)
    ways: list[Aligner] = [Procrustes(), *(RotationRidge(strength=s) for s in STRENGTHS), Ridge(), Blend()]
    ways = [v for way in ways for v in way.variants(back)]
    way = best(ways, back, lambda tried: track(tried, "comparing bridges"))
    alignment = replace(alignment, back={**alignment.back, "source": way.align(back).translate()})
    sample = survey.sample
    null = Survey.of(shuffled(sample, seed), canaries=False)
    residual = 1 - torch.cosine_similarity(cross_fit(PROBE, survey), sample.y)
    found = audit(survey)
    return Maps(
        alignment.with_provenance(bridge={"method": way.name, "params": way.parameters()}, audit=found.as_json()),
        expansion(survey.moments),
        Procrustes().align(null).translate(),
        random_rotation(survey.moments, seed),
        sample.x[:ANCHORS],
        residual[:ANCHORS],
        found.as_json(),
    )


def reversed_survey(survey: Survey) -> Survey:
    """The same pairs from new to old."""
    sample = Pairs(survey.sample.y, survey.sample.x, survey.sample.keys, survey.sample.weights)
    parts = tuple(part.reversed for part in survey.parts)
    return Survey(sample, parts, sample, survey.sample_part, survey.target, survey.source, survey.seed)


def expansion(moments: Moments) -> Affine:
    """The expanded orthogonal form: new rows ``(n, q)`` into old coordinates and as many more as they need.

    ``z -> (z - mean_y) Q + [mean_x, 0]``: the first p columns of Q are the rotation of Procrustes, the others its
    orthogonal complement, by falling variance. Distances between new rows stay as they are; an old row is padded with
    zeros. Where q < p new rows just lie in the old space. After Biondi et al. 2024 (OCA, arXiv 2408.08793), in closed
    form and after the fact.
    """
    p, q = moments.source_dim, moments.target_dim
    rotation = moments.reversed.rotation
    if q > p:
        left = torch.linalg.svd(rotation, full_matrices=True)[0]
        rest = left[:, p:]
        order = torch.linalg.eigh(rest.T @ moments.block("yy") @ rest)[1].flip(1)
        rotation = torch.cat([rotation, rest @ order], dim=1)
    centre = torch.cat([moments.mean_x, moments.mean_x.new_zeros(rotation.shape[1] - p)])
    return Affine.between(moments.mean_y, rotation, centre).to(torch.float32)


def random_rotation(moments: Moments, seed: int) -> Affine:
    """Means onto means, and a (semi-)orthogonal matrix drawn at random."""
    p, q = moments.source_dim, moments.target_dim
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(max(p, q), min(p, q), dtype=torch.float64, generator=generator)
    basis = torch.linalg.qr(drawn)[0]
    return Affine.between(moments.mean_x, basis if p >= q else basis.T, moments.mean_y).to(torch.float32)
