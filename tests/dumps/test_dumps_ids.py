"""Ids come back exactly, from wherever they are stored, and hash the same way everywhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suture.aligners.errors import SutureError
from suture.stitching.dumps import IdColumn, hash_ids, hash_rows, open_dump
from suture.stitching.dumps.idfiles import open_ids

INTS = [2**60 + 1, 7, -3, 0]
HUGE = [2**63 + 1, 5, 2**64 - 1, 0]
STRS = ["007", "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "Ünïcødé 漢字 🚣‍♂️", "a\u2028b\x85c"]


def array(ids: list[Any]) -> np.ndarray:
    return np.array(ids, np.uint64 if ids is HUGE else None)


def listed(ids: IdColumn, size: int = 3) -> list[Any]:
    blocks = [block.tolist() for block in ids.blocks(size)]
    assert all(len(block) == size for block in blocks[:-1])
    return [value for block in blocks for value in block]


def npy(path: Path, ids: list[Any]) -> Path:
    np.save(path / "ids.npy", array(ids))
    return path / "ids.npy"


def txt(path: Path, ids: list[Any]) -> Path:
    (path / "ids.txt").write_text("\n".join(map(str, ids)))
    return path / "ids.txt"


def jsonl(path: Path, ids: list[Any]) -> Path:
    (path / "ids.jsonl").write_text("".join(json.dumps(value) + "\n" for value in ids))
    return path / "ids.jsonl"


def jsonl_objects(path: Path, ids: list[Any]) -> Path:
    return jsonl(path, [{"text": "x", "id": value} for value in ids])


def as_json(path: Path, ids: list[Any]) -> Path:
    (path / "ids.json").write_text(json.dumps(ids))
    return path / "ids.json"


def csv(path: Path, ids: list[Any]) -> Path:
    (path / "ids.csv").write_text("text,id\n" + "".join(f'"a,b",{value}\n' for value in ids))
    return path / "ids.csv"


def parquet(path: Path, ids: list[Any]) -> Path:
    pq.write_table(pa.table({"id": array(ids) if isinstance(ids[0], int) else ids}), path / "ids.parquet")
    return path / "ids.parquet"


FILES = [npy, txt, jsonl, jsonl_objects, as_json, csv, parquet]


@pytest.mark.parametrize("write", FILES, ids=lambda write: write.__name__)
@pytest.mark.parametrize("ids", [INTS, HUGE, STRS], ids=["int64", "uint64", "str"])
def test_id_files(tmp_path: Path, write: Callable[[Path, list[Any]], Path], ids: list[Any]) -> None:
    column = open_ids(write(tmp_path, ids))
    assert column.kind == ("str" if ids is STRS else "int")
    for size in (1, 3, 4, 100):
        assert listed(column, size) == ids
    assert column.take(np.array([2, 0, 0, 3])).tolist() == [ids[2], ids[0], ids[0], ids[3]]
    with pytest.raises(IndexError):
        column.take(np.array([4]))


@pytest.mark.parametrize("values", [["1", "01"], ["1", "+1"], ["1", "1 "], ["1", "²"], ["1", str(2**64)], ["1", "-0"]])
def test_text_is_integers_only_if_all_of_it_prints_as_itself(tmp_path: Path, values: list[str]) -> None:
    assert listed(open_ids(txt(tmp_path, values))) == values
    assert listed(open_ids(txt(tmp_path, ["1", "-5"]))) == [1, -5]


def h5(path: Path, ids: list[Any], key: str) -> str:
    with h5py.File(path / "x.h5", "w") as file:
        file["x"] = np.ones((4, 2), "f4")
        file[key] = ids if isinstance(ids[0], str) else array(ids)
    return str(path / "x.h5")


def npz(path: Path, ids: list[Any], key: str) -> str:
    np.savez_compressed(path / "x.npz", x=np.ones((4, 2), "f4"), **{key: array(ids)})
    return str(path / "x.npz")


def parquet_dump(path: Path, ids: list[Any], key: str) -> str:
    column = array(ids) if isinstance(ids[0], int) else pa.array(ids).dictionary_encode()
    pq.write_table(pa.table({key: column, "x": [[1.0, 2.0]] * 4}), path / "x.parquet")
    return str(path / "x.parquet")


def feather_dump(path: Path, ids: list[Any], key: str) -> str:
    column = array(ids) if isinstance(ids[0], int) else pa.array(ids).dictionary_encode()
    table = pa.table({key: column, "x": [[1.0, 2.0]] * 4})
    with pa.ipc.new_file(str(path / "x.arrow"), table.schema) as writer:
        writer.write_table(table)
    return str(path / "x.arrow")


def jsonl_dump(path: Path, ids: list[Any], key: str) -> str:
    (path / "x.jsonl").write_text("".join(json.dumps({key: value, "values": [1, 2]}) + "\n" for value in ids))
    return str(path / "x.jsonl")


def csv_dump(path: Path, ids: list[Any], key: str) -> str:
    (path / "x.csv").write_text(f"d0,{key},d1\n" + "".join(f'1,"{value}",2\n' for value in ids))
    return str(path / "x.csv")


@pytest.mark.parametrize("write", [h5, npz, parquet_dump, feather_dump, jsonl_dump, csv_dump], ids=lambda w: w.__name__)
@pytest.mark.parametrize("ids", [INTS, HUGE, STRS], ids=["int64", "uint64", "str"])
def test_ids_inside_a_dump(tmp_path: Path, write: Callable[[Path, list[Any], str], str], ids: list[Any]) -> None:
    dump = open_dump(write(tmp_path, ids, "key"), id_column="key")
    assert dump.ids is not None
    assert listed(dump.ids) == ids
    assert next(dump.blocks()).shape == (4, 2)
    by_default = open_dump(write(tmp_path, ids, "ids"))
    assert by_default.ids is not None
    assert listed(by_default.ids) == ids
    with pytest.raises(SutureError, match="'none'"):
        open_dump(write(tmp_path, ids, "key"), id_column="none")


@pytest.mark.parametrize("write", [h5, npz, parquet_dump, feather_dump, jsonl_dump, csv_dump], ids=lambda w: w.__name__)
def test_ids_given_apart_win_over_unusable_ones_inside(tmp_path: Path, write: Callable[..., str]) -> None:
    path = write(tmp_path, [0.5, 1.5, 2.5, 3.5], "id")
    dump = open_dump(path, ids=txt(tmp_path, [*STRS[:3], "x"]))
    assert dump.ids is not None
    assert listed(dump.ids) == [*STRS[:3], "x"]
    assert dump.dim == 2


def test_words_and_cells_are_ids(tmp_path: Path) -> None:
    (tmp_path / "x.vec").write_text("3 2\nnew york 1 2\n\u00a0 3 4\n2010 5 6\n")
    words = open_dump(tmp_path / "x.vec").ids
    assert words is not None
    assert listed(words, 2) == ["new york", "\u00a0", "2010"]
    import anndata

    data = anndata.AnnData(np.ones((3, 2), "f4"), obsm={"X_pca": np.ones((3, 2))})
    data.obs_names = ["AAAC-1", "AAAG-1", "007"]
    data.write_h5ad(tmp_path / "x.h5ad")
    cells = open_dump(tmp_path / "x.h5ad").ids
    assert cells is not None
    assert listed(cells) == ["AAAC-1", "AAAG-1", "007"]


@pytest.mark.parametrize("ids", [[1, "1"], ["a", None], [1.5, 2], [True, False], [-1, 2**63], [2**64]])
def test_ids_that_are_neither_integers_nor_strings(tmp_path: Path, ids: list[Any]) -> None:
    with pytest.raises(SutureError, match="ids"):
        for _ in open_ids(jsonl(tmp_path, ids)).blocks():
            pass


def test_negative_and_huge_ids_meet_in_different_chunks() -> None:
    mixed = IdColumn("x", 2, "int", lambda: [np.array([-1]), np.array([2**63], np.uint64)])
    with pytest.raises(SutureError, match="negative"):
        list(mixed.blocks())
    exact = IdColumn("x", 2, "int", lambda: [np.array([2**53 + 1]), np.array([2**63 + 1], np.uint64)])
    assert listed(exact, 2) == [2**53 + 1, 2**63 + 1]
    small = IdColumn("x", 2, "int", lambda: [np.array([-(2**53) - 1]), np.array([2**53 + 1], np.uint64)])
    assert listed(small, 2) == [-(2**53) - 1, 2**53 + 1]


def test_a_column_that_changes_its_length_or_kind_is_noticed() -> None:
    with pytest.raises(SutureError, match="expected 3 ids, the file holds 2"):
        list(IdColumn("x", 3, "int", lambda: [np.arange(2)]).blocks())
    with pytest.raises(SutureError, match="begin as int and go on as str"):
        list(IdColumn("x", 3, "int", lambda: [np.arange(2), np.array(["a"])]).blocks())


def test_hashes_are_for_ever() -> None:
    assert hash_ids(np.array(["a02311191", "", "漢字"])).tolist() == GOLDEN[:3]
    assert hash_ids(np.array([7, -7])).tolist() == GOLDEN[3:5]
    assert hash_rows(0, 2).tolist() == [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1]  # splitmix64(0), splitmix64(1)


GOLDEN = [0x922831461270C0AA, 0xC3817C016BA4FF30, 0x8029D5FA4D7CD731, 0xB89CCE279E7F3F80, 0x1A6D2A33AE28BD99]


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30), min_size=1, unique=True))
def test_a_hash_depends_on_nothing_but_the_id(ids: list[str]) -> None:
    whole = hash_ids(np.array(ids))
    assert whole.dtype == np.uint64
    assert len(set(whole.tolist())) == len(ids)
    for i, value in enumerate(ids):
        assert hash_ids(np.array([value], object))[0] == whole[i]
        assert hash_ids(np.array([value], f">U{len(value) + 9}"))[0] == whole[i]


@given(st.integers(-(2**63), 2**64 - 1))
def test_an_integer_and_its_text_are_one_id(value: int) -> None:
    array = np.array([value], np.uint64 if value >= 2**63 else np.int64)
    assert hash_ids(array)[0] == hash_ids(np.array([str(value)]))[0]
    if 0 <= value < 2**31:
        assert hash_ids(np.array([value], np.int32))[0] == hash_ids(np.array([value], np.uint64))[0]


def test_a_very_long_id_does_not_widen_its_block() -> None:
    ids = np.array(["x" * 100_000, *map(str, range(2000))], object)
    assert hash_ids(ids)[1:].tolist() == hash_ids(np.arange(2000)).tolist()
