"""What the issue asks of every method in the registry: words for each parameter, refusals, the same bits for a seed."""

from typing import Any

import pytest
import torch
from core_examples import rotation, rows

from suture.aligners import ALIGNERS, Alignment, MultiwayAligner, SutureError

QUICK: dict[str, dict[str, Any]] = {"distill": {"steps": 20}, "distill-mlp": {"steps": 20}, "mlp": {"steps": 20}}
QUICK |= {"shared-private": {"draws": 20}}
PAIRED = [name for name, kind in ALIGNERS.items() if kind.needs == "pairs"]
MANY = [name for name, kind in ALIGNERS.items() if kind.needs == "many spaces"]


def planted(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = rows(n, 6)
    return x, x @ rotation(6, seed=1) + 0.1 * rows(n, 6, seed=2) + 1


def fitted(name: str, n: int = 60) -> Alignment:
    """The method on two planted spaces of 6 dims."""
    x, y = planted(n)
    aligner = ALIGNERS[name](**QUICK.get(name, {}))
    return aligner.fit_spaces({"a": x, "b": y}) if isinstance(aligner, MultiwayAligner) else aligner.fit(x, y)


@pytest.mark.parametrize("name", ALIGNERS)
def test_every_parameter_is_explained(name: str) -> None:
    kind = ALIGNERS[name]
    said = kind.explanation()
    assert kind.summary
    assert kind.paper
    for each in kind().parameters():
        if each != "seed":
            assert f"``{each}``" in said, f"{name} does not say what {each} is"


@pytest.mark.parametrize("name", [*PAIRED, *MANY])
def test_the_same_rows_give_the_same_bits_and_the_global_generator_is_left_alone(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = fitted(name)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = fitted(name)
    for side, mapping in first.maps.items():
        for key, numbers in mapping.tensors().items():
            assert torch.equal(numbers, second.maps[side].tensors()[key])


@pytest.mark.parametrize("name", [*PAIRED, *MANY])
def test_input_that_carries_nothing_is_refused_in_words(name: str) -> None:
    """One pair; rows that are all the same; rows that do not correspond in number."""
    aligner = ALIGNERS[name](**QUICK.get(name, {}))
    x, y = planted(60)

    def fit(a: torch.Tensor, b: torch.Tensor) -> None:
        found = aligner.fit_spaces({"a": a, "b": b}) if isinstance(aligner, MultiwayAligner) else aligner.fit(a, b)
        # What goes through must at least not make anything up.
        assert bool(torch.isfinite(found.translate(*found.sides[:2])(a)).all())
        torch.testing.assert_close(found.translate(*found.sides[:2])(a), b.mean(0).expand(len(a), -1))

    with pytest.raises(SutureError, match="expected"):
        fit(x[:1], y[:1])
    with pytest.raises(SutureError, match="as many"):
        fit(x[:50], y)
    try:
        fit(torch.ones_like(x), y)
    except SutureError as error:
        assert "expected" in str(error)  # noqa: PT017 (some map to the mean instead, which is right too)
