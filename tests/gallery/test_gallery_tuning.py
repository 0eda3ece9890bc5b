"""The query vector that labels train: better where they teach something, and never flattered by its own answers."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from suture.aligners import Pairs, Procrustes
from suture.aligners.errors import RefusedError
from suture.stitching.gallery.estimate import Estimate, estimate
from suture.stitching.gallery.inputs import Gallery, Inputs, Queries
from suture.stitching.gallery.tuning import folds, together
from suture.stitching.gallery.upgrade import save_upgrade
from suture.stitching.serving import DualSearch

GALLERY, LATENT = 900, 12


def inputs(queries: int, *, random_answers: bool = False) -> Inputs:
    """Queries that resemble their answers in half of the latent dimensions alone, which labels can teach."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    matrices = normal(LATENT, 20), normal(LATENT, 28)

    def seen(latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        old, new = (normalize((latent + 0.2 * normal(*latent.shape)) @ m, dim=1) for m in matrices)
        return old, new

    latent = normal(GALLERY, LATENT)
    right = torch.randint(GALLERY, (queries,), generator=draw)
    blur = torch.tensor([0.2, 2.0]).repeat_interleave(LATENT // 2)
    asked = seen(latent[right] + blur * normal(queries, LATENT))
    old = seen(latent)[0]
    if random_answers:
        right = torch.randint(GALLERY, (queries,), generator=draw)
    gallery = Gallery(lambda: iter(old.split(256)), lambda rows: old[rows], GALLERY, old.shape[1], "the gallery")
    asking = Queries(asked[1], asked[0], None, None, "queries")
    return Inputs(
        gallery, None, asking, torch.arange(queries), right, Pairs.of(*seen(normal(300, LATENT))), "gallery", ()
    )


def measured(given: Inputs) -> Estimate:
    def quiet(total: int, what: str) -> Any:
        return nullcontext(lambda rows: None)

    return estimate(given, aligners=[Procrustes()], smaller=False, familiar=False, progress=quiet)


@pytest.fixture(scope="module")
def taught() -> Estimate:
    return measured(inputs(600))


def test_labels_teach_it(taught: Estimate) -> None:
    gain = taught.measured.judged("dual-tuned") - taught.measured.judged("dual")
    assert gain.mean() > 0.05
    assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5
    assert taught.result["strategy"] == "dual-tuned"
    assert taught.result["verdict"] == "dual"


def test_nobody_is_scored_by_what_its_own_answer_trained() -> None:
    found = measured(inputs(600, random_answers=True))
    tuned, systems = found.measured.tuned, found.systems
    assert tuned is not None
    assert systems.both is not None
    assert found.inputs.row is not None
    assert found.measured.judged("dual-tuned").mean() < 0.03  # chance is .005
    # Scored by a weight that has seen them, even random answers are found.
    torch.manual_seed(0)
    gallery = normalize(found.inputs.gallery.rows(torch.arange(GALLERY)), dim=1)
    right = found.inputs.row
    learnt = torch.linalg.lstsq(systems.both, gallery[right]).solution
    flattered = (tuned.serving(systems.both).crossed, normalize(systems.both @ learnt, dim=1))
    ranks = [((v @ gallery.T) > (v * gallery[right]).sum(1, keepdim=True)).sum(1).double().mean() for v in flattered]
    assert ranks[1] < 0.9 * GALLERY / 2


def answered(query: list[int], row: list[int], groups: list[int] | None = None) -> Inputs:
    """Queries with these right answers, and nothing else that tells them apart."""
    made = inputs(max(query) + 1)
    keys = None if groups is None else torch.tensor(groups)
    return replace(made, queries=replace(made.queries, groups=keys), query=torch.tensor(query), row=torch.tensor(row))


def test_no_answer_and_no_group_is_in_two_folds(taught: Estimate) -> None:
    fold = folds(taught.inputs, 0)
    assert fold.unique().tolist() == [0, 1, 2, 3, 4]
    assert taught.inputs.row is not None
    for row in taught.inputs.row.unique():
        assert len(fold[taught.inputs.row == row].unique()) == 1
    # All have row 99 right, though each has a lower one of its own.
    query, row = torch.arange(40).repeat_interleave(2), torch.stack([torch.arange(40), torch.full((40,), 99)], 1)
    assert len(folds(answered(query.tolist(), row.flatten().tolist()), 0).unique()) == 1
    # A chain: 0 and 1 share an answer, 1 and 2 a group; 3 is alone.
    parts = together(answered([0, 1, 2, 3], [7, 7, 8, 9], [0, 1, 1, 2]))
    assert parts[0] == parts[1] == parts[2] != parts[3]


@pytest.mark.parametrize(("groups", "found"), [(4, "there are 4"), (7, "the largest with 3")])
def test_queries_that_cannot_be_held_apart_train_nothing(groups: int, found: str) -> None:
    given = inputs(600)
    keys = torch.arange(600) % groups
    if groups == 7:
        keys = torch.where(torch.arange(600) < 320, 0, keys)
    row = torch.arange(600) % groups if groups == 4 else torch.arange(600)
    out = measured(replace(given, queries=replace(given.queries, groups=keys), row=row))
    assert out.measured.tuned is None
    reason = next(r for r in out.result["strategies"] if r["name"] == "dual-tuned")["reason"]
    assert "share no answer and no group" in reason
    assert found in reason


def test_few_labels_train_nothing() -> None:
    found = measured(inputs(300))
    assert found.measured.tuned is None
    row = next(row for row in found.result["strategies"] if row["name"] == "dual-tuned")
    assert row["metrics"] is None
    assert "at least 500 labelled queries" in row["reason"]


def test_it_is_served_as_it_was_trained(taught: Estimate, tmp_path: Path) -> None:
    tuned, systems = taught.measured.tuned, taught.systems
    assert tuned is not None
    assert systems.both is not None
    save_upgrade(taught, tmp_path / "upgrade.safetensors")
    index = taught.inputs.gallery.rows(torch.arange(GALLERY)).numpy()
    dual = DualSearch.load(tmp_path / "upgrade.safetensors", index, tuned=True)
    asked = taught.inputs.queries
    assert asked.old is not None
    vectors = dual.vector(3 * asked.new.numpy(), asked.old.numpy())
    np.testing.assert_allclose(vectors, tuned.serving(systems.both).crossed.numpy(), atol=1e-5)
    for row in taught.result["thresholds"]:
        scores, _ = dual.search(asked.new.numpy(), asked.old.numpy())
        share = float((scores >= row["new"]["dual-tuned"]["estimate"]).mean())
        assert share == pytest.approx(row["passes"], abs=0.05)  # new queries score as those that trained nothing
    assert not np.allclose(
        vectors, DualSearch.load(tmp_path / "upgrade.safetensors", index).vector(asked.new, asked.old)
    )
    with pytest.raises(RefusedError, match="concat or tuned"):
        DualSearch.load(tmp_path / "upgrade.safetensors", index, concat=True, tuned=True)
    save_upgrade(measured(inputs(300)), tmp_path / "few.safetensors")
    with pytest.raises(RefusedError, match="trained nothing"):
        DualSearch.load(tmp_path / "few.safetensors", index, tuned=True)
