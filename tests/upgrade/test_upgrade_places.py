"""Where galleries lie: apart from each other, looked at before anything is planned, and not made by who looks."""

import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
from typer.testing import CliRunner
from upgrade_stores import CASES, Case
from upgrade_worlds import World, planned, tree, write_parquet

from suture.aligners import RefusedError, UsageError
from suture.aligners.errors import IncompleteError
from suture.cli.main import app
from suture.stitching.stores import Address, open_store
from suture.stitching.stores.bridge import BridgeStore
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.verify import verify

SOURCE, TARGET = "parquet:old#vector", "parquet:new#vector"


def red(plan: Any) -> list[str]:
    return [check.name for check in verify(plan) if not check.ok]


def refused(here: Path, world: World, source: str, target: str, match: str) -> None:
    """Planning is refused, and nothing is written."""
    before = tree(here)
    with pytest.raises(RefusedError, match=match):
        planned(world, source, target, here / "plan.json")
    assert tree(here) == before


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ("parquet:old/sub", "lies in"),
        ("parquet:./elsewhere/../old/sub/deeper", "lies in"),
        ("parquet:link/sub", "lies in"),
        ("parquet:.", "lies in"),
        ("parquet:link", "only copy"),
        ("parquet:./old/", "only copy"),
        ("npy:old/../link", "only copy|payload"),
        ("parquet:foreign", "holds files already"),
        ("parquet:old/old-0.parquet", "lies in"),
    ],
)
def test_the_new_gallery_lies_apart_from_the_old_one(target: str, match: str, world: World, here: Path) -> None:
    write_parquet(here / "old", world)
    (here / "link").symlink_to("old")
    (here / "elsewhere").mkdir()
    (here / "foreign").mkdir()
    (here / "foreign" / "notes.txt").write_text("mine")
    refused(here, world, SOURCE, target, match)
    assert not (here / "old" / "sub").exists()


def test_an_index_lies_apart_from_the_old_one(world: World, here: Path) -> None:
    case = CASES["faiss"](world, here)
    (here / "link.faiss").symlink_to("old.faiss")
    (here / "foreign.faiss").write_bytes(b"mine")
    refused(here, world, case.source, "faiss:./old.faiss", "only copy")
    refused(here, world, case.source, "faiss:link.faiss", "only copy")
    refused(here, world, case.source, "faiss:foreign.faiss", "there is one")
    refused(here, world, "faiss:link.faiss", "npy:.", "lies in")
    with pytest.raises(RefusedError, match="only copy"):
        BridgeStore(Address.parse("faiss:link.faiss")).apart(open_store(case.source))


def test_a_database_by_another_path_is_the_same(world: World, here: Path) -> None:
    case = CASES["sqlite-vec"](world, here)
    (here / "link.sqlite").symlink_to("db.sqlite")
    refused(here, world, case.source, "sqlite-vec:link.sqlite#docs.vector", "only copy")
    plan = planned(world, case.source, "sqlite-vec:link.sqlite#docs_v2.vector", here / "plan.json")
    apply(plan)
    assert red(plan) == []
    CASES["qdrant"](world, here)
    (here / "link").symlink_to("db")
    for target, match in (("link/docs", "only copy"), ("./db/docs", "only copy"), ("db/docs/x", "lies in")):
        with pytest.raises(RefusedError, match=match):
            planned(world, "qdrant:db/docs", f"qdrant:{target}", here / "other.json")


def inspected(uri: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["gallery", "inspect", uri])
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    "absent",
    [
        "parquet:no/where",
        "npy:no.npy",
        "h5:no.h5#x",
        "faiss:no.faiss",
        "usearch:no.usearch",
        "sqlite-vec:no.sqlite#docs.vector",
        "qdrant:no/docs",
        "chroma:no/docs",
        "milvus:no.db/docs",
        "lancedb:no#docs.vector",
        "qdrant:full/docs",
        "chroma:full/docs",
        "milvus:full/docs",
        "lancedb:full#docs.vector",
        "sqlite-vec:full/old-0.parquet#docs.vector",
    ],
)
def test_to_inspect_makes_nothing(absent: str, world: World, here: Path) -> None:
    write_parquet(here / "full", world)
    before = sorted(here.rglob("*"))
    code, said = inspected(absent)
    assert code == 1
    assert "expected" in said
    assert "fault of suture" not in said
    assert sorted(here.rglob("*")) == before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["chroma", "lancedb", "milvus", "qdrant", "sqlite-vec"])
