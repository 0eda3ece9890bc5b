"""Every store filled with the same world: what the contract test runs over."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upgrade_worlds import OLD, ROWS, World, write_parquet

Rows = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """A filled store: where the old gallery is and the new one goes; how rows come and go in a live one."""

    source: str
    target: str
    insert: Callable[[Any, Rows, dict[str, Any]], None] | None = None
    remove: Callable[[Any], None] | None = None
    payload: bool = True
    filtered: Callable[[str], int] | None = None
    new_id: Any = 10**6
    slow: bool = False  # its client takes seconds to load: it is killed in the benchmark, not in the tests
    rows: int = ROWS


def small_ids(world: World) -> Rows:
    return np.arange(len(world.ids)) * 2 + 5


def fewer(world: World, rows: int) -> World:
    """For stores that flush after every row."""
    return replace(
        world, old=world.old[:rows], new=world.new[:rows], ids=world.ids[:rows], payload=world.payload[:rows]
    )


def parquet(world: World, here: Path) -> Case:
    write_parquet(here / "old", world)
    return Case("parquet:old#vector", "parquet:new#vector")


def faiss_flat(world: World, here: Path) -> Case:
    import faiss

    index = faiss.IndexIDMap2(faiss.IndexFlatIP(OLD))
    index.add_with_ids(world.old, world.ids)
    faiss.write_index(index, str(here / "old.faiss"))
    return Case("faiss:old.faiss", "faiss:new.faiss", payload=False)


def usearch(world: World, here: Path) -> Case:
    from usearch.index import Index

    index = Index(ndim=OLD, metric="cos", dtype="f32")
    index.add(world.ids.astype(np.uint64), world.old)
    index.save(str(here / "old.usearch"))
    return Case("usearch:old.usearch", "usearch:new.usearch", payload=False)


def hnswlib(world: World, here: Path) -> Case:
    hnswlib = pytest.importorskip("hnswlib", reason="hnswlib comes as source and is in no extra")
    index = hnswlib.Index("ip", OLD)
    index.init_index(len(world.ids))
    index.add_items(world.old, small_ids(world))
    index.save_index(str(here / "old.hnsw"))
    return Case(f"hnswlib:old.hnsw?dim={OLD}&space=ip", "hnswlib:new.hnsw?space=ip", payload=False)


def qdrant(world: World, here: Path) -> Case:
    from qdrant_client import QdrantClient, models

    world = fewer(world, 60)

    def point(key: Any, row: Rows, payload: dict[str, Any]) -> Any:
        return models.PointStruct(id=key, vector=row.tolist(), payload=payload)

    client = QdrantClient(path="db")
    client.create_collection("docs", models.VectorParams(size=OLD, distance=models.Distance.COSINE))
    keys = small_ids(world).tolist()
    client.upsert("docs", [point(*row) for row in zip(keys, world.old, world.payload, strict=True)])
    client.close()

    def insert(key: Any, row: Rows, payload: dict[str, Any]) -> None:
        client = QdrantClient(path="db")
        client.upsert("docs", [point(key, row, payload)])
        client.close()

    def remove(key: Any) -> None:
        client = QdrantClient(path="db")
        client.delete("docs", models.PointIdsList(points=[key]))
        client.close()

    def filtered(name: str) -> int:
        client = QdrantClient(path="db")
        match = models.FieldCondition(key="tenant", match=models.MatchValue(value="t1"))
        count = client.count(name, models.Filter(must=[match])).count
        client.close()
        return int(count)

    return Case("qdrant:db/docs", "qdrant:db/docs_v2", insert, remove, filtered=filtered, rows=60)


def postgres(world: World, here: Path, uri: str = "") -> Case:
    import psycopg

    def run(text: str, values: Any = None) -> list[Any]:
        with psycopg.connect(uri, autocommit=True) as db:
            cursor = db.execute(text, values)
            return cursor.fetchall() if cursor.description else []

    run("CREATE EXTENSION IF NOT EXISTS vector")
    run("DROP TABLE IF EXISTS docs")
    run(f"CREATE TABLE docs (doc bigint PRIMARY KEY, embedding vector({OLD}) NOT NULL, lang text, extra jsonb)")

    def insert(key: Any, row: Rows, payload: dict[str, Any]) -> None:
        vector = json.dumps(row.astype(float).tolist())
        run(
            "INSERT INTO docs (doc, embedding, lang, extra) VALUES (%s, %s, %s, %s) ON CONFLICT (doc) DO UPDATE SET "
            "embedding = excluded.embedding, lang = excluded.lang",
            [key, vector, payload["lang"], json.dumps(payload)],
        )

    with psycopg.connect(uri) as db, db.cursor().copy("COPY docs (doc, embedding, lang, extra) FROM STDIN") as copy:
        for key, row, payload in zip(world.ids.tolist(), world.old, world.payload, strict=True):
            vector = json.dumps(row.astype(float).tolist())
            copy.write_row((key, vector, payload["lang"], json.dumps(payload)))
    run("CREATE INDEX ON docs USING hnsw (embedding vector_cosine_ops) WITH (m = 8)")
    return Case(
        f"{uri}#docs.embedding",
        f"{uri}#docs.embedding_v2",
        insert,
        lambda key: run("DELETE FROM docs WHERE doc = %s", [key]),
        filtered=lambda name: run("SELECT count(*) FROM docs WHERE extra->>'tenant' = 't1'")[0][0],
    )


def lancedb(world: World, here: Path) -> Case:
    import lancedb
    import pyarrow as pa

    def table(keys: list[int], rows: Rows, langs: list[str]) -> Any:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), OLD)
        return pa.table({"id": keys, "vector": vectors, "lang": langs})

    made = lancedb.connect("db").create_table(
        "docs", table(small_ids(world).tolist(), world.old, [p["lang"] for p in world.payload])
    )

    def insert(key: Any, row: Rows, payload: dict[str, Any]) -> None:
        fresh = table([key], row, [payload["lang"]])
        made.checkout_latest()
        made.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(fresh)

    def remove(key: Any) -> None:
        made.checkout_latest()
        made.delete(f"id = {key}")

    def filtered(name: str) -> int:
        made.checkout_latest()
        return int(made.count_rows("id % 4 = 1"))

    return Case("lancedb:db#docs.vector", "lancedb:db#docs.vector_v2", insert, remove, filtered=filtered, slow=True)


def chroma(world: World, here: Path) -> Case:
    import chromadb

    client = chromadb.PersistentClient(str(here / "db"), settings=chromadb.Settings(anonymized_telemetry=False))
    docs = client.create_collection("docs", embedding_function=None, configuration={"hnsw": {"space": "cosine"}})
    keys = [f"doc {i:04d}" for i in range(len(world.ids))]
    texts = [None if i % 5 == 0 else f"text of {key}" for i, key in enumerate(keys)]
    docs.upsert(ids=keys, embeddings=world.old, metadatas=world.payload, documents=texts)

    def insert(key: Any, row: Rows, payload: dict[str, Any]) -> None:
        docs.upsert(ids=[key], embeddings=row[None], metadatas=[payload], documents=["new text"])

    return Case(
        f"chroma:{here}/db/docs",  # the whole path: Chroma keeps clients by it
        f"chroma:{here}/db/docs_v2",
        insert,
        lambda key: docs.delete(ids=[key]),
        filtered=lambda name: len(
            client.get_collection(name, embedding_function=None).get(where={"tenant": "t1"})["ids"]
        ),
        new_id="doc 9999",
        slow=True,
    )


def milvus(world: World, here: Path) -> Case:
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import DataType, MilvusClient

    def done(client: Any) -> None:
        client.flush("docs")
        client.close()
        server_manager_instance.release_server("db.db")

    client = MilvusClient("db.db")
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=OLD)
    schema.add_field("lang", DataType.VARCHAR, max_length=50)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    client.create_collection("docs", schema=schema, index_params=index)

    def row_of(key: Any, row: Rows, payload: dict[str, Any]) -> dict[str, Any]:
        return {"id": key, "vector": row.tolist(), **payload}

    rows = zip(small_ids(world).tolist(), world.old, world.payload, strict=True)
    client.upsert("docs", [row_of(*row) for row in rows])
    done(client)

    def insert(key: Any, row: Rows, payload: dict[str, Any]) -> None:
        client = MilvusClient("db.db")
        client.upsert("docs", [row_of(key, row, payload)])
        done(client)

    def remove(key: Any) -> None:
        client = MilvusClient("db.db")
        client.delete("docs", ids=[key])
        done(client)

    def filtered(name: str) -> int:
        client = MilvusClient("db.db")
        client.load_collection(name)
        count = len(client.query(name, filter='tenant == "t1"', output_fields=["id"], limit=1000))
        done(client)
        return count

    return Case("milvus:db.db/docs", "milvus:db.db/docs_v2", insert, remove, filtered=filtered, slow=True)


def sqlite_vec(world: World, here: Path) -> Case:
    import apsw
    import sqlite_vec as vec

    def run(text: str, *values: Any) -> list[Any]:
        db = apsw.Connection("db.sqlite")
        db.enable_load_extension(True)
        db.load_extension(vec.loadable_path())
        with db:
            found = list(db.execute(text, values)) if not text.startswith("INSERT") else db.executemany(text, values)
        db.close()
        return list(found or [])

    run(
        f"CREATE VIRTUAL TABLE docs USING vec0(doc INTEGER PRIMARY KEY, vector float[{OLD}] distance_metric=cosine, "
        "tenant TEXT, n INTEGER, +note TEXT)"
    )
    text = "INSERT INTO docs (doc, vector, tenant, n, note) VALUES (?, ?, ?, ?, ?)"

    def values(key: Any, row: Rows, payload: dict[str, Any]) -> tuple[Any, ...]:
        return key, row.tobytes(), payload["tenant"], payload["n"], payload["lang"]

    run(text, *(values(*row) for row in zip(small_ids(world).tolist(), world.old, world.payload, strict=True)))

    def insert(key: Any, row: Rows, payload: dict[str, Any]) -> None:
        run("DELETE FROM docs WHERE doc = ?", key)
        run(text, values(key, row, payload))

    return Case(
        "sqlite-vec:db.sqlite#docs.vector",
        "sqlite-vec:db.sqlite#docs_v2.vector",
        insert,
        lambda key: run("DELETE FROM docs WHERE doc = ?", key) and None,
        filtered=lambda name: run(f"SELECT count(*) FROM {name} WHERE tenant = 't1'")[0][0],
    )


CASES: dict[str, Callable[..., Case]] = {
    "chroma": chroma,
    "faiss": faiss_flat,
    "hnswlib": hnswlib,
    "lancedb": lancedb,
    "milvus": milvus,
    "parquet": parquet,
    "postgresql": postgres,
    "qdrant": qdrant,
    "sqlite-vec": sqlite_vec,
    "usearch": usearch,
}
