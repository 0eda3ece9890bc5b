"""A large gallery upgraded against the bare loop of read, multiply and write.

The bare loop reads the same parquet files, multiplies, brings rows to length 1, and writes parquet: no ids checked, no
payload, no ledger, no checksum, no fsync. Each contestant is a process of its own, and its peak memory is what the
kernel counts for it. They take turns.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from suture.aligners import Procrustes, save_alignment
from suture.stitching.stores.disk import checksum

import results

OLD, NEW, LATENT, PART = 384, 768, 64, 250_000
CHILD = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
import torch
torch.set_num_threads(1)
import upgrade
started = time.perf_counter()
upgrade.{what}(Path({folder!r}))
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({{"seconds": time.perf_counter() - started, "peak": peak}}))
"""


def make(folder: Path, rows: int, dims: tuple[int, int] = (OLD, NEW)) -> None:
    """Parts of float16 rows with an id and a payload, and a map fitted on 20,000 pairs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    generator = torch.Generator().manual_seed(0)
    old, new = (torch.randn(LATENT, dim, generator=generator) for dim in dims)

    def encode(latent: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(len(latent), matrix.shape[1], generator=generator)
        return torch.nn.functional.normalize(latent @ matrix + 2 * noise, dim=1)

    fit = torch.randn(20_000, LATENT, generator=generator)
    save_alignment(Procrustes().fit(encode(fit, old), encode(fit, new)), folder / "map.safetensors", overwrite=True)
    (folder / "old").mkdir()
    for start in range(0, rows, PART):
        count = min(PART, rows - start)
        x = encode(torch.randn(count, LATENT, generator=generator), old).half().numpy()
        columns = {
            "id": pa.array(np.arange(start, start + count)),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), dims[0]),
            "lang": pa.array(["en", "de"] * (count // 2) + ["en"] * (count % 2)).dictionary_encode(),
        }
        path = folder / "old" / f"{start:09d}.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=8192, use_dictionary=["lang"], compression="none")


def bare(folder: Path) -> None:
    """Read, multiply, write."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from suture.aligners import load

    mapping = load(folder / "map.safetensors").translate("source", "target")
    (folder / "bare").mkdir()
    for path in sorted((folder / "old").iterdir()):
        writer = None
        for batch in pq.ParquetFile(path).iter_batches(8192, columns=["vector"]):
            x = torch.from_numpy(batch.column(0).flatten().to_numpy().reshape(-1, OLD).copy())
            y = torch.nn.functional.normalize(mapping.forward(x.float()), dim=1).half().numpy()
            table = pa.table({"vector": pa.FixedSizeListArray.from_arrays(pa.array(y.reshape(-1)), NEW)})
            if writer is None:
                target = folder / "bare" / path.name
                writer = pq.ParquetWriter(target, table.schema, use_dictionary=False, compression="none")
            writer.write_table(table)
        writer.close()


def ours(folder: Path) -> None:
    """`suture gallery apply`."""
    from suture.stitching.upgrade.apply import apply
    from suture.stitching.upgrade.plan import load_plan

    apply(load_plan(folder / "plan.json"))


def plan(folder: Path, target: str = "new", fragment_rows: int = 65536) -> None:
    """`suture gallery plan`."""
    from suture.stitching.upgrade.planning import make_plan

    name = "plan.json" if target == "new" else f"{target}.json"
    old, new = f"parquet:{folder}/old#vector", f"parquet:{folder}/{target}#vector"
    make_plan(folder / "map.safetensors", old, new, folder / name, model="new-model", fragment_rows=fragment_rows)


def child(folder: Path, what: str) -> tuple[float, float]:
    """Seconds and peak megabytes of one contestant in a process of its own."""
    code = CHILD.format(here=str(Path(__file__).parent), what=what, folder=str(folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], found["peak"]


def large(rows: int, rounds: int) -> str:
    """The table of speed and memory."""
    with tempfile.TemporaryDirectory(prefix="suture-upgrade-") as name:
        folder = Path(name)
        make(folder, rows)
        planned = child(folder, "plan")
        times: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
        for _ in range(rounds):
            for what, found in times.items():
                for gone in ("bare", "new"):
                    shutil.rmtree(folder / gone, ignore_errors=True)
                shutil.rmtree(folder / "plan.json.state" / "ledger", ignore_errors=True)
                found.append(child(folder, what))
        digests = {path.name: checksum(path) for path in (folder / "new").glob("part-*")}
        same = dask(folder, digests)
        bare_seconds, own_seconds = (min(s for s, _ in times[what]) for what in ("bare", "ours"))
        table = [
            [what, f"{seconds:.1f}", f"{rows / seconds:,.0f}", f"{peak:.0f}", f"{bare_seconds / seconds:.2f}"]
            for what, seconds, peak in (
                ("bare loop", bare_seconds, max(p for _, p in times["bare"])),
                ("suture gallery apply", own_seconds, max(p for _, p in times["ours"])),
            )
        ]
        said = (
            f"{rows:,} x {OLD} float16 to {NEW}, one thread each, best of {rounds}. `plan`, which reads the ids "
            f"once and looks for repeats, took {planned[0]:.1f} s and {planned[1]:.0f} MB. Two Dask workers gave "
            f"{'the same bytes' if same else 'OTHER BYTES'}."
        )
    return said + "\n\n" + results.markdown(["", "s", "rows/s", "peak MB", "speed / bare"], table)


def dask(folder: Path, expected: dict[str, str]) -> bool:
    """Whether two workers make the same files."""
    from suture.stitching.upgrade.dask import apply_on_dask
    from suture.stitching.upgrade.plan import load_plan

    plan(folder, "dask")
    apply_on_dask(load_plan(folder / "dask.json"), workers=2)
    return {path.name: checksum(path) for path in (folder / "dask").glob("part-*")} == expected


def run(data: Path | None, *, quick: bool) -> None:
    """Write results/upgrade.md."""
    results.write("upgrade", large(*((100_000, 1) if quick else (2_000_000, 1))))
