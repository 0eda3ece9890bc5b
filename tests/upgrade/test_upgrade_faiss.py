"""Galleries in faiss indexes: every type that gives its vectors back, and the memory they take."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from upgrade_worlds import OLD, ROWS, World, planned

from suture.aligners import RefusedError
from suture.stitching.stores import open_store
from suture.stitching.stores.faiss import reserve
from suture.stitching.upgrade.apply import apply
from suture.stitching.upgrade.plan import Plan
from suture.stitching.upgrade.verify import verify

MIB = 1 << 20


def red(plan: Plan) -> list[str]:
    return [f"{check.name}: {check.found}" for check in verify(plan) if not check.ok]


@pytest.mark.parametrize(
    "kind",
    ["IVF4,Flat", "HNSW8,Flat", "IDMap,Flat", "SQ8", "IDMap,SQ8", "IVF4,SQ8"],
)
def test_faiss_indexes_of_many_types(kind: str, world: World, here: Path) -> None:
    index = faiss.index_factory(OLD, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(world.old)
    ids = np.arange(ROWS)
    if kind.startswith(("IDMap", "IVF")):
        ids = ids * 7 + 11  # with gaps, where reconstruct_n of the outer index would end the process
        index.add_with_ids(world.old, ids)
    else:
        index.add(world.old)
    faiss.write_index(index, str(here / "old.faiss"))
    options = {"accept_lossy": True, "fragment_rows": 200}
    if kind.endswith("SQ8"):
        with pytest.raises(RefusedError, match="compresses"):
            planned(world, "faiss:old.faiss", "faiss:new.faiss", here / "plan.json")
    plan = planned(world, "faiss:old.faiss", "faiss:new.faiss", here / "plan.json", **options)
    apply(plan)
    assert red(plan) == []
    new = faiss.read_index(str(here / "new.faiss"))
    assert (new.ntotal, new.d) == (ROWS, 32)
    found = new.search(plan.row_map(world.old[:50], ""), 1)[1][:, 0]
    assert (found == ids[:50]).mean() > 0.9


def held() -> int:
    """Bytes that this process holds, but for files it has mapped."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) << 10


@pytest.mark.parametrize("kind", ["Flat", "IDMap,Flat", "HNSW4,Flat"])
def test_an_old_index_is_read_from_its_file(kind: str, here: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(2_000, 2_048)).astype(np.float32)
    index = faiss.index_factory(rows.shape[1], kind)
    index.add_with_ids(rows, np.arange(len(rows))) if "IDMap" in kind else index.add(rows)
    faiss.write_index(index, "old.faiss")
    small = faiss.IndexFlatL2(rows.shape[1])
    small.add(rows[:100])
    faiss.write_index(small, "small.faiss")
    for name in ("small", "old"):  # what is loaded the first time is not the index
        before = held()
        with open_store(f"faiss:{name}.faiss") as store:
            (fragment,) = store.fragments(len(rows))
            for batch in store.read(fragment, 100):
                np.testing.assert_array_equal(batch.vectors, rows[batch.ids])
            grown = held() - before
    assert grown < rows.nbytes / 2


@pytest.mark.parametrize("kind", ["Flat", "HNSW4,Flat"])
def test_a_new_index_takes_its_memory_once(kind: str) -> None:
    index = faiss.index_factory(64, kind)
    reserve(index, 1_000)
    flat = faiss.downcast_index(index.storage) if kind != "Flat" else index
    where = []
    for rows in np.random.default_rng(0).normal(size=(10, 100, 64)).astype(np.float32):
        index.add(rows)
        where.append(int(flat.codes.data()))
    assert len(set(where)) == 1
    assert index.ntotal == 1_000
