"""Worst slices: drawn to the mean by what is not known of them, and never by a chance variance of nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gallery_worlds import World

from suture.stitching.gallery.slices import clusters, slices

Suture = Callable[..., Any]


def sliced(gains: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    column = [name for name, values in gains.items() for _ in values]
    return slices(torch.cat(list(gains.values())).double(), {"c": column}, None, level=0.9, seed=0)


def test_a_slice_of_equal_gains_is_not_known_exactly() -> None:
    draw = torch.Generator().manual_seed(0)
    gains = {name: 0.3 * torch.randn(60, generator=draw) + at for name, at in (("a", -0.4), ("b", 0.1), ("c", 0.3))}
    gains["equal"] = torch.zeros(12)
    found = sliced(gains)
    overall = float(torch.cat(list(gains.values())).mean())
    assert [row["slice"] for row in found] == ["a", "equal", "b", "c"]
    for row in found:
        own = row["difference"]["estimate"]
        assert min(own, overall) < row["shrunken"] < max(own, overall)
    # The smaller slice is drawn further, in proportion.
    drawn = {row["slice"]: (row["shrunken"] - overall) / (row["difference"]["estimate"] - overall) for row in found}
    assert drawn["equal"] < drawn["a"] == pytest.approx(drawn["b"])


def test_slices_that_do_not_differ_are_all_the_mean() -> None:
    draw = torch.Generator().manual_seed(1)
    found = sliced({name: torch.randn(50, generator=draw) for name in "ab"} | {"few": torch.ones(9)})
    assert [row["slice"] for row in found if row["slice"] == "few"] == []
    assert found[0]["shrunken"] == pytest.approx(found[1]["shrunken"])
    assert {row["shrunken"] for row in sliced({"a": torch.ones(10), "b": torch.ones(20)})} == {1.0}


def test_a_single_query_is_a_cell_of_its_own(tmp_path: Path, suture: Suture) -> None:
    assert clusters(torch.ones(1, 3), 0) == ["cell 1"]
    assert suture(*World(tmp_path, queries=1).words(), "--no-variants", "--json")["slices"] == []


def test_pairs_alone_show_no_texts_of_the_gallery_and_do_without_its_traffic(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    (tmp_path / "texts.txt").write_text("\n".join(f"item {i}" for i in range(world.count)))
    np.save(tmp_path / "traffic.npy", np.arange(world.count))
    words = [*world.words(labels=False, pool=False), "--no-variants", "--json"]
    found = suture(*words, "--traffic", tmp_path / "traffic.npy", "--gallery-texts", tmp_path / "texts.txt")
    assert any("not used here" in note for note in found["notes"])
    assert {curve["order"] for curve in found["backfill_curves"]} == {"residual", "norm", "random"}
    shown = [text for e in found["examples"] for text in (*e["right"], *e["stay"], *e["found"])]
    assert shown
    assert all(text.startswith("held-out pair ") for text in shown)
    assert "--query-texts go with" in suture(*words, "--query-texts", tmp_path / "texts.txt", code=2)["error"]