def test_what_is_not_in_a_database_is_said(name: str, world: World, here: Path) -> None:
    case: Case = CASES[name](world, here)
    place = case.source.replace("docs", "none")
    columns = [case.source.replace(".vector", ".none")] if name in ("lancedb", "sqlite-vec") else []
    for uri in (place, *columns):
        code, said = inspected(uri)
        assert (code, "fault of suture" in said) == (1, False), said
        assert "expected" in said


def begun_and_gone(world: World, here: Path, source: str, target: str, gone: str) -> None:
    """Before, during and after: exit 6, nothing made in its place, and all well when it is back."""
    plan = planned(world, source, target, here / "plan.json")
    shutil.move(here / gone, here / "away")

    def command(name: str) -> None:
        result = CliRunner().invoke(app, ["gallery", name, "plan.json"])
        assert result.exit_code == 6, result.stderr
        assert "Put it back" in result.stderr
        assert not (here / gone).exists()

    command("apply")
    shutil.move(here / "away", here / gone)
    apply(plan, max_rows=100)
    shutil.move(here / gone, here / "away")
    command("apply")
    command("verify")
    command("switch")
    shutil.move(here / "away", here / gone)
    apply(plan)
    assert red(plan) == []


def test_a_gallery_of_files_that_goes_away_is_waited_for(world: World, here: Path) -> None:
    write_parquet(here / "old", world)
    begun_and_gone(world, here, SOURCE, TARGET, "old")


@pytest.mark.parametrize(("name", "gone"), [("faiss", "old.faiss"), ("sqlite-vec", "db.sqlite")])
def test_a_file_that_goes_away_is_waited_for(name: str, gone: str, world: World, here: Path) -> None:
    case = CASES[name](world, here)
    begun_and_gone(world, here, case.source, case.target, gone)


def test_a_gallery_that_goes_in_the_middle_of_a_run_is_waited_for(world: World, here: Path) -> None:
    write_parquet(here / "old", world)
    plan = planned(world, SOURCE, TARGET, here / "plan.json")

    def lose(step: str, facts: dict[str, Any]) -> None:
        if step == "recorded" and (here / "old").exists():
            shutil.move(here / "old", here / "away")

    with pytest.raises(IncompleteError, match="Put it back"):
        apply(plan, tell=lose)
    shutil.move(here / "away", here / "old")
    assert apply(plan)["left"] == 0
    assert red(plan) == []


def test_h5_is_written_under_the_names_of_its_address(world: World, here: Path) -> None:
    with h5py.File(here / "old.h5", "w") as file:
        file["vector"], file["key"] = world.old, world.ids
    for number, (names, vectors, ids) in enumerate(
        (("#vector?id=key", "vector", "key"), ("#deep/vector", "deep/vector", "ids"), ("", "embeddings", "ids"))
    ):
        plan = planned(world, "h5:old.h5#vector?id=key", f"h5:new{number}{names}", here / f"{number}.json")
        apply(plan)
        assert red(plan) == []
        with h5py.File(here / f"new{number}" / "part-000000.h5") as file:
            assert file[vectors].shape[1] == plan.dim
            assert file[ids][:].tolist() == world.ids[: len(file[ids])].tolist()
    for odd in ("h5:x#a?id=a", "h5:x#ids", "h5:x?ids=ids.npy", "npy:x#vector", "npy:x?id=key", "npy:x?ids=ids.npy"):
        with pytest.raises(UsageError):
            planned(world, "h5:old.h5#vector?id=key", odd, here / "odd.json")
