"""What an estimate promised is found again on the rows that were written, or nobody is led to them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from upgrade_estimates import ASKED, measured
from upgrade_worlds import OLD, ROWS, World, encode, planned, write_parquet

from suture.aligners import Alignment, Procrustes, RefusedError, load, save_alignment
from suture.aligners.maps import Affine
from suture.stitching.gallery.estimate import Estimate
from suture.stitching.gallery.upgrade import save_upgrade
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.backfill import backfill
from suture.stitching.upgrade.plan import Plan
from suture.stitching.upgrade.switch import switch
from suture.stitching.upgrade.verify import verify

SOURCE, TARGET = "parquet:old#vector", "parquet:new#vector"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Estimate]:
    return measured(tmp_path_factory.mktemp("labelled"), labels=True)


def red(plan: Plan) -> list[str]:
    return [f"{check.name}: {check.found}" for check in verify(plan) if not check.ok]


def found(plan: Plan) -> float:
    said = next(check.found for check in verify(plan) if check.name == "estimate")
    return float(said.partition("queries ")[2].partition(",")[0])


@pytest.mark.parametrize(("strategy", "row"), [("map", "map"), ("dual", "dual-concat"), ("expanded", "expanded")])
def test_what_was_estimated_is_found_again(
    strategy: str, row: str, labelled: tuple[World, Estimate], here: Path
) -> None:
    world, estimated = labelled
    write_parquet(here / "old", world)
    plan = planned(world, SOURCE, TARGET, here / "plan.json", strategy=strategy)
    promise = next(r for r in estimated.result["strategies"] if r["name"] == row)["metrics"]["ndcg@10"]
    assert plan.estimate is not None
    assert (plan.estimate["strategy"], plan.estimate["queries"]) == (row, ASKED)
    assert {key: plan.estimate[key] for key in promise} == pytest.approx(promise)
    apply(plan)
    assert red(plan) == []
    # The same queries on the same rows, so not only within the interval. A dual is estimated with weights that each
    # query had no part in choosing, and the expanded form of a plan moves no centre.
    assert found(plan) == pytest.approx(promise["estimate"], abs=6e-4 if strategy == "map" else 0.03)


def test_overlap_with_the_pool_is_found_again_whatever_the_order_of_the_dump(here: Path) -> None:
    world, _ = measured(here, labels=False, order=np.random.default_rng(3).permutation(ROWS))
    write_parquet(here / "old", world)
    plan = planned(world, SOURCE, TARGET, here / "plan.json")
    apply(plan)
    assert plan.estimate is not None
    assert plan.estimate["metric"] == "overlap@10"
    assert red(plan) == []
    assert found(plan) == pytest.approx(plan.estimate["estimate"], abs=6e-4)


def turned(weight: Any) -> Any:
    return weight.T


def permuted(weight: Any) -> Any:
    return weight[:, torch.randperm(OLD, generator=torch.Generator().manual_seed(0))]


def of_other_models(weight: Any) -> Any:
    latent = np.random.default_rng(0).normal(size=(ROWS, 12))
    other = Procrustes().fit(encode(latent, OLD, 21), encode(latent, OLD, 22))
    return other.translate("source", "target").weight  # type: ignore[attr-defined]


def of_shifted_pairs(weight: Any) -> Any:
    latent = np.random.default_rng(0).normal(size=(ROWS, 12))
    shifted = Procrustes().fit(encode(latent, OLD, 11), np.roll(encode(latent, OLD, 12), 1, axis=0))
    return shifted.translate("source", "target").weight  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrong", [turned, permuted, of_other_models, of_shifted_pairs])
def test_a_wrong_map_passes_all_checks_of_rows_and_not_this_one(
    wrong: Callable[[Any], Any], labelled: tuple[World, Estimate], here: Path
) -> None:
    """The stamps lie: the estimate's file holds another map, and nothing by which its spaces could be told."""
    world, _ = labelled
    right = load(world.map)
    mapping = right.translate("source", "target")
    assert isinstance(mapping, Affine)
    lying = Alignment.one_sided(Affine(wrong(mapping.weight), mapping.bias))
    lying = replace(lying, provenance=right.provenance, attached=right.attached)
    save_alignment(lying, here / "lying.safetensors")
    write_parquet(here / "old", world)
    # The map remembers no space, so the plan must be told that rows are of length 1: the estimate is of cosines.
    lied_to = replace(world, map=here / "lying.safetensors")
    plan = planned(lied_to, SOURCE, TARGET, here / "plan.json", normalize="l2")
    apply(plan)
    assert [line.partition(":")[0] for line in red(plan)] == ["estimate"]
    with pytest.raises(RefusedError, match="found wrong"):
        switch(plan)


def test_a_map_exchanged_on_the_way_is_seen_too(labelled: tuple[World, Estimate], here: Path) -> None:
    """With all that is known of the spaces, planning refuses it; and verify sees rows of another map."""
    world, _ = labelled
    right = load(world.map)
    mapping = right.translate("source", "target")
    assert isinstance(mapping, Affine)
    save_alignment(replace(right, maps={**right.maps, "source": Affine(mapping.weight.T, mapping.bias)}), here / "m")
    write_parquet(here / "old", world)
    with pytest.raises(RefusedError, match="what chance finds"):
        planned(replace(world, map=here / "m"), SOURCE, TARGET, here / "plan.json")


def test_it_is_found_again_of_a_gallery_that_is_backfilled(labelled: tuple[World, Estimate], here: Path) -> None:
    world, _ = labelled
    write_parquet(here / "old", world)
    plan = planned(world, SOURCE, TARGET, here / "plan.json")
    apply(plan)
    before = found(plan)
    rows = dict(zip(world.ids.tolist(), world.new, strict=True))
    for budget in (ROWS // 4, ROWS):
        backfill(plan, lambda ids, payloads: np.stack([rows[key] for key in ids]), budget=budget)
        assert red(plan) == []
        assert found(plan) == pytest.approx(before, abs=1e-3)


def test_what_cannot_be_asked_again_is_said(labelled: tuple[World, Estimate], here: Path) -> None:
    world, estimated = labelled
    write_parquet(here / "old", world)

    def notes(name: str, changed: World = world, **options: Any) -> str:
        plan = planned(changed, SOURCE, f"parquet:{name}#vector", here / f"{name}.json", **options)
        assert plan.estimate is None
        return " ".join(plan.notes)

    save_upgrade(estimated, here / "bare.safetensors", canaries=False)
    assert not load(here / "bare.safetensors").attached
    assert "not in the map file" in notes("bare", replace(world, map=here / "bare.safetensors"))
    (here / "old" / "old-2.parquet").unlink()
    assert "the estimate is of 600 rows, this gallery has 400" in notes("smaller")
    (here / "old").rename(here / "smaller")
    write_parquet(here / "old", replace(world, ids=world.ids + 1))
    assert "0 of 120 right answers" in notes("strangers")
