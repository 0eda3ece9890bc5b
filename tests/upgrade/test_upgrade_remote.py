"""Galleries in object stores: the same upgrade on a real S3 server, and in fsspec's memory."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from upgrade_worlds import ROWS, World, planned, run, run_and_die, run_and_die_after, tree, write_parquet

from suture.aligners import RefusedError, SutureError, UsageError
from suture.stitching.stores import open_store
from suture.stitching.stores.remote import place, put_first
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.plan import Plan
from suture.stitching.upgrade.switch import retire, rollback, switch
from suture.stitching.upgrade.verify import verify

KILLED = -9
SECRETS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3 server of its own process, and the environment by which clients find it."""
    import subprocess
    import sys
    from urllib.request import urlopen

    code = (
        "import time; from moto.server import ThreadedMotoServer as Server; s = Server('127.0.0.1', 0, verbose=False); "
        "s.start(); print(s.get_host_and_port()[1], flush=True); time.sleep(3600)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    quiet = {"stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **quiet) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            url = f"http://127.0.0.1:{port}"
            urlopen(url, timeout=20).close()
            with pytest.MonkeyPatch.context() as patch:
                for name, value in {**SECRETS, "AWS_ENDPOINT_URL": url}.items():
                    patch.setenv(name, value)
                place("s3://galleries").fs.mkdir("galleries")  # type: ignore[attr-defined]
                yield "s3://galleries"
        finally:
            process.kill()


@pytest.fixture(params=["s3", "memory"])
def away(request: pytest.FixtureRequest, world: World, here: Path) -> str:
    """A folder of an object store with the old gallery in it."""
    root = "memory://galleries" if request.param == "memory" else request.getfixturevalue("server")
    folder = f"{root}/{here.name}"
    write_parquet(here / "old", world)
    for path in (here / "old").iterdir():
        (place(folder) / "old" / path.name).write_bytes(path.read_bytes())
    return folder


def planned_there(world: World, away: str, here: Path, name: str = "new") -> Plan:
    return planned(world, f"parquet:{away}/old#vector", f"parquet:{away}/{name}#vector", here / f"{name}.json")


def objects(folder: str, name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (place(folder) / name).iterdir() if path.name[0] != "_"}


def red(plan: Plan) -> list[str]:
    return [f"{check.name}: {check.found}" for check in verify(plan) if not check.ok]


def test_the_whole_journey(away: str, world: World, here: Path) -> None:
    before = objects(away, "old")
    plan = planned_there(world, away, here)
    apply(plan)
    assert red(plan) == []
    local = planned(world, "parquet:old#vector", "parquet:local#vector", here / "local.json")
    apply(local)
    assert objects(away, "new") == {path.name: path.read_bytes() for path in (here / "local").glob("part-*")}
    assert apply(plan)["rows"] == 0
    said = switch(plan)
    assert open_store(f"parquet:{away}#vector").facts().rows == ROWS  # by the pointer
    assert said["open"] == f"parquet:{away}"
    rollback(plan)
    with pytest.raises(SutureError):
        open_store(f"parquet:{away}#vector").facts()
    switch(plan)
    assert len(before) == 3
    assert objects(away, "old") == before
    retire(plan, f"parquet:{away}/old#vector")
    assert not place(f"{away}/old").exists()
    assert not (here / "new").exists()


def test_objects_that_change_go_or_are_others(away: str, world: World, here: Path) -> None:
    plan = planned_there(world, away, here)
    apply(plan, max_rows=100)
    part = place(away) / "old" / "old-2.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole)  # the same bytes, put again
    if "memory:" in away:  # S3 calls equal bytes by one name, which is right
        with pytest.raises(RefusedError, match="changed after the plan"):
            apply(plan)
    part.unlink()
    with pytest.raises(RefusedError, match="is gone"):
        apply(plan)
    part.write_bytes(whole[:-1] + b"x")
    with pytest.raises(SutureError, match="cannot be read"):
        apply(plan)
    part.write_bytes((place(away) / "old" / "old-1.parquet").read_bytes())
    with pytest.raises(RefusedError, match="changed after the plan"):
        apply(plan)
    with pytest.raises(RefusedError, match="belongs to another plan"):
        planned(world, "parquet:old#vector", f"parquet:{away}/new#vector", here / "other.json", model="another")
    with pytest.raises(RefusedError, match="lies in"):
        planned(world, f"parquet:{away}/old#vector", f"parquet:{away}/./old/sub#vector", here / "in.json")


def test_of_two_that_claim_a_place_one_is_late(away: str) -> None:
    claim = place(away) / "new" / "_gallery.json"
    assert put_first(claim, b"first")
    assert not put_first(claim, b"second")
    assert claim.read_bytes() == b"first"


def test_killed_it_goes_on_to_the_same_objects(
    server: str, world: World, here: Path, child: Callable[..., int]
) -> None:
    folder = f"{server}/{here.name}"
    write_parquet(here / "old", world)
    before = tree(here / "old")
    local = planned(world, "parquet:old#vector", "parquet:local#vector", here / "local.json")
    apply(local)
    plan = planned(world, "parquet:old#vector", f"parquet:{folder}/new#vector", here / "plan.json")
    codes = [child(run_with, dict(os.environ), plan.path, at) for at in (0, 1, 2, 3)]
    assert codes == [KILLED] * 4
    child(run_with, dict(os.environ), plan.path, 0.15)
    run(plan.path)
    assert red(plan) == []
    assert objects(folder, "new") == {path.name: path.read_bytes() for path in (here / "local").glob("part-*")}
    assert not [path for path in (place(folder) / "new").iterdir() if "tmp" in path.name]
    assert tree(here / "old") == before


def run_with(environment: dict[str, str], plan: Path, at: float) -> None:
    """Children are forked from a server that knows nothing of this one: die at a step, or after a part of a second."""
    os.environ.update(environment)
    (run_and_die if isinstance(at, int) else run_and_die_after)(plan, "apply", at)  # type: ignore[operator]


def test_what_fsspec_does_not_know(world: World, here: Path) -> None:
    with pytest.raises(UsageError, match="no such protocol"):
        open_store("parquet:papyrus://old")
    with pytest.raises(SutureError, match="install"):
        open_store("parquet:gs://bucket/old")  # its package is in no set-up
    with pytest.raises(UsageError, match="local or mounted disk"):
        open_store("npy:s3://bucket/old")
