"""What the checks of the serving objects cost: microseconds a query beside the search that they guard.

384 to 768 dims, one thread. The check is `checked`: width, finiteness and direction of every query, as each object
does it for each encoder's queries. An index is an array (exact, numpy), faiss's flat one, or a function.
"""

from collections.abc import Callable
from pathlib import Path
from time import process_time
from timeit import Timer
from typing import Any

import numpy as np

from suture.stitching.serving import Bridge, DualSearch
from suture.stitching.serving.checks import checked, unit
from suture.stitching.serving.file import Turn

import results

OLD, NEW = 384, 768


def microseconds(work: Callable[[], object]) -> float:
    """Of processor time: the best of five runs, each of at least a fifth of a second."""
    timer = Timer(work, timer=process_time)
    number, _ = timer.autorange()
    return min(timer.repeat(5, number)) / number * 1e6


def indices(rows: Any) -> dict[str, Any]:
    """The same rows in everything that can be searched."""
    import faiss

    faiss.omp_set_num_threads(1)
    flat = faiss.IndexFlatIP(rows.shape[1])
    flat.add(rows)
    return {"array": rows, "faiss": flat, "function": flat.search}


def run(data: Path | None, *, quick: bool) -> None:
    """Write results/checks.md."""
    del data
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    gallery = unit(normal(2_000 if quick else 20_000, OLD))
    turn = Turn(normal(OLD, NEW), normal(NEW))
    back = Turn(normal(NEW, OLD), normal(OLD), to_unit=True)
    table = []
    for m in (1, 100):
        new, old = normal(m, NEW), normal(m, OLD)
        work: dict[str, Callable[[], object]] = {
            "check of a new query": lambda q=new: checked(q, NEW, "new query"),
            "check of an old query": lambda q=old: checked(q, OLD, "old query"),
            "Bridge: query mapped": lambda q=new: Bridge(back)(q),
        }
        for kind, index in indices(gallery).items():
            bridge, dual = Bridge(back, index), DualSearch(turn, (0.5, 0.5), index)
            work[f"Bridge.search, {kind}"] = lambda q=new, b=bridge: b.search(q)
            work[f"DualSearch.search, {kind}"] = lambda q=new, o=old, d=dual: d.search(q, o)
        for name, each in work.items():
            took = microseconds(each)
            table.append([f"{m} {'query' if m == 1 else 'queries'}", name, f"{took:,.1f}", f"{took / m:,.1f}"])
            print(table[-1], flush=True)
    if not quick:
        columns = ("at a time", "what", "us", "us a query")
        note = (__doc__ or "").split("\n\n", 1)[1].strip()
        results.write("checks", f"{note} The gallery has {len(gallery):,} rows.", results.markdown(columns, table))
