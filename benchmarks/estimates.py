"""The README's `suture gallery estimate` on pairs of real encoders, in both directions: are the conclusions the same?

`--data DIR` as in benchmarks/quality.py; of a set with a file `pairs.txt` ("OLD NEW" a line) those pairs alone are
measured, else every ordered pair. The first 2,000 or 8,000 rows of `fit.npy` are the pairs, all queries are labelled,
and the pool is full. Nothing was chosen on these numbers.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

import results

BUDGETS = (2_000, 8_000)
WHAT = "nDCG@10, 90 % intervals. Update gain: the share of the gap between stay and re-embed that is closed."
SHOWN = ("stay", "bridge", "map", "dual", "dual-tuned", "dual-concat", "cascade@50", "re-embed")


def estimate(folder: Path, old: str, new: str, budget: int) -> dict[str, Any]:
    """What the command prints with `--json`."""
    with tempfile.TemporaryDirectory() as name:
        for encoder in (old, new):
            np.save(Path(name) / f"{encoder}.npy", np.load(folder / encoder / "fit.npy", mmap_mode="r")[:budget])
        words = ["--old-gallery", folder / old / "gallery.npy", "--pool", folder / new / "gallery.npy"]
        words += ["--old-pairs", Path(name) / f"{old}.npy", "--new-pairs", Path(name) / f"{new}.npy"]
        words += ["--old-queries", folder / old / "query.npy", "--new-queries", folder / new / "query.npy"]
        words += ["--relevant", folder / "query_target.npy", "--no-variants", "--json"]
        code = "from suture.cli.main import app; app()"
        command = [sys.executable, "-c", code, "gallery", "estimate", *map(str, words)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def line(old: str, new: str, found: dict[str, Any]) -> list[str]:
    """One row of the table."""
    table = {s["name"]: s for s in found["strategies"]}

    def interval(name: str, quantity: str) -> str:
        value = table[name]["quantities"][quantity]
        return "-" if value is None else f"{value['estimate']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"

    return [
        f"{old} -> {new}, {found['pairs']:,} pairs, {found['map']['method']}",
        *(f"{table[name]['metrics']['ndcg@10']['estimate']:.4f}" for name in SHOWN),
        *(interval(name, "update_gain") for name in ("dual", "dual-tuned", "dual-concat")),
        interval("cascade@50", "retention"),
        str(found["strategy"]),
    ]


def chosen(folder: Path) -> Iterator[tuple[str, str]]:
    """The ordered pairs of encoders of a set."""
    if (folder / "pairs.txt").exists():
        for words in (folder / "pairs.txt").read_text(encoding="utf-8").splitlines():
            old, new = words.split()
            yield old, new
    else:
        yield from permutations(sorted(path.parent.name for path in folder.glob("*/fit.npy")), 2)


def run(data: Path | None, *, quick: bool) -> None:
    """Measure pair by pair; the table is written after each, since a long run may be stopped."""
    assert data is not None  # run.py sees to it
    closed = ("update gain: dual", "dual-tuned", "dual-concat")
    columns = ("pair and map", *SHOWN, *closed, "cascade@50 / re-embed", "verdict")
    table: list[list[str]] = []
    for budget in BUDGETS[:1] if quick else BUDGETS:
        for folder in sorted(path.parent for path in data.glob("*/query_target.npy")):
            for old, new in chosen(folder):
                table.append(line(old, new, estimate(folder, old, new, budget)))
                print(table[-1], flush=True)
                note = (__doc__ or "").split("\n\n", 1)[1].strip()
                results.write("estimates", note, WHAT, results.markdown(columns, table))
