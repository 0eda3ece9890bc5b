"""What is written is read back, by suture and by the library of the format; a failed write leaves nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from suture.aligners.errors import RefusedError, SutureError
from suture.stitching.dumps import Dump, atomic_write, open_dump, open_writer

SUFFIXES = [".npy", ".safetensors", ".parquet", ".h5", ".fvecs", ".jsonl"]
STRS = np.array(["007", "uuid-1", "漢字", "a b", *map(str, range(100, 126))])
INTS = np.arange(30) * 2**53 + 1
X = np.random.default_rng(3).standard_normal((30, 7)) * 1e3


def write(path: Path, x: np.ndarray, ids: np.ndarray | None = None, **options: Any) -> Dump:
    kind = None if ids is None else "str" if ids.dtype.kind == "U" else "int"
    with open_writer(path, x.shape[1], x.dtype, id_kind=kind, **options) as writer:
        buffer = np.empty((11, x.shape[1]), x.dtype)
        for i in range(0, len(x), 11):
            block = buffer[: len(x[i : i + 11])]  # reused, as a dump's blocks are
            block[...] = x[i : i + 11]
            writer.write(block, None if ids is None else ids[i : i + 11])
    assert writer.rows == len(x)
    return open_dump(path, ids=writer.ids_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("ids", [None, STRS, INTS], ids=["no ids", "str", "int"])
def test_round_trip(tmp_path: Path, suffix: str, dtype: str, ids: np.ndarray | None) -> None:
    path, x = tmp_path / f"x{suffix}", X.astype(dtype)
    if suffix == ".fvecs" and dtype != "f4":
        with pytest.raises(RefusedError, match="float32"):
            write(path, x, ids)
        assert list(tmp_path.iterdir()) == []
        return
    dump = write(path, x, ids)
    expected = x.astype("f4") if suffix == ".jsonl" else x
    np.testing.assert_array_equal(np.concatenate([block.copy() for block in dump.blocks(8)]), expected)
    assert dump.dtype == expected.dtype
    if ids is None:
        assert dump.ids is None
    else:
        assert dump.ids is not None
        assert np.concatenate(list(dump.ids.blocks(7))).tolist() == ids.tolist()


def test_the_libraries_of_the_formats_read_them(tmp_path: Path) -> None:
    x = X.astype("f4")
    for suffix in SUFFIXES:
        (tmp_path / suffix[1:]).mkdir()
        write(tmp_path / suffix[1:] / f"x{suffix}", x, STRS)
    np.testing.assert_array_equal(np.load(tmp_path / "npy/x.npy"), x)
    np.testing.assert_array_equal(safetensors.numpy.load_file(tmp_path / "safetensors/x.safetensors")["embeddings"], x)
    with h5py.File(tmp_path / "h5/x.h5") as file:
        np.testing.assert_array_equal(file["embeddings"][:], x)
        assert file["ids"].asstr()[:].tolist() == STRS.tolist()
    table = pq.read_table(tmp_path / "parquet/x.parquet")
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 7)
    assert table["id"].to_pylist() == STRS.tolist()
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), "f4"), x)
    rows = [json.loads(line) for line in (tmp_path / "jsonl/x.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == STRS.tolist()
    sidecar = (tmp_path / "npy/x.ids.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in sidecar] == STRS.tolist()


def test_row_groups_of_parquet_are_of_one_size_to_read(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", np.ones((20_000, 2), "f4"), np.arange(20_000))
    metadata = pq.ParquetFile(tmp_path / "x.parquet").metadata
    assert {metadata.row_group(i).num_rows for i in range(metadata.num_row_groups - 1)} <= set(range(8192, 16385))
    assert "PLAIN_DICTIONARY" not in metadata.row_group(0).column(1).encodings


def write_five_rows_then_fail(path: Path) -> None:
    with open_writer(path, 7, "f4", id_kind="str", overwrite=True) as writer:
        writer.write(X[:5].astype("f4"), STRS[:5])
        writer.write(X[:5].astype("f4"), INTS[:5])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    write(path, X.astype("f4"), STRS)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(SutureError, match="of int"):
        write_five_rows_then_fail(path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    with pytest.raises(RefusedError, match="overwrite"):
        write(path, X.astype("f4"), STRS)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert write(path, X[:4].astype("f4"), STRS[:4], overwrite=True).rows == 4


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_killed_process_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    write(path, X.astype("f4"))
    before = path.read_bytes()
    code = f"""
import numpy as np, os, signal
from suture.stitching.dumps import open_writer
with open_writer({str(path)!r}, 7, "f4", overwrite=True) as writer:
    for _ in range(100):
        writer.write(np.ones((500, 7), "f4"))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert path.read_bytes() == before


def test_what_a_writer_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(SutureError, match=r"\.npy.*not written"):
        write(tmp_path / "x.csv", X)
    with pytest.raises(SutureError, match="float16, float32 or float64"):
        write(tmp_path / "x.npy", X.astype("i4"))
    with pytest.raises(SutureError, match="at least one row"):
        write(tmp_path / "x.npy", X[:0])
    with pytest.raises(SutureError, match="writable"):
        write(tmp_path / "none" / "x.npy", X)
    for block, ids in [(X[:, :3], STRS), (X.astype("f4"), STRS), (X, None), (X, INTS), (X, STRS[:4]), (X[0], STRS)]:
        with pytest.raises(SutureError, match="expected"), open_writer(tmp_path / "x.npy", 7, "f8", id_kind="str") as w:
            w.write(block, ids)
    huge = np.full(30, 2**63, "u8")
    for suffix in (".h5", ".parquet"):
        with pytest.raises(SutureError, match="below 2"):
            write(tmp_path / f"x{suffix}", X, huge)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "x.npy", X, huge)
    with pytest.raises(RefusedError, match=r"x\.ids\.jsonl would stand beside"):
        write(tmp_path / "x.npy", X, overwrite=True)


def test_columns_of_a_wider_array_can_be_written(tmp_path: Path) -> None:
    dump = write(tmp_path / "x.npy", np.asfortranarray(X))
    np.testing.assert_array_equal(next(dump.blocks()), X)


def test_atomic_write(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "x.json") as file:
        file.write(b"1")
        assert not (tmp_path / "x.json").exists()
    assert (tmp_path / "x.json").read_bytes() == b"1"
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o666 & ~umask
    with pytest.raises(RefusedError), atomic_write(tmp_path / "x.json"):
        pytest.fail("must be refused before anything is written")
    with pytest.raises(RefusedError), atomic_write(tmp_path / "y.json") as file:
        (tmp_path / "y.json").write_text("someone was faster")
    assert (tmp_path / "y.json").read_text() == "someone was faster"
    assert len(list(tmp_path.iterdir())) == 2
