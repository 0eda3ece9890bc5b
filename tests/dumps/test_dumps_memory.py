"""Peak memory, as the kernel counts it, does not grow with the number of rows."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch

ROWS, DIM = 20_000, 128  # float32: 10 MB, and 80 MB eight times as long
ALLOWED = 24 << 20

READER = """
import json, os, sys
import numpy as np
from suture.stitching.dumps import open_dump, pair

def read(path):
    dump = open_dump(path)
    total = sum(float(block[0, 0]) for block in dump.blocks(2048))
    for start in range(0, dump.rows, 2000):
        dump.gather(np.arange(start, min(start + 2000, dump.rows), 3))

def join(stem, order):
    pairing = pair(open_dump(stem + "a.npy", ids=stem + "ai.npy"), open_dump(stem + "b.npy", ids=stem + "bi.npy"))
    assert pairing.report["order"] == order
    assert sum(len(block.keys) for block in pairing.blocks(2048)) == pairing.rows

for line in sys.stdin:
    what, *arguments = json.loads(line)
    if os.fork() == 0:
        {"read": read, "join": join}[what](*arguments)
        print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0], flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.fixture(scope="module")
def peak() -> Iterator[Callable[..., int]]:
    """Peak memory in bytes of a process that does one thing: a fork of one that has loaded everything."""
    command = [sys.executable, "-c", READER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None

        def ask(what: str, *arguments: object) -> int:
            reader.stdin.write(json.dumps([what, *map(str, arguments)]) + "\n")
            reader.stdin.flush()
            return int(reader.stdout.readline()) << 10

        yield ask


def parquet(path: Path, x: np.ndarray) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])
    pq.write_table(pa.table({"x": column}), path, use_dictionary=False, row_group_size=len(x))


def h5(path: Path, x: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=x, chunks=(500, 128))


def fvecs(path: Path, x: np.ndarray) -> None:
    rows = np.empty((len(x), x.shape[1] + 1), "f4")
    rows[:, :1].view("i4")[...] = x.shape[1]
    rows[:, 1:] = x
    rows.tofile(path)


WRITERS: dict[str, tuple[str, Callable[[Path, np.ndarray], None]]] = {
    "npy": (".npy", np.save),
    "npy fortran": (".npy", lambda path, x: np.save(path, np.asfortranarray(x))),
    "npz": (".npz", np.savez),
    "npz compressed": (".npz", np.savez_compressed),
    "safetensors": (".safetensors", lambda path, x: safetensors.numpy.save_file({"x": x}, path)),
    "parquet": (".parquet", parquet),
    "h5": (".h5", h5),
    "fvecs": (".fvecs", fvecs),
    "pt": (".pt", lambda path, x: torch.save(torch.from_numpy(x), path)),
}


@pytest.mark.parametrize("what", WRITERS)
def test_reading_a_longer_dump_takes_no_more_memory(tmp_path: Path, peak: Callable[..., int], what: str) -> None:
    suffix, write = WRITERS[what]
    # Few different values, so that compressing 80 MB takes no time.
    x = np.random.default_rng(0).integers(1, 4, (8 * ROWS, DIM)).astype("f4")
    write(tmp_path / f"short{suffix}", x[:ROWS])
    write(tmp_path / f"long{suffix}", x)
    short, long = (peak("read", tmp_path / f"{name}{suffix}") for name in ("short", "long"))
    assert long - short < ALLOWED, f"{short >> 20} MB for {ROWS} rows, {long >> 20} MB for {8 * ROWS}"


@pytest.mark.parametrize("order", ["same", "joined"])
def test_pairing_longer_dumps_takes_no_more_memory(tmp_path: Path, peak: Callable[..., int], order: str) -> None:
    rng = np.random.default_rng(0)
    peaks = []
    for rows in (ROWS, 8 * ROWS):
        stem = f"{tmp_path}/{rows}"
        np.save(f"{stem}a.npy", np.ones((rows, DIM), "f2"))
        np.save(f"{stem}b.npy", np.ones((rows, DIM), "f2"))
        np.save(f"{stem}ai.npy", np.arange(rows))
        np.save(f"{stem}bi.npy", np.arange(rows) if order == "same" else rng.permutation(rows))
        peaks.append(peak("join", stem, order))
    assert peaks[1] - peaks[0] < ALLOWED, peaks
