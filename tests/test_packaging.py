"""What pyproject.toml and constraints.txt promise: every extra can be imported, every version of a set-up is pinned."""

import importlib
import re
import tomllib
from importlib.metadata import distribution, entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]

# What a user gets from an extra, by the names that code imports.
MODULES = {
    "arrow": ["pyarrow", "pyarrow.parquet", "pyarrow.ipc"],
    "chroma": ["chromadb"],
    "dask": ["distributed"],
    "faiss": ["faiss"],
    "fsspec": ["upath", "pyarrow"],
    "h5": ["h5py"],
    "lancedb": ["lancedb", "pyarrow"],
    "milvus": ["pymilvus", "milvus_lite"],
    "onnx": ["onnx", "onnx.compose", "onnx.version_converter", "onnxruntime"],
    "postgres": ["psycopg", "psycopg_binary"],
    "qdrant": ["qdrant_client"],
    "report": ["plotly", "plotly.graph_objects", "plotly.io"],
    "sqlite": ["apsw", "sqlite_vec"],
    "usearch": ["usearch.index"],
}
# Extras for working on suture, or made of other extras.
META = {"all", "bench", "dev"}


def pins() -> list[tuple[str, str]]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "constraints.txt has one `name==version` a line, nothing else"
    return [(name, version) for name, version in pairs]


def wanted() -> list[Requirement]:
    """Everything that pyproject.toml asks for, in all extras and for the build, suture's own extras aside."""
    lists = [PYPROJECT["project"]["dependencies"], PYPROJECT["build-system"]["requires"], *EXTRAS.values()]
    requirements = [Requirement(text) for texts in lists for text in texts]
    return [requirement for requirement in requirements if requirement.name != "suture"]


def closure(requirements: list[Requirement]) -> set[str]:
    """The distributions that the requirements install here: theirs, their extras', and so on."""
    seen: set[tuple[str, str]] = set()
    pending = [(requirement, extra) for requirement in requirements for extra in {"", *requirement.extras}]
    while pending:
        requirement, extra = pending.pop()
        key = (canonicalize_name(requirement.name), extra)
        if key in seen:
            continue
        seen.add(key)
        for inner in map(Requirement, distribution(requirement.name).requires or []):
            if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                pending.extend((inner, name) for name in {"", *inner.extras})
    return {name for name, _ in seen}


def test_every_extra_has_its_modules_named() -> None:
    assert set(EXTRAS) == set(MODULES) | META


@pytest.mark.parametrize("extra", sorted(MODULES))
def test_extra_imports(extra: str) -> None:
    for module in MODULES[extra]:
        importlib.import_module(module)


def test_all_is_every_extra_for_users() -> None:
    inside = re.fullmatch(r"suture\[(.+)\]", EXTRAS["all"][0])
    assert inside is not None
    assert set(inside[1].split(",")) == set(MODULES)


def test_every_requirement_is_pinned_within_its_range() -> None:
    pinned = dict(pins())
    for requirement in wanted():
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} has no pin in constraints.txt"
        assert requirement.specifier.contains(Version(version)), f"the pin {version} is outside {requirement}"


def test_pins_are_sorted_and_unique() -> None:
    names = [name for name, _ in pins()]
    assert names == sorted(set(names))
    assert names == [canonicalize_name(name) for name in names]


def test_pins_are_what_a_set_up_installs() -> None:
    """No version is left to the day, and none is pinned that nobody needs."""
    needed = closure([*wanted(), Requirement("pip")])
    assert sorted(name for name, _ in pins()) == sorted(needed)


def test_command_is_declared() -> None:
    (command,) = entry_points(group="console_scripts", name="suture")
    assert command.value == PYPROJECT["project"]["scripts"]["suture"]
