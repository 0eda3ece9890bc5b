"""What is not one non-empty numeric matrix is refused, in every format, with a message that helps."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch

from suture.aligners.errors import RefusedError, SutureError, UsageError
from suture.stitching.dumps import open_dump


def write(path: Path, x: np.ndarray) -> Path:
    match path.suffix:
        case ".npy":
            np.save(path, x)
        case ".npz":
            np.savez_compressed(path, x)
        case ".safetensors":
            safetensors.numpy.save_file({"x": x}, path)
        case ".h5":
            with h5py.File(path, "w") as file:
                file["x"] = x
        case ".pt":
            torch.save(torch.from_numpy(x), path)
    return path


ARRAYS = {
    "0 rows": np.zeros((0, 4), "f4"),
    "0 columns": np.zeros((4, 0), "f4"),
    "1-D": np.zeros(4, "f4"),
    "3-D": np.zeros((4, 2, 2), "f4"),
    "complex": np.zeros((4, 2), "c8"),
    "bool": np.zeros((4, 2), "?"),
}


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".h5", ".pt"])
@pytest.mark.parametrize("what", ARRAYS)
def test_arrays_that_are_no_dump(tmp_path: Path, suffix: str, what: str) -> None:
    path = write(tmp_path / f"x{suffix}", ARRAYS[what])
    with pytest.raises(SutureError, match="expected") as error:
        open_dump(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("x", [np.array([[1, None]], object), np.array([["a", "b"]])], ids=["object", "text"])
def test_objects_and_text_are_never_loaded(tmp_path: Path, suffix: str, x: np.ndarray) -> None:
    with pytest.raises(SutureError, match="numbers"):
        open_dump(write(tmp_path / f"x{suffix}", x))


def parquet(path: Path, column: pa.Array) -> str:
    pq.write_table(pa.table({"x": column}), path / "x.parquet")
    return str(path / "x.parquet")


def bytes_file(name: str, data: bytes | str) -> Callable[[Path], str]:
    def build(path: Path) -> str:
        (path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return str(path / name)

    return build


FVEC = np.int32(2).tobytes() + np.ones(2, "f4").tobytes()
MALFORMED: dict[str, tuple[Callable[[Path], str], str]] = {
    "missing": (lambda path: str(path / "none.npy"), "there is none"),
    "suffix": (bytes_file("x.xyz", "?"), r"\.safetensors"),
    "empty folder": (str, "folder of parts"),
    "npy: garbage": (bytes_file("x.npy", "hello world, no header"), "numpy.save"),
    "npy: empty file": (bytes_file("x.npy", b""), "numpy.save"),
    "npy: header": (bytes_file("x.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': oops  "), "damaged"),
    "npy: version": (bytes_file("x.npy", b"\x93NUMPY\x09\x00\x10\x00{'descr': oops  "), "version"),
    "npz: garbage": (bytes_file("x.npz", "hello"), "damaged"),
    "safetensors: garbage": (bytes_file("x.safetensors", b"\xff" * 40), "not a safetensors"),
    "safetensors: header": (bytes_file("x.safetensors", b"\x07" + b"\0" * 7 + b'{"a":1}'), "header"),
    "pt: legacy": (bytes_file("x.pt", b"\x80\x02."), "legacy"),
    "h5: garbage": (bytes_file("x.h5", "hello"), "HDF5"),
    "parquet: garbage": (bytes_file("x.parquet", "hello"), "truncated"),
    "arrow: garbage": (bytes_file("x.arrow", "hello hello hello"), "truncated"),
    "parquet: ragged": (lambda path: parquet(path, pa.array([[1.0, 2.0], [3.0]])), "expected 2 numbers"),
    "parquet: null row": (lambda path: parquet(path, pa.array([[1.0], None])), "null"),
    "parquet: null number": (lambda path: parquet(path, pa.array([[1.0, None]])), "null"),
    "parquet: text": (lambda path: parquet(path, pa.array([["a"]])), "numbers"),
    "parquet: bool": (lambda path: parquet(path, pa.array([[True]])), "numbers"),
    "parquet: nested": (lambda path: parquet(path, pa.array([[[1.0]]])), "numbers"),
    "parquet: flat": (lambda path: parquet(path, pa.array([1.0])), "2-D column"),
    "parquet: empty": (lambda path: parquet(path, pa.array([], pa.list_(pa.float32()))), "at least one row"),
    "parquet: zero-width": (lambda path: parquet(path, pa.array([[]], pa.list_(pa.float32()))), "at least one"),
    "fvecs: truncated": (bytes_file("x.fvecs", FVEC + FVEC[:5]), "truncated"),
    "fvecs: ragged": (bytes_file("x.fvecs", FVEC + np.int32(3).tobytes() + FVEC[4:]), "row 1 announces 3"),
    "fvecs: empty": (bytes_file("x.fvecs", b""), "positive int32"),
    "fbin: truncated": (bytes_file("x.fbin", np.array([2, 2], "<i4").tobytes() + b"\0" * 12), "24 bytes"),
    "csv: ragged": (bytes_file("x.csv", "1,2\n3,4,5\n"), "line 2"),
    "csv: text": (bytes_file("x.csv", "1,2\n3,x\n"), "line 2"),
    "csv: missing number": (bytes_file("x.csv", "1,2\n3,\n"), "line 2"),
    "csv: two texts": (bytes_file("x.csv", "a,b,1\nc,d,2\n"), "line 1"),
    "csv: empty": (bytes_file("x.csv", ""), "at least one row"),
    "csv: header only": (bytes_file("x.csv", "a,b\n"), "at least one row"),
    "csv: encoding": (bytes_file("x.csv", b"1,\xff\n"), "UTF-8"),
    "word2vec: no first line": (bytes_file("x.txt", "the 0.1 0.2\n"), "GloVe"),
    "word2vec: short": (bytes_file("x.vec", "3 2\na 1 2\nb 1 2\n"), "after 2"),
    "word2vec: long": (bytes_file("x.vec", "1 2\na 1 2\nb 1 2\n"), "there are more"),
    "word2vec: ragged": (bytes_file("x.vec", "2 2\na 1 2\nb 1\n"), "line 3"),
    "word2vec: text": (bytes_file("x.vec", "2 2\na 1 2\nb 1 x\n"), "line 3"),
    "jsonl: ragged": (bytes_file("x.jsonl", '{"vector": [1, 2]}\n{"vector": [1]}\n'), "line 2"),
    "jsonl: bool": (bytes_file("x.jsonl", '{"vector": [1, 2]}\n{"vector": [1, true]}\n'), "line 2"),
    "jsonl: nested": (bytes_file("x.jsonl", '{"vector": [[1], [2]]}\n'), "line 1"),
    "jsonl: text": (bytes_file("x.jsonl", '{"vector": [1]}\n{"vector": "1"}\n'), "line 2"),
    "jsonl: no field": (bytes_file("x.jsonl", '{"vector": [1]}\n{"v": [1]}\n'), "line 2"),
    "jsonl: not json": (bytes_file("x.jsonl", '{"vector": [1]}\nhello\n'), "line 2"),
    "jsonl: bare": (bytes_file("x.jsonl", "[1, 2]\n"), "object a line"),
    "jsonl: empty": (bytes_file("x.jsonl", ""), "object a line"),
    "gzip: garbage": (bytes_file("x.jsonl.gz", "hello"), "unpacked"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_files(tmp_path: Path, what: str) -> None:
    build, message = MALFORMED[what]
    with pytest.raises(SutureError, match=message) as error:
        for _ in open_dump(build(tmp_path)).blocks():
            pass
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".h5", ".pt", ".parquet", ".arrow", ".jsonl.gz"])
def test_a_truncated_file_is_never_read_as_a_shorter_one(tmp_path: Path, suffix: str) -> None:
    x = np.random.default_rng(0).standard_normal((300, 40)).astype("f4")
    path = tmp_path / f"x{suffix}"
    table = pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 40)})
    if suffix == ".parquet":
        pq.write_table(table, path)
    elif suffix == ".arrow":
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=50)
    elif suffix == ".jsonl.gz":
        import gzip

        path.write_bytes(gzip.compress("".join(json.dumps({"vector": row}) + "\n" for row in x.tolist()).encode()))
    else:
        write(path, x)
    whole = path.read_bytes()
    for kept in (len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:kept])
        with pytest.raises(SutureError, match=r"truncated|damaged|legacy|cut"):
            for _ in open_dump(path).blocks():
                pass


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_a_short_file_is_refused_when_it_is_opened(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"x{suffix}", np.ones((30, 4), "f4"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SutureError, match="truncated"):
        open_dump(path)


def test_pickles_do_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (pytest.fail, ("the pickle ran",))

    torch.save({"x": Bomb()}, tmp_path / "x.pt")
    np.save(tmp_path / "x.npy", np.array([[Bomb()]], object), allow_pickle=True)
    np.save(tmp_path / "ids.npy", np.array([Bomb()], object), allow_pickle=True)
    np.save(tmp_path / "good.npy", np.ones((1, 2)))
    for name, options in (("x.pt", {}), ("x.npy", {}), ("good.npy", {"ids": tmp_path / "ids.npy"})):
        with pytest.raises(SutureError, match=r"weights_only|never loaded"):
            open_dump(tmp_path / name, **options)


def test_tensors_with_gaps_say_what_to_do(tmp_path: Path) -> None:
    torch.save(torch.randn(4, 6)[:, ::2], tmp_path / "x.pt")
    with pytest.raises(SutureError, match="contiguous"):
        open_dump(tmp_path / "x.pt")


def test_what_stands_in_a_pickle_is_named(tmp_path: Path) -> None:
    """torch's own message begins with advice to load it all the same, in bold."""
    torch.save({"x": np.ones((3, 2))}, tmp_path / "x.pt")
    with pytest.raises(SutureError, match=r"would make \(numpy\S*_reconstruct\)\. Save the bare tensor") as error:
        open_dump(tmp_path / "x.pt")
    assert "\x1b" not in str(error.value)


