"""Numbers, ids and widths that galleries hold beside unit rows of float32 with small integers as ids."""

import json
import uuid
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upgrade_stores import lancedb
from upgrade_worlds import LATENT, OLD, World, encode, planned

from suture.aligners import Procrustes, RefusedError, SutureError, save_alignment
from suture.stitching.dumps import hash_ids
from suture.stitching.stores import open_store
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.plan import Plan
from suture.stitching.upgrade.planning import make_plan
from suture.stitching.upgrade.switch import rollback, switch
from suture.stitching.upgrade.verify import verify

SOURCE, TARGET = "parquet:old#vector", "parquet:new#vector"


def red(plan: Plan) -> list[str]:
    return [f"{check.name}: {check.found}" for check in verify(plan) if not check.ok]


def gallery(here: Path, ids: Any, vectors: Any) -> None:
    """The old gallery in one part."""
    (here / "old").mkdir()
    if isinstance(vectors, np.ndarray):
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    pq.write_table(pa.table({"id": pa.array(ids), "vector": vectors}), here / "old" / "a.parquet")


def fitted(here: Path, ids: Any, old: Any, new: Any) -> Path:
    save_alignment(Procrustes().fit(old, new, keys=hash_ids(ids)), here / "fitted.safetensors")
    return here / "fitted.safetensors"


def test_integers_are_read_as_numbers_and_not_as_unit_rows(world: World, here: Path) -> None:
    rows = (world.old * 127).round().astype(np.int8)
    gallery(here, world.ids, rows)
    with pytest.raises(RefusedError, match="unit length, these have norms from 1"):
        planned(world, SOURCE, TARGET, here / "plan.json")
    file = fitted(here, world.ids, rows.astype(np.float32), world.new)
    plan = make_plan(file, SOURCE, TARGET, here / "plan.json", model="new")
    apply(plan)
    assert red(plan) == []
    made = pq.read_table(here / "new")["vector"].combine_chunks()
    assert made.type.value_type == pa.float32()
    found = made.flatten().to_numpy().reshape(len(rows), -1)
    np.testing.assert_allclose(found, plan.row_map(rows.astype(np.float32), ""), atol=1e-6)


@pytest.mark.parametrize("row", [None, [1.0, 2.0], [None] + [1.0] * (OLD - 1)], ids=["null", "ragged", "a null number"])
def test_rows_that_are_not_whole(row: Any, world: World, here: Path) -> None:
    rows = world.old.tolist()
    rows[333] = row
    gallery(here, world.ids, pa.array(rows, pa.list_(pa.float32())))
    with pytest.raises(SutureError, match=r"a\.parquet, column vector, rows 300 to"):
        planned(world, SOURCE, TARGET, here / "plan.json")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_denormal_rows_are_no_direction(dtype: str, world: World, here: Path) -> None:
    rows = (world.old * np.linspace(0.5, 2, len(world.old))[:, None]).astype(dtype)
    rows[450], rows[451] = 0, 1e-3  # a small row is one
    rows[450, 2] = np.finfo(dtype).smallest_subnormal
    gallery(here, world.ids, rows)
    file = fitted(here, world.ids[:400], rows[:400].astype(np.float32), world.new[:400])
    plan = make_plan(file, SOURCE, TARGET, here / "plan.json", model="new", bad="quarantine")
    apply(plan)
    listed = json.loads((plan.state / "quarantine" / "000000.json").read_text())["value"]
    assert listed == [{"id": int(world.ids[450]), "reason": "denormal"}]
    assert pq.read_table(here / "new").num_rows == len(rows) - 1


def test_uuids_in_a_column_of_texts_and_of_bytes(world: World, here: Path) -> None:
    keys = [uuid.UUID(int=2**100 + 7919 * i) for i in range(len(world.ids))]
    gallery(here, [key.bytes for key in keys], world.old)
    with pytest.raises(SutureError, match="integers or strings, got binary"):
        planned(world, SOURCE, TARGET, here / "plan.json")
    texts = np.array([str(key) for key in keys], object)
    (here / "old" / "a.parquet").unlink()
    (here / "old").rmdir()
    gallery(here, texts.tolist(), world.old)
    file = fitted(here, texts, world.old, world.new)
    plan = make_plan(file, SOURCE, TARGET, here / "plan.json", model="new")
    apply(plan)
    assert red(plan) == []
    assert pq.read_table(here / "new")["id"].to_pylist() == texts.tolist()


