"""Recognising a space by its canaries."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from suture.aligners import Affine, Alignment, Pairs, Procrustes, RefusedError, Survey
from suture.aligners.recognise import familiar_share, require_joint, require_side, require_space

DIM = 32


def rows(count: int, encoder: int = 0, seed: int = 0, unit: bool = True, noise: float = 0.3) -> Tensor:
    """Rows of an encoder: a latent of 10 dims that it sees through its own matrix, noise, and a mean of its own."""
    rng = np.random.default_rng([encoder, seed])
    matrix = np.random.default_rng(encoder).normal(size=(11, DIM))
    found: NDArray[Any] = (
        rng.normal(size=(count, 10)) @ matrix[:10] + matrix[10] + noise * rng.normal(size=(count, DIM))
    )
    found *= rng.uniform(0.5, 2, size=(count, 1))
    if unit:
        found /= np.linalg.norm(found, axis=1, keepdims=True)
    return torch.from_numpy(found.astype(np.float32))


@pytest.fixture(scope="module")
def survey() -> Survey:
    return Survey.of(Pairs.of(rows(400), rows(400, encoder=1)))


@pytest.fixture(scope="module")
def alignment(survey: Survey) -> Alignment:
    return Procrustes().fit_survey(survey)


@pytest.mark.parametrize("count", [5, 50, 3000])
def test_the_same_space_is_familiar(survey: Survey, count: int) -> None:
    share = familiar_share(survey.source, rows(count, seed=1))
    assert share == pytest.approx(1, abs=0.3 if count == 5 else 0.15)


def test_rotated_permuted_and_foreign_rows_are_not(survey: Survey) -> None:
    same = rows(300, seed=1)
    rng = np.random.default_rng(0)
    rotation = torch.from_numpy(np.linalg.qr(rng.normal(size=(DIM, DIM)))[0].astype(np.float32))
    strangers = {
        "rotated": same @ rotation,
        "permuted": same[:, torch.from_numpy(rng.permutation(DIM))],
        "reversed": same.flip(1),
        "another encoder": rows(300, encoder=2),
        "noise": torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(300, DIM)).astype(np.float32))),
    }
    for name, found in strangers.items():
        share = familiar_share(survey.source, found)
        assert share is not None
        assert share < 0.3, name


def test_without_structure_or_canaries_nothing_is_told() -> None:
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.normal(size=(400, DIM)).astype(np.float32))
    flat = Survey.of(Pairs.of(noise, noise))
    assert familiar_share(flat.source, noise[:, torch.randperm(DIM)]) is None
    bare = Survey.of(Pairs.of(rows(400), rows(400, encoder=1)), canaries=False)
    assert familiar_share(bare.source, rows(50, encoder=2)) is None
    require_space({"source": bare.source}, "source", rows(50, encoder=2), "rows")


def test_both_facts_are_named(alignment: Alignment) -> None:
    require_side(alignment, "source", rows(50, seed=2), "good")
    require_side(alignment, "target", rows(50, encoder=1, seed=2), "good")
    with pytest.raises(RefusedError, match=r"^bad: expected source rows of 32 dims, these have 31\.$"):
        require_side(alignment, "source", rows(5)[:, :31], "bad")
    with pytest.raises(RefusedError, match=r"^bad: .* of unit length, these have norms from \d\S* to \d"):
        require_side(alignment, "source", rows(50, unit=False), "bad")
    with pytest.raises(RefusedError, match="expected source rows, but these look like rows of the target space"):
        require_side(alignment, "source", rows(50, encoder=1, seed=2), "bad")
    with pytest.raises(RefusedError, match="do not look like rows of the target space"):
        require_side(alignment, "target", rows(50, encoder=5), "bad")
    require_side(alignment, "target", rows(50, encoder=5), "bad", behaviour=False)
    with pytest.raises(RefusedError, match="unit length"):
        require_side(alignment, "source", rows(50, unit=False), "bad", behaviour=False)


def test_a_dump_that_is_mostly_of_another_encoder(alignment: Alignment) -> None:
    own, strange = rows(400, seed=4), rows(400, encoder=2, seed=4)
    require_side(alignment, "source", torch.cat([own[:280], strange[:120]]), "mostly own")
    with pytest.raises(RefusedError, match="do not look like"):
        require_side(alignment, "source", torch.cat([own[:80], strange[:320]]), "mostly strange")


def test_raw_rows_refuse_unit_ones() -> None:
    raw = Procrustes().fit(rows(400, unit=False), rows(400, encoder=1))
    with pytest.raises(RefusedError, match="rows of varying length, these all have unit length"):
        require_side(raw, "source", rows(50), "bad")


def test_rounded_unit_rows_are_unit(alignment: Alignment) -> None:
    require_side(alignment, "source", rows(500, seed=3).half(), "float16")


def test_joints(alignment: Alignment) -> None:
    back = alignment.inverse()
    require_joint(alignment, back, "there and back")
    with pytest.raises(RefusedError, match="does not look like"):
        require_joint(alignment, alignment, "twice there")
    require_joint(alignment, alignment, "twice there", behaviour=False)
    narrow = Alignment.one_sided(Affine(torch.zeros(DIM - 1, 3), torch.zeros(3)))
    with pytest.raises(RefusedError, match="32 dims and the second starts from 31"):
        require_joint(alignment, narrow, "narrow", behaviour=False)
    require_joint(Alignment.one_sided(Affine(torch.zeros(3, DIM), torch.zeros(DIM))), alignment, "without canaries")
