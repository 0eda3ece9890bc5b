"""Worlds of two encoders as files, maps fitted on them once, and the terminal run in-process."""

import gc
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from suture.cli.main import app

Rows = NDArray[np.float32]
LATENT = 12


def unit(rows: Rows) -> Rows:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def encode(latent: NDArray[np.float64], dim: int, seed: int, noise: float = 0.3) -> Rows:
    """Unit rows of the encoder ``seed``: the latent seen through its own matrix, and noise."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(LATENT, dim))
    spoilt = noise * LATENT**0.5 * np.random.default_rng([seed, len(latent)]).normal(size=(len(latent), dim))
    return unit(latent @ matrix + spoilt)


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Stdout as the one finite JSON object that it must be."""
        value = json.loads(self.out, parse_constant=lambda name: pytest.fail(f"JSON holds {name}"))
        assert isinstance(value, dict)
        assert self.out.count("\n") == 1
        assert all(math.isfinite(number) for number in numbers(value))
        return value


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, float):
        yield value


def run(*words: object, code: int = 0) -> Done:
    """Run `suture` with these words and expect that exit code; a traceback is never right."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.stderr
    assert "fault of suture" not in result.stderr, result.stderr
    assert result.exit_code == code, f"{words}\n{result.stdout}\n{result.stderr}"
    assert code == 0 or result.stderr.strip()
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def suture() -> Callable[..., Done]:
    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; temporary files go to another one, which must be empty in the end."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def settled(ab: Path) -> None:
    """What is loaded by now stays: collecting garbage went through all of it, a tenth of a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def fails(here: Path, settled: None) -> Callable[..., str]:
    """Run a command that must fail with ``code`` and leave no trace; its message."""

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(here.parent.rglob("*")) if path.is_file()}

    def check(code: int, *words: object) -> str:
        before = contents()
        done = run(*words, code=code)
        gc.collect()  # temporary files go with the objects that need them
        assert contents() == before, "a failed command changed files"
        assert done.out == ""
        return done.err

    return check


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of dumps: encoders a (24 dims), b (32) and c (24), 320 fit pairs, 500 gallery rows, 60 queries.

    ``right.npy``: the one right gallery row of each query. ``ids.npy``: ids of the fit rows, ``gids.npy`` of the
    gallery's.
    """
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    right = rng.permutation(500)[:60]
    gallery = rng.normal(size=(500, LATENT))
    latents = {
        "fit": rng.normal(size=(320, LATENT)),
        "gallery": gallery,
        "query": gallery[right] + 0.4 * rng.normal(size=(60, LATENT)),
    }
    for part, latent in latents.items():
        for name, dim, seed in (("a", 24, 11), ("b", 32, 12), ("c", 24, 13)):
            np.save(folder / f"{part}.{name}.npy", encode(latent, dim, seed))
    np.save(folder / "right.npy", right)
    np.save(folder / "ids.npy", np.array([f"item {i}" for i in range(320)]))
    np.save(folder / "gids.npy", np.arange(500) * 7 + 1000)
    return folder


@pytest.fixture(scope="session")
def auto(world: Path) -> dict[str, Any]:
    """What `suture fit` a -> b said; the map is ``world/ab.safetensors``."""
    return run("fit", world / "fit.a.npy", world / "fit.b.npy", "-o", world / "ab.safetensors", "--json").json


@pytest.fixture(scope="session")
def ab(world: Path, auto: dict[str, Any]) -> Path:
    return world / "ab.safetensors"


@pytest.fixture(scope="session")
def ac(world: Path) -> Path:
    """A rotation between two spaces of 24 dims."""
    path = world / "ac.safetensors"
    run("fit", world / "fit.a.npy", world / "fit.c.npy", "-o", path, "--method", "procrustes")
    return path


@pytest.fixture
def rows(world: Path) -> Callable[[str], NDArray[Any]]:
    """The array of a file of the world."""
    return lambda name: np.load(world / f"{name}.npy")
