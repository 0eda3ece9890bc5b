"""Applying a map to a dump: the numbers, the ids, and what is never half done."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from suture.aligners import Affine, Alignment, RefusedError, Space, UsageError
from suture.stitching.apply import apply, serving_map
from suture.stitching.dumps import BadRows, Dump, open_dump

RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.normal(size=(6, 4)).astype(np.float32), RNG.normal(size=4).astype(np.float32)


def alignment(unit: bool = False) -> Alignment:
    made = Alignment.one_sided(Affine(torch.from_numpy(WEIGHT), torch.from_numpy(BIAS)))
    return Alignment(made.maps, spaces={"target": Space(4, unit)})


@pytest.fixture
def dump(tmp_path: Path) -> Dump:
    np.savez(tmp_path / "in.npz", x=RNG.normal(size=(1000, 6)).astype(np.float32), ids=np.arange(1000) * 2**40)
    return open_dump(tmp_path / "in.npz")


def whole(dump: Dump) -> Any:
    return dump.gather(np.arange(dump.rows))


def test_blocks_do_not_show(dump: Dump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suture.stitching.apply.BLOCK", 64)
    seen: list[int] = []
    done = apply(alignment(), dump, tmp_path / "out.npy", bad_rows=BadRows(), advance=seen.append)
    assert (done.rows, done.dim, done.dtype, done.normalize) == (1000, 4, "float32", "none")
    assert sum(seen) == 1000
    assert len(seen) == 16
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), whole(dump) @ WEIGHT + BIAS, atol=1e-5)
    assert done.ids_path is not None
    ids = open_dump(tmp_path / "out.npy", ids=done.ids_path).ids
    assert ids is not None
    assert np.concatenate([*ids.blocks()]).tolist() == (np.arange(1000) * 2**40).tolist()


@pytest.mark.parametrize(
    ("unit", "asked", "expected"),
    [(True, "auto", "l2"), (False, "auto", "none"), (True, "none", "none"), (False, "l2", "l2")],
)
def test_rows_are_normalised_like_the_target(unit: bool, asked: Any, expected: str) -> None:
    mapping, policy = serving_map(alignment(unit), normalize=asked)
    assert policy == expected
    lengths = np.linalg.norm(mapping(RNG.normal(size=(9, 6)).astype(np.float32)), axis=1)
    assert np.allclose(lengths, 1, atol=1e-6) == (expected == "l2")


def test_the_target_side_stays(dump: Dump) -> None:
    mapping, _ = serving_map(alignment(), "target")
    rows = RNG.normal(size=(9, 4))
    assert np.array_equal(mapping(rows), rows)
    with pytest.raises(UsageError, match="it has source, target"):
        serving_map(alignment(), "left")


def test_bad_rows_fall_out_of_every_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suture.stitching.apply.BLOCK", 10)
    rows = RNG.normal(size=(45, 6)).astype(np.float32)
    bad = [0, 9, *range(20, 30), 44]  # the first row, a whole block, the last row
    rows[bad] = np.nan
    np.savez(tmp_path / "in.npz", x=rows, id=np.array([f"id {i}" for i in range(45)]))
    found = open_dump(tmp_path / "in.npz")
    done = apply(alignment(), found, tmp_path / "out.npy", bad_rows=BadRows("skip"))
    kept = np.delete(np.arange(45), bad)
    assert done.rows == len(kept)
    assert done.dropped == {"nan": len(bad)}
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), rows[kept] @ WEIGHT + BIAS, atol=1e-5)
    ids = open_dump(tmp_path / "out.npy", ids=str(done.ids_path)).ids
    assert ids is not None
    assert np.concatenate([*ids.blocks()]).tolist() == [f"id {i}" for i in kept]
    with pytest.raises(RefusedError, match="13 nan among 45"):
        apply(alignment(), found, tmp_path / "refused.npy", bad_rows=BadRows())
    assert not list(tmp_path.glob("*refused*"))


def test_a_failure_half_way_leaves_nothing(dump: Dump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up, or the user gives up, in the middle of the dump."""
    (tmp_path / "old.npy").write_bytes(b"precious")
    blocks = Dump.blocks

    def broken(self: Dump, size: int = 8192, *rest: int) -> Iterator[Any]:
        found = blocks(self, 100, *rest)
        yield next(found)
        raise KeyboardInterrupt

    monkeypatch.setattr(Dump, "blocks", broken)
    monkeypatch.setattr("suture.stitching.apply.BLOCK", 100)
    before = sorted(tmp_path.iterdir())
    for name, overwrite in (("new.npy", False), ("old.npy", True)):
        with pytest.raises(KeyboardInterrupt):
            apply(alignment(), dump, tmp_path / name, bad_rows=BadRows(), overwrite=overwrite)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "old.npy").read_bytes() == b"precious"


def test_the_dump_itself_is_never_the_output(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", RNG.normal(size=(5, 6)))
    found = open_dump(tmp_path / "in.npy")
    with pytest.raises(RefusedError, match="never overwritten"):
        apply(alignment(), found, tmp_path / "in.npy", bad_rows=BadRows(), overwrite=True)


def test_what_does_not_fit_float16(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.full((5, 6), 60000, np.float16) * np.eye(5, 6, dtype=np.float16) + np.float16(1))
    found = open_dump(tmp_path / "in.npy")
    large = Alignment.one_sided(Affine(torch.eye(6) * 2, torch.zeros(6)))
    with pytest.raises(RefusedError, match=r"do not fit float16 \(largest value 1\.2e\+05\)"):
        apply(large, found, tmp_path / "out.npy", bad_rows=BadRows())
    assert not (tmp_path / "out.npy").exists()
    assert apply(large, found, tmp_path / "out.npy", dtype="float32", bad_rows=BadRows()).dtype == "float32"
