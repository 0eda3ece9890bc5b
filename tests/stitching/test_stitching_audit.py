"""The audit of pairings on worlds where the wrong pairs were planted."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from suture.aligners import Pairs, Survey
from suture.aligners.audit import Audit, audit

PAIRS = 600


def world(noise: float, pairs: int = PAIRS, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two views (24 and 32 dims) of a latent of 12 dims, with ``noise`` of each view's own."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(pairs, 12))
    x, y = (latent @ rng.normal(size=(12, dim)) + noise * 12**0.5 * rng.normal(size=(pairs, dim)) for dim in (24, 32))
    return x.astype(np.float32), y.astype(np.float32)


def planted(share: float, noise: float = 0.3, seed: int = 0) -> tuple[Audit, set[int]]:
    """The audit where that share of the targets was handed round, and the keys of those pairs."""
    x, y = world(noise, seed=seed)
    rng = np.random.default_rng(seed + 100)
    wrong = rng.permutation(PAIRS)[: round(share * PAIRS)]
    y[wrong] = y[np.roll(wrong, 1)]
    return audit(Survey.of(Pairs.of(x, y, np.arange(PAIRS)))), set(wrong.tolist())


@pytest.mark.parametrize("seed", range(3))
def test_clean_pairs(seed: int) -> None:
    found, _ = planted(0, seed=seed)
    assert found.verdict == "clean"
    assert found.auc is not None
    assert found.auc > 0.99


@pytest.mark.parametrize("pairs", [200, 250, 350, 500])
@pytest.mark.parametrize("noise", [0.2, 0.5, 0.8])
def test_small_clean_data_are_never_refused(pairs: int, noise: float) -> None:
    for seed in range(3):
        found = audit(Survey.of(Pairs.of(*world(noise, pairs, seed))))
        assert found.verdict in ("clean", "unknown"), (pairs, noise, seed, found.as_json())


@pytest.mark.parametrize("share", [0.03, 0.1, 0.3])
def test_wrong_pairs_are_found_and_named(share: float) -> None:
    found, wrong = planted(share)
    assert found.verdict == "mispaired"
    named = set(found.suspects.tolist())
    assert len(named & wrong) > 0.8 * len(wrong)
    assert len(named - wrong) < 0.02 * PAIRS
    assert found.separation is not None
    assert found.separation > 0.98
    assert found.suspect_share == pytest.approx(share, abs=0.03)


def test_half_of_the_pairs_is_wrong() -> None:
    found, wrong = planted(0.5)
    assert found.verdict == "mispaired"
    assert len(set(found.suspects.tolist()) & wrong) > 0.8 * len(wrong)


@pytest.mark.parametrize("seed", range(3))
def test_all_pairs_are_wrong(seed: int) -> None:
    found, _ = planted(1, seed=seed)
    assert found.verdict == "unrelated"
    assert found.auc == pytest.approx(0.5, abs=0.05)


def test_a_weak_relation_cannot_be_told() -> None:
    found, _ = planted(0, noise=2)
    assert found.verdict == "unknown"
    assert found.auc is not None
    assert 0.6 < found.auc < 0.98
    # Nor can wrong pairs be told from right ones there: nobody is blamed.
    assert planted(0.1, noise=2)[0].verdict == "unknown"


@pytest.mark.parametrize("pairs", [2, 19, 100, 199])
def test_few_pairs_cannot_be_told(pairs: int) -> None:
    found = audit(Survey.of(Pairs.of(*world(0.3, pairs))))
    assert (found.verdict, found.auc, len(found.suspects)) == ("unknown", None, 0)
    assert found.as_json()["rows"] == pairs
