"""Every format against the library that defines it: whole, in blocks, from the middle, and by row."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from suture.stitching.dumps import Dump, open_dump

ROWS, DIM = 41, 5


def matrix(dtype: str = "f4") -> np.ndarray:
    values = np.random.default_rng(7).standard_normal((ROWS, DIM)) * 50
    return np.abs(values).astype(dtype) if dtype[-2] == "u" else values.astype(dtype)


def lists(x: np.ndarray, kind: str) -> pa.Array:
    flat = pa.array(x.reshape(-1))
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, x.shape[1])
    offsets = np.arange(len(x) + 1) * x.shape[1]
    if kind == "large":
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def npy(path: Path, x: np.ndarray) -> str:
    np.save(path / "x.npy", x)
    return str(path / "x.npy")


def npy_fortran(path: Path, x: np.ndarray) -> str:
    return npy(path, np.asfortranarray(x))


def npy_version(version: tuple[int, int]) -> Callable[[Path, np.ndarray], str]:
    def write(path: Path, x: np.ndarray) -> str:
        with (path / "x.npy").open("wb") as file:
            np.lib.format.write_array(file, x, version)
        return str(path / "x.npy")

    return write


def npz(path: Path, x: np.ndarray) -> str:
    np.savez(path / "x.npz", x)
    return str(path / "x.npz")


def npz_keyed(path: Path, x: np.ndarray) -> str:
    np.savez(path / "x.npz", first=x[::-1], second=x)
    return f"{path / 'x.npz'}::second"


def npz_compressed(path: Path, x: np.ndarray) -> str:
    np.savez_compressed(path / "x.npz", emb=x, labels=np.arange(len(x)))
    return str(path / "x.npz")


def npz_compressed_fortran(path: Path, x: np.ndarray) -> str:
    return npz_compressed(path, np.asfortranarray(x))


def npz_stored_fortran(path: Path, x: np.ndarray) -> str:
    return npz(path, np.asfortranarray(x))


def safetensors_file(path: Path, x: np.ndarray) -> str:
    other = np.zeros((3, 2), "f4")
    safetensors.numpy.save_file({"a": other, "x": x, "bias": other[0]}, path / "x.safetensors", {"by": "test"})
    return f"{path / 'x.safetensors'}::x"


def parquet(kind: str, **options: object) -> Callable[[Path, np.ndarray], str]:
    def write(path: Path, x: np.ndarray) -> str:
        table = pa.table({"text": [str(i) for i in range(len(x))], "x": lists(x, kind)})
        pq.write_table(table, path / "x.parquet", **options)
        return str(path / "x.parquet")

    return write


def ipc_file(path: Path, x: np.ndarray) -> str:
    table = pa.table({"n": np.arange(len(x)), "x": lists(x, "fixed")})
    with pa.ipc.new_file(str(path / "x.feather"), table.schema) as writer:
        writer.write_table(table, max_chunksize=9)
    return str(path / "x.feather")


def hf_folder(path: Path, x: np.ndarray) -> str:
    table = pa.table({"text": ["a"] * len(x), "x": lists(x, "list")})
    (path / "state.json").write_text("{}")
    for i, (a, b) in enumerate([(0, 10), (10, 30), (30, len(x))]):
        with pa.ipc.new_stream(str(path / f"data-{i:05}-of-00003.arrow"), table.schema) as writer:
            writer.write_table(table[a:b], max_chunksize=4)
    return str(path)


def parquet_folder(path: Path, x: np.ndarray) -> str:
    for i, a in enumerate(range(0, len(x), 15)):
        pq.write_table(pa.table({"x": lists(x[a : a + 15], "list")}), path / f"part-{i}.parquet")
    (path / "_SUCCESS").write_text("")
    (path / ".hidden.parquet").write_text("no")
    return str(path)


def npy_folder(path: Path, x: np.ndarray) -> str:
    for i, a in enumerate(range(0, len(x), 15)):
        np.save(path / f"{i}.npy", x[a : a + 15])
    return str(path)


def h5(**options: object) -> Callable[[Path, np.ndarray], str]:
    def write(path: Path, x: np.ndarray) -> str:
        with h5py.File(path / "x.h5", "w") as file:
            file.create_dataset("group/train", data=x, **options)
            file["labels"] = np.arange(len(x))
        return str(path / "x.h5")

    return write


def h5_ann(path: Path, x: np.ndarray) -> str:
    with h5py.File(path / "x.hdf5", "w") as file:
        file["train"], file["test"], file["neighbors"] = x, x[:3], np.zeros((3, 10), "i4")
    return f"{path / 'x.hdf5'}::train"


def h5ad(path: Path, x: np.ndarray) -> str:
    data = anndata.AnnData(np.ones((len(x), 2), "f4"), obsm={"X_pca": x, "X_umap": x[:, :2]})
    data.obs_names = [f"cell{i}" for i in range(len(x))]
    data.write_h5ad(path / "x.h5ad")
    return f"{path / 'x.h5ad'}::X_pca"


def vecs(suffix: str, kind: str) -> Callable[[Path, np.ndarray], str]:
    def write(path: Path, x: np.ndarray) -> str:
        with (path / f"x{suffix}").open("wb") as file:
            for row in x.astype(kind):
                file.write(np.int32(len(row)).tobytes() + row.tobytes())
        return str(path / f"x{suffix}")

    return write


def fbin(path: Path, x: np.ndarray) -> str:
    (path / "x.fbin").write_bytes(np.array(x.shape, "<i4").tobytes() + x.tobytes())
    return str(path / "x.fbin")


def u8bin(path: Path, x: np.ndarray) -> str:
    (path / "x.u8bin").write_bytes(np.array(x.shape, "<i4").tobytes() + x.tobytes())
    return str(path / "x.u8bin")


def text(suffix: str, delimiter: str, header: str, names: bool) -> Callable[[Path, np.ndarray], str]:
    def write(path: Path, x: np.ndarray) -> str:
        lines = [header] if header else []
        for i, row in enumerate(x):
            lines.append(delimiter.join([f'"id{delimiter}{i}"'] * names + [repr(float(v)) for v in row]))
        (path / f"x{suffix}").write_text("\n".join(lines) + "\n")
        return str(path / f"x{suffix}")

    return write


def word2vec(path: Path, x: np.ndarray) -> str:
    lines = [f"{len(x)} {x.shape[1]}"] + [f"new york {i} " + " ".join(map(str, row)) + " " for i, row in enumerate(x)]
    (path / "x.vec").write_text("\n".join(lines))
    return str(path / "x.vec")


def jsonl(path: Path, x: np.ndarray) -> str:
    with gzip.open(path / "x.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"tags": [1], "embedding": row}) + "\n" for row in x.tolist())
    return str(path / "x.jsonl.gz")


def pt(path: Path, x: np.ndarray) -> str:
    torch.save(torch.from_numpy(x.copy()), path / "x.pt")
    return str(path / "x.pt")


def pt_columns(path: Path, x: np.ndarray) -> str:
    """Stored column by column, behind another column."""
    wider = np.ascontiguousarray(np.vstack([x[:, :1].T, x.T]))
    torch.save(torch.from_numpy(wider)[1:].t(), path / "x.pt")
    return str(path / "x.pt")


def pt_dict(path: Path, x: np.ndarray) -> str:
    both = torch.from_numpy(np.concatenate([x[::-1], x]))
    torch.save({"a": both[: len(x)], "b": both[len(x) :], "c": 3, "d": torch.zeros(4)}, path / "x.pth")
    return f"{path / 'x.pth'}::b"


FLOATS = ("f2", "f4", "f8")
CASES = {
    "npy": (npy, (*FLOATS, "<i8", "|u1", ">f4", ">i2")),
    "npy fortran": (npy_fortran, (*FLOATS, ">f8", "<i4")),
    "npy v2": (npy_version((2, 0)), ("f4",)),
    "npy v3": (npy_version((3, 0)), ("f4",)),
    "npz": (npz, (*FLOATS, "|u1")),
    "npz key": (npz_keyed, ("f4",)),
    "npz stored fortran": (npz_stored_fortran, ("f4",)),
    "npz compressed": (npz_compressed, (*FLOATS, "<i8")),
    "npz compressed fortran": (npz_compressed_fortran, ("f2",)),
    "safetensors": (safetensors_file, (*FLOATS, "|i1", "|u1", "<i2", "<i4", "<i8")),
    "parquet list": (parquet("list"), (*FLOATS, "<i8")),
    "parquet large list": (parquet("large", row_group_size=8), ("f4",)),
    "parquet fixed": (parquet("fixed", row_group_size=8), FLOATS),
    "feather": (ipc_file, FLOATS),
    "hf dataset": (hf_folder, ("f4", "f8")),
    "parquet folder": (parquet_folder, ("f2", "f4")),
    "npy folder": (npy_folder, ("f2", "f4")),
    "h5": (h5(), (*FLOATS, ">f4", "<i4")),
    "h5 gzip": (h5(compression="gzip", chunks=(7, 2)), FLOATS),
    "h5 ann-benchmarks": (h5_ann, ("f4",)),
    "h5ad": (h5ad, ("f4", "f8")),
    "fvecs": (vecs(".fvecs", "<f4"), ("f4",)),
    "bvecs": (vecs(".bvecs", "u1"), ("|u1",)),
    "ivecs": (vecs(".ivecs", "<i4"), ("<i4",)),
    "fbin": (fbin, ("f4",)),
    "u8bin": (u8bin, ("|u1",)),
    "csv": (text(".csv", ",", "", names=False), ("f4",)),
    "csv header": (text(".csv", ",", "id,a,b,c,d,e", names=True), ("f4",)),
    "csv pandas": (text(".csv", ",", ",0,1,2,3,4", names=True), ("f4",)),
    "tsv no header, ids": (text(".tsv", "\t", "", names=True), ("f4",)),
    "word2vec": (word2vec, ("f4",)),
    "jsonl.gz": (jsonl, ("f4",)),
    "pt": (pt, (*FLOATS, "<i8", "|u1")),
    "pt by column": (pt_columns, (*FLOATS, "<i8")),
    "pt dict": (pt_dict, ("f2", "f4")),
}


@pytest.fixture(params=[(name, dtype) for name, (_, dtypes) in CASES.items() for dtype in dtypes], ids=" ".join)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Dump, np.ndarray]:
    name, dtype = request.param
    x = matrix(dtype)
    expected = x.astype(x.dtype.newbyteorder("=")) if x.dtype.kind == "f" else x.astype("f4")
    return open_dump(CASES[name][0](tmp_path, x)), expected


def collect(dump: Dump, *args: int) -> np.ndarray:
    blocks = []
    for block in dump.blocks(*args):
        assert block.flags.c_contiguous
        assert block.dtype == dump.dtype
        assert not args or len(block) <= args[0]
        blocks.append(block.copy())
    return np.concatenate(blocks)


def test_every_block_size_gives_the_array(case: tuple[Dump, np.ndarray]) -> None:
    dump, x = case
    assert (dump.rows, dump.dim, dump.dtype) == (*x.shape, x.dtype)
    for size in (1, 7, ROWS, 100):
        np.testing.assert_array_equal(collect(dump, size), x)
    for size, start, stop in [(4, 13, ROWS), (16, 3, 38), (5, 40, 41)]:
        np.testing.assert_array_equal(collect(dump, size, start, stop), x[start:stop])
    np.testing.assert_array_equal(collect(dump), x)
    assert list(dump.blocks(4, ROWS)) == []


def test_gather_any_order_with_repeats(case: tuple[Dump, np.ndarray]) -> None:
    dump, x = case
    for rows in ([], [0], [40, 0, 3, 3, 17, 16, 15], list(range(ROWS)), [5, 5]):
        np.testing.assert_array_equal(dump.gather(np.array(rows, np.int64)), x[rows])
    for rows in ([-1], [ROWS]):
        with pytest.raises(IndexError, match=r"0\.\.40"):
            dump.gather(np.array(rows))


def test_two_passes_at_once_do_not_disturb_each_other(case: tuple[Dump, np.ndarray]) -> None:
    dump, x = case
    for a, b, i in zip(dump.blocks(8), dump.blocks(8, 8), range(0, ROWS, 8), strict=False):
        np.testing.assert_array_equal(a, x[i : i + 8])
        np.testing.assert_array_equal(b, x[i + 8 : i + 16])


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    x = torch.randn(10, 3).bfloat16()
    torch.save(x, tmp_path / "x.pt")
    safetensors.torch.save_file({"x": x}, tmp_path / "x.safetensors")
    for name in ("x.pt", "x.safetensors"):
        np.testing.assert_array_equal(collect(open_dump(tmp_path / name), 4), x.float().numpy())


def test_bfloat16_by_column(tmp_path: Path) -> None:
    x = torch.randn(50, 3).bfloat16()
    torch.save(x.t().contiguous().t(), tmp_path / "x.pt")
    dump = open_dump(tmp_path / "x.pt")
    assert np.array_equal(np.concatenate([block.copy() for block in dump.blocks(7)]), x.float().numpy())


def test_an_embedding_of_anndata_by_its_whole_path(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("f4")
    name = h5ad(tmp_path, x)
    whole = open_dump(name.replace("::", "::obsm/"))
    assert np.array_equal(next(whole.blocks()), next(open_dump(name).blocks()))


def test_a_gathering_dump_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spill = tmp_path / "spill"
    spill.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spill))
    dump = open_dump(jsonl(tmp_path, matrix()))
    dump.gather(np.array([3, 1]))
    assert len(list(spill.iterdir())) == 1
    del dump
    assert list(spill.iterdir()) == []
