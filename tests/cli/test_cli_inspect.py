"""`suture inspect` of dumps: norms of any size, and what they are when there are none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Run = Callable[..., Any]


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_norms_of_any_size(suture: Run, here: Path, size: float) -> None:
    """Two blocks, of which the second is longer: what is merged is rescaled."""
    x = np.random.default_rng(0).normal(size=(9000, 5))
    x[8500:] *= 3
    np.save("x.npy", x * size)
    found = suture("inspect", "x.npy", "--json").json
    norms = np.linalg.norm(x, axis=1)
    expected = {"min": norms.min(), "mean": norms.mean(), "max": norms.max(), "std": norms.std()}
    assert {name: value / size for name, value in found["norms"].items()} == pytest.approx(expected, rel=1e-9)
    assert found["mean_norm"] / size == pytest.approx(np.linalg.norm(x.mean(0)), rel=1e-9)
    assert found["norms_reason"] is None
    assert not any(found["bad_rows"].values())


def test_norms_that_no_float_holds_are_null(suture: Run, here: Path) -> None:
    np.save("x.npy", np.full((30, 4), 1.5e308))
    found = suture("inspect", "x.npy", "--json").json
    assert (found["norms"], found["mean_norm"], found["unit"]) == (None, None, False)
    assert "longer than the largest float64" in found["norms_reason"]
    assert "longer than the largest float64" in suture("inspect", "x.npy").out
    np.save("zero.npy", np.zeros((3, 4)))
    assert suture("inspect", "zero.npy", "--json").json["norms_reason"] == "no row is good"
