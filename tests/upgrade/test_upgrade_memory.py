"""Peak memory of `apply`, as the kernel counts it, does not grow with the number of rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from upgrade_worlds import run_and_weigh

from suture.aligners import Alignment, save_alignment
from suture.aligners.maps import Affine
from suture.stitching.upgrade.planning import make_plan

ROWS, DIM = 16_384, 128  # float32: 8 MB, and 64 MB eight times as long, read and written
ALLOWED = 24 << 20


def test_a_longer_gallery_takes_no_more_memory(here: Path, child: Callable[..., int]) -> None:
    turn = torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(0)))[0]
    save_alignment(Alignment.one_sided(Affine(turn, torch.zeros(DIM))), here / "map.safetensors")
    peaks = []
    for times in (1, 8):
        rows = np.random.default_rng(0).normal(size=(ROWS * times, DIM)).astype(np.float32)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), DIM)
        (here / f"old{times}").mkdir()
        table = pa.table({"id": np.arange(len(rows)), "vector": vectors})
        pq.write_table(table, here / f"old{times}" / "a.parquet", row_group_size=4096, use_dictionary=False)
        source, target = f"parquet:old{times}#vector", f"parquet:new{times}#vector"
        plan = make_plan(here / "map.safetensors", source, target, here / f"{times}.json", fragment_rows=ROWS // 2)
        assert child(run_and_weigh, plan.path) == 0
        assert pq.read_table(here / f"new{times}", columns=["id"]).num_rows == len(rows)
        peaks.append(int(plan.path.with_suffix(".peak").read_text()))
    assert peaks[1] - peaks[0] < ALLOWED, [peak >> 20 for peak in peaks]
