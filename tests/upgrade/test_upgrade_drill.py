"""The drill of docs/upgrade.md: a real PostgreSQL, real encoders, queries served all the while."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from suture.aligners import Procrustes, save_alignment
from suture.stitching.dumps import hash_ids
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.planning import make_plan
from suture.stitching.upgrade.switch import rollback, switch
from suture.stitching.upgrade.verify import verify

DEMO = Path(__file__).parents[2] / "cli" / "demo"


def rows(part: str, model: str) -> Any:
    found = np.load(DEMO / f"{part}.{model}.npy").astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def text(row: Any) -> str:
    return json.dumps(row.astype(float).tolist())


class Client(threading.Thread):
    """Asks without a pause. In one transaction it looks how wide the vectors are and embeds with that model."""

    def __init__(self, database: str) -> None:
        super().__init__()
        self.database, self.stop = database, threading.Event()
        self.queries = {384: rows("query", "minilm-l6"), 768: rows("query", "mpnet-base")}
        self.failures: list[str] = []
        self.widths: list[int] = []
        self.short = 0

    def run(self) -> None:
        with psycopg.connect(self.database, autocommit=True, prepare_threshold=None) as db:
            asked = 0
            while not self.stop.is_set():
                try:
                    with db.transaction():
                        # A row written for the other model has no vector here: it may be the first of the table.
                        one = "SELECT vector_dims(embedding) FROM docs WHERE embedding IS NOT NULL LIMIT 1"
                        width = db.execute(one).fetchone()[0]  # type: ignore[index]
                        query = self.queries[width][asked % 300]
                        found = db.execute(
                            "SELECT doc, vector_dims(embedding) FROM docs WHERE embedding IS NOT NULL "
                            "ORDER BY embedding <=> %s::vector LIMIT 10",
                            [text(query)],
                        ).fetchall()
                    self.widths.append(width)
                    self.short += len(found) != 10 or {w for _, w in found} != {width}
                except psycopg.Error as error:
                    self.failures.append(str(error))
                asked += 1


def test_postgresql_is_upgraded_while_it_serves(database: str, here: Path) -> None:
    ids = np.load(DEMO / "fit.ids.npy").astype(object)
    fit = rows("fit", "minilm-l6"), rows("fit", "mpnet-base")
    save_alignment(Procrustes().fit(*fit, keys=hash_ids(ids)), here / "map.safetensors")
    gallery, names = rows("gallery", "minilm-l6"), np.load(DEMO / "gallery.ids.npy").tolist()
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("CREATE EXTENSION IF NOT EXISTS vector")
        db.execute("DROP TABLE IF EXISTS docs")
        db.execute("CREATE TABLE docs (doc text PRIMARY KEY, embedding vector(384) NOT NULL, note text)")
        with db.cursor().copy("COPY docs FROM STDIN") as copy:
            for key, row in zip(names, gallery, strict=True):
                copy.write_row((key, text(row), f"about {key}"))
        db.execute("CREATE INDEX ON docs USING hnsw (embedding vector_cosine_ops)")
    client = Client(database)
    client.start()
    try:
        old, new = f"{database}#docs.embedding", f"{database}#docs.embedding_mpnet"
        plan = make_plan(here / "map.safetensors", old, new, here / "plan.json", model="mpnet-base", fragment_rows=500)
        apply(plan)
        with psycopg.connect(database, autocommit=True) as db:  # users write meanwhile
            insert = "INSERT INTO docs (doc, embedding, note) VALUES ('late', %s, 'late')"
            db.execute(insert, [text(gallery[3])])
            db.execute("UPDATE docs SET embedding = %s WHERE doc = %s", [text(gallery[5]), names[4]])
            db.execute("DELETE FROM docs WHERE doc = %s", [names[0]])
        apply(plan)
        assert [check for check in verify(plan) if not check.ok] == []
        switch(plan)
        wait_for(client, 768)
        with psycopg.connect(database, autocommit=True) as db:  # the application embeds with the new model now
            native = rows("gallery", "mpnet-base")
            insert = "INSERT INTO docs (doc, embedding, note) VALUES ('after', %s, 'after')"
            db.execute(insert, [text(native[0])])
            db.execute("UPDATE docs SET embedding = %s WHERE doc = %s", [text(native[9]), names[9]])
        done = rollback(plan)
        wait_for(client, 384)
    finally:
        client.stop.set()
        client.join()
    assert client.failures == []
    assert client.short == 0  # no answer of fewer rows, or of both models
    assert set(client.widths) == {384, 768}
    assert done["written_since"] == 2
    listed = (plan.state / "after-switch.jsonl").read_text()
    assert "after" in listed
    assert names[9] in listed
    with psycopg.connect(database) as db:
        found = dict(db.execute("SELECT doc, embedding::text FROM docs WHERE embedding IS NOT NULL").fetchall())
        expected = dict(zip(names, gallery, strict=True))
        assert len(found) == len(names)  # one went, one came late
        np.testing.assert_array_equal(np.array(json.loads(found[names[7]]), np.float32), expected[names[7]])
        kept = db.execute("SELECT embedding_mpnet IS NOT NULL FROM docs WHERE doc = 'after'").fetchone()
        assert kept == (True,)  # listed, and not lost


def wait_for(client: Client, width: int) -> None:
    """Until the client was answered a few times by the gallery of this width."""
    limit = time.monotonic() + 20
    seen = len(client.widths)
    while client.widths[seen:].count(width) < 5:
        assert time.monotonic() < limit, client.failures
        time.sleep(0.01)