def test_an_ambiguous_file_lists_its_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones((3, 2)), b=np.ones((4, 5)), c=np.ones(7))
    with pytest.raises(SutureError, match=r"a \(3, 2\), b \(4, 5\), c \(7\).*x\.npz::a"):
        open_dump(tmp_path / "x.npz")
    with pytest.raises(SutureError, match=r"'c'.*got: a \(3, 2\)"):
        open_dump(tmp_path / "x.npz", column="c")
    assert open_dump(tmp_path / "x.npz", column="b").dim == 5
    assert open_dump(f"{tmp_path / 'x.npz'}::b", column="b").name == f"{tmp_path / 'x.npz'}::b"
    with pytest.raises(UsageError, match=r"'a'.*'b'"):
        open_dump(f"{tmp_path / 'x.npz'}::a", column="b")


def test_parts_of_a_folder_must_agree(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3), "f4"))
    np.save(tmp_path / "b.npy", np.ones((2, 4), "f4"))
    with pytest.raises(SutureError, match=r"b\.npy: expected 3 columns of float32, as in .*a\.npy, got 4"):
        open_dump(tmp_path)
    (tmp_path / "b.npy").rename(tmp_path / "b.parquet")
    with pytest.raises(SutureError, match=r"one kind.*got \.npy, \.parquet"):
        open_dump(tmp_path)


def test_a_key_or_ids_where_there_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3), "f4"))
    with pytest.raises(SutureError, match="without a name"):
        open_dump(f"{tmp_path / 'a.npy'}::x")
    with pytest.raises(SutureError, match="--ids FILE"):
        open_dump(tmp_path / "a.npy", id_column="id")


def test_ids_of_another_length(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3), "f4"))
    np.save(tmp_path / "i.npy", np.arange(3))
    with pytest.raises(RefusedError, match=r"2 rows.*are 3"):
        open_dump(tmp_path / "a.npy", ids=tmp_path / "i.npy")


def test_a_missing_library_is_named_with_its_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = write(tmp_path / "x.h5", np.ones((2, 2), "f4"))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SutureError, match=r"pip install 'suture\[h5\]'"):
        open_dump(path)
