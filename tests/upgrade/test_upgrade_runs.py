"""Runs that meet each other, a full disk, and a store that goes away."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from typer.testing import CliRunner
from upgrade_stores import faiss_flat, postgres
from upgrade_worlds import World, planned, run_shard, tree, write_parquet

from suture.aligners.errors import IncompleteError, RefusedError
from suture.cli.gallery import options
from suture.cli.main import app
from suture.stitching.dumps.extras import need
from suture.stitching.stores import open_store
from suture.stitching.upgrade import lock
from suture.stitching.upgrade.apply import apply, rows_left
from suture.stitching.upgrade.events import lost
from suture.stitching.upgrade.lock import locked
from suture.stitching.upgrade.plan import Plan
from suture.stitching.upgrade.status import status
from suture.stitching.upgrade.verify import verify


def red(plan: Plan) -> list[str]:
    return [f"{check.name}: {check.found}" for check in verify(plan) if not check.ok]


@pytest.mark.parametrize("scheme", ["parquet", "faiss"])
def test_shards_of_one_plan_at_once(scheme: str, world: World, here: Path, child: Callable[..., int]) -> None:
    """Several processes make the place ready, write, and finish at the same time; one index is built, once."""
    if scheme == "parquet":
        write_parquet(here / "old", world)
    else:
        faiss_flat(world, here)
    end = "#vector" if scheme == "parquet" else ".faiss"

    def plan_to(name: str) -> Plan:
        return planned(world, f"{scheme}:old{end}", f"{scheme}:{name}{end}", here / f"{name}.json", fragment_rows=50)

    whole, plan = plan_to("whole"), plan_to("new")
    apply(whole)
    with ThreadPoolExecutor(3) as pool:
        codes = list(pool.map(lambda i: child(run_shard, plan.path, i, 3), range(3)))
    assert codes == [0, 0, 0]
    assert status(plan)["applied"]
    assert red(plan) == []
    made = "part-*" if scheme == "parquet" else "new.faiss"
    files = tree(here / "new", made) if scheme == "parquet" else tree(here, made)
    expected = tree(here / "whole", made) if scheme == "parquet" else tree(here, "whole.faiss")
    assert list(files.values()) == list(expected.values())
    assert files


def test_a_lock_of_another_machine_lives_by_its_heartbeat(world: World, here: Path) -> None:
    write_parquet(here / "old", world)
    plan = planned(world, "parquet:old#vector", "parquet:new#vector", here / "plan.json")
    theirs = plan.state / "locks" / "whole.lock"
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text(json.dumps({"host": "elsewhere", "pid": 7, "began": "1"}))
    with pytest.raises(RefusedError, match="process 7 on elsewhere"):
        apply(plan)
    assert [owner["host"] for owner in status(plan)["running"]] == ["elsewhere"]
    assert status(plan)["next"].startswith("wait")
    silent = time.time() - 2 * lock.STALE
    os.utime(theirs, (silent, silent))
    assert status(plan)["running"] == []
    apply(plan)
    assert red(plan) == []


def test_the_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with locked(tmp_path, "whole"):
        path = tmp_path / "whole.lock"
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 2
    assert not path.exists()


@pytest.fixture
def small(here: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    folder = here / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}; a limit on file sizes is tested all the same")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("plan_there", [False, True], ids=["gallery", "gallery and plan"])
def test_a_small_disk_fills_up(plan_there: bool, world: World, here: Path, small: Path) -> None:
    write_parquet(here / "old", world)
    before = tree(here / "old")
    whole = planned(world, "parquet:old#vector", "parquet:whole#vector", here / "whole.json", fragment_rows=100)
    apply(whole)
    plan = planned(
        world,
        "parquet:old#vector",
        f"parquet:{small}/new#vector",
        (small if plan_there else here) / "plan.json",
        fragment_rows=100,
    )
    free = os.statvfs(small)
    filler = small / "filler"
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize - 48 * 1024))
    with pytest.raises(IncompleteError, match="the disk is full") as caught:
        apply(plan)
    assert int(str(caught.value).split("About ")[1].split()[0]) > 30_000
    visible, expected = tree(small / "new", "part-*"), tree(here / "whole", "part-*")
    assert len(visible) < len(expected)
    assert visible.items() <= expected.items()  # whole parts, or none
    assert not list((small / "new").glob("*.tmp"))
    filler.unlink()
    apply(plan)
    assert red(plan) == []
    assert tree(small / "new", "part-*") == expected
    assert tree(here / "old") == before


def test_a_store_that_goes_away_midway(world: World, here: Path, database: str) -> None:
    case = postgres(world, here, database)
    plan = planned(world, case.source, case.target, here / "plan.json")

    def cut(step: str, facts: dict[str, Any]) -> None:
        if step == "recorded":
            with psycopg.connect(database, autocommit=True) as db:
                db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    with pytest.raises(IncompleteError, match="a store did not answer"):
        apply(plan, tell=cut)
    assert 0 < status(plan)["fragments_done"] < len(plan.fragments)
    assert apply(plan)["left"] == 0
    assert red(plan) == []
    with open_store(case.target) as new:
        assert new.count() == case.rows


def test_a_pandas_that_loaded_half_way_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine short of memory, where scikit-learn passed over the first failure."""
    (here / "pandas.py").write_text("raise AttributeError('partially initialized module')")
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    (here / "db" / "docs.lance").mkdir(parents=True)
    with pytest.raises(IncompleteError, match="did not load whole"):
        open_store("lancedb:db#docs.vector").exists()


def test_what_stands_for_a_store_that_is_lost() -> None:
    httpx, qdrant = need("httpx", "qdrant"), need("qdrant_client", "qdrant")
    with pytest.raises(Exception, match="refused") as caught:
        qdrant.QdrantClient(url="http://127.0.0.1:1", timeout=1, check_compatibility=False).get_aliases()
    assert lost(caught.value)
    assert lost(httpx.ReadTimeout("slow"))
    assert lost(ConnectionResetError())
    assert not lost(ValueError("expected 3 rows"))
    assert not lost(np.linalg.LinAlgError())


def test_a_log_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "SPEAK", 0.0)
    with options.progress(100, "mapping rows", as_json=False, safe="This may be stopped.") as tell:
        tell("recorded", {"fragment": 0, "rows": 40})
    said = capsys.readouterr().err
    assert "This may be stopped." in said
    assert "mapping rows: 40 of 100, " in said
    assert "rows/s, about " in said


def test_a_run_that_goes_on_counts_what_is_left(world: World, here: Path) -> None:
    write_parquet(here / "old", world)
    plan = planned(world, "parquet:old#vector", "parquet:new#vector", here / "plan.json", fragment_rows=100)
    assert (rows_left(plan), rows_left(plan, (0, 2)), rows_left(plan, (1, 2))) == (600, 300, 300)
    apply(plan, max_rows=200)
    assert (rows_left(plan), rows_left(plan, (1, 2))) == (400, 200)
    assert [event for event in said_by(plan) if event["event"] == "recorded"][-1]["done"] == 400


def said_by(plan: Plan) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, ["gallery", "apply", str(plan.path), "--json"])
    assert done.exit_code == 0
    return [json.loads(line) for line in done.stderr.splitlines()]
