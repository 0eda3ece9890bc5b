"""The terminal run in-process, on worlds of two encoders."""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from suture.cli.main import app


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def suture() -> Callable[..., Any]:
    """Run ``suture`` with these words and expect that exit code; the JSON object, or the text where there is none."""

    def run(*words: object, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
        assert "fault of suture" not in result.stderr, result.stderr
        assert result.exit_code == code, f"{words}\n{result.stdout[-500:]}\n{result.stderr}"
        if "--json" not in words:
            return result.stdout + result.stderr
        value = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"JSON holds {name}"))
        assert all(math.isfinite(v) for v in numbers(value))
        return value

    return run


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, float):
        yield value
