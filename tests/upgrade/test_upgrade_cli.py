"""The commands of an upgrade as people and machines call them: keys as documented, exit codes, and no secrets said."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner
from upgrade_worlds import World, write_parquet

from suture.cli.main import app

DOCS = Path(__file__).parents[2] / "docs" / "upgrade.md"
SECRET = "the patient said"
MODEL = """
import numpy as np
rows = dict(zip(np.load("ids.npy").tolist(), np.load("new.npy")))
def embed(ids, payloads):
    return np.stack([rows[key] for key in ids])
"""


def documented(command: str) -> set[str]:
    """The keys that docs/upgrade.md promises."""
    line = next(row for row in DOCS.read_text().splitlines() if row.startswith(f"| `{command}` | `"))
    outer = re.sub(r"\\[\\{.*?\\}\\]", "", line.split("|")[2])
    return {key.split(":")[0] for key in re.findall(r"`([^`]+)`", outer)}


@pytest.fixture
def suture(here: Path) -> Callable[..., Any]:
    said: list[str] = []

    def run(*words: object, code: int = 0) -> Any:
        result = CliRunner().invoke(app, ["gallery", *map(str, words), "--json"])
        said.append(result.stdout + result.stderr)
        (here / "said.txt").write_text("".join(said))
        assert result.exit_code == code, f"{words}: {result.stdout}{result.stderr}"
        value = json.loads(result.stdout)
        if code in (0, 4, 6) and "error" not in value:
            assert set(value) == documented(str(words[0])), words[0]
        for line in result.stderr.splitlines():
            if line.startswith("{"):
                assert {"event", "done", "rows_per_second", "seconds_left"} <= set(json.loads(line))
        return value

    return run


def test_the_whole_journey_in_json_says_no_text(world: World, here: Path, suture: Callable[..., Any]) -> None:
    write_parquet(here / "old", world)
    for part in (here / "old").iterdir():
        table = pq.read_table(part)
        texts = pa.array([f"{SECRET} {i}" for i in range(table.num_rows)])
        pq.write_table(table.append_column("note", texts), part)
    np.save("ids.npy", world.ids)
    np.save("new.npy", world.new)
    (here / "own_model.py").write_text(MODEL)
    old, new = "parquet:old#vector", "parquet:lake/new#vector"
    assert suture("inspect", old)["rows"] == len(world.ids)
    make = ("plan", "--map", world.map, "--from", old, "--to", new, "--model", "new", "--fragment-rows", 150)
    suture(*make, "-o", "plan.json")
    suture(*make, "-o", "plan.json", code=3)
    assert suture("apply", "plan.json", "--max-rows", 150, code=6)["left"] > 0
    assert suture("verify", "plan.json", code=4)["green"] is False
    suture("switch", "plan.json", code=3)
    assert suture("apply", "plan.json")["left"] == 0
    assert suture("verify", "plan.json")["green"] is True
    backfill = ("backfill", "plan.json", "--embedder", "own_model:embed", "--budget")
    assert suture(*backfill, 50)["native"] == 50
    suture(*backfill[:-2], "nothing:there", "--budget", 5, code=2)
    assert suture("verify", "plan.json")["green"] is True
    assert suture("status", "plan.json")["native"] == 50
    suture("switch", "plan.json")
    suture("rollback", "plan.json")
    suture("retire", "plan.json", "--confirm", old, code=3)  # the old one serves again
    suture("switch", "plan.json")
    suture("retire", "plan.json", "--confirm", old)
    for path in (here / "plan.json", here / "said.txt", *(here / "plan.json.state").rglob("*")):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path


def test_a_password_is_not_said(world: World, here: Path, suture: Callable[..., Any]) -> None:
    address = "postgresql://me:hunter2@localhost:1/db#docs.embedding"
    assert "cannot be reached" in suture("inspect", address, code=1)["error"]
    suture("inspect", address.removesuffix(".embedding"), code=2)
    suture("inspect", f"{address}?kind=vector", code=2)
    assert "hunter2" not in (here / "said.txt").read_text()