def test_uuids_in_qdrant(world: World, here: Path) -> None:
    from qdrant_client import QdrantClient, models

    keys = [str(uuid.UUID(int=2**100 + 7919 * i)) for i in range(60)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the client warns of is its own
        client = QdrantClient(path="db")
        client.create_collection("docs", models.VectorParams(size=OLD, distance=models.Distance.COSINE))
        rows = zip(keys, world.old.tolist(), strict=False)
        client.upsert("docs", [models.PointStruct(id=key, vector=row) for key, row in rows])
        client.close()
        file = fitted(here, np.array(keys, object), world.old[:60], world.new[:60])
        plan = make_plan(file, "qdrant:db/docs", "qdrant:db/docs_v2", here / "plan.json", model="new")
        apply(plan)
        assert red(plan) == []
        client = QdrantClient(path="db")
        assert sorted(str(point.id) for point in client.scroll("docs_v2", limit=100)[0]) == sorted(keys)
        client.close()


def test_uuids_and_more_than_2000_dims_in_postgresql(here: Path, database: str) -> None:
    latent = np.random.default_rng(0).normal(size=(80, LATENT))
    old, new = encode(latent, OLD, 11), encode(latent, 2100, 12)
    keys = [uuid.UUID(int=2**100 + 7919 * i) for i in range(80)]
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("CREATE EXTENSION IF NOT EXISTS vector")
        db.execute("DROP TABLE IF EXISTS wide")
        db.execute(f"CREATE TABLE wide (doc uuid PRIMARY KEY, embedding vector({OLD}))")
        with db.cursor().copy("COPY wide FROM STDIN") as copy:
            for key, row in zip(keys, old.astype(float).tolist(), strict=True):
                copy.write_row((str(key), json.dumps(row)))
        db.execute("CREATE INDEX ON wide USING hnsw (embedding vector_cosine_ops)")
        file = fitted(here, np.array([str(key) for key in keys], object), old, new)
        source, target = f"{database}#wide.embedding", f"{database}#wide.embedding_v2"
        with pytest.raises(RefusedError, match="2100 dims, an index on vector takes 2000; add"):
            make_plan(file, source, target, here / "plan.json", model="new")
        plan = make_plan(file, source, f"{target}?type=halfvec", here / "plan.json", model="new", fragment_rows=30)
        apply(plan)
        assert red(plan) == []
        switch(plan)
        text = "SELECT doc, embedding::text, pg_typeof(embedding)::text FROM wide ORDER BY doc"
        rows = db.execute(text).fetchall()
        assert [row[0] for row in rows] == keys
        assert {row[2] for row in rows} == {"halfvec"}
        found = np.array([json.loads(row[1]) for row in rows])
        np.testing.assert_allclose(found, plan.row_map(old, ""), atol=1e-3)
        assert "halfvec_cosine_ops" in str(db.execute("SELECT indexdef FROM pg_indexes").fetchall())
        rollback(plan)
        assert db.execute("SELECT vector_dims(embedding) FROM wide LIMIT 1").fetchone() == (OLD,)


def test_a_folder_of_lance_is_a_gallery(world: World, here: Path) -> None:
    lancedb(world, here)
    assert (here / "db" / "docs.lance").is_dir()
    for uri in ("lance:db/docs.lance", "db/docs.lance#vector", "lance:db/docs.lance#vector?id=id"):
        with open_store(uri) as store:
            assert (store.facts().rows, store.facts().dim) == (len(world.ids), OLD)
    plan = planned(world, "lance:db/docs.lance", "lance:db/docs.lance#vector_v2", here / "plan.json")
    assert plan.rows == len(world.ids)
