"""Folders of .npy or .h5 files: vectors and ids, nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...aligners.errors import RefusedError, SutureError, UsageError
from ..dumps import Dump, open_dump
from ..dumps.arrays import Array
from ..dumps.formats import SINKS
from ..dumps.formats.hdf5 import H5Sink
from ..dumps.formats.sinks import Sink
from .batch import Batch
from .disk import aside, checksum, read_json
from .files import GALLERY, PartsStore, id_kind
from .store import Facts, Store

__all__ = ["H5Store", "NpyStore"]


class PlainStore(PartsStore):
    """Parts that are opened as dumps. Ids stand in the part, or beside it in ``_PART.ids.npy``."""

    options: ClassVar[tuple[str, ...]] = ("id", "ids")

    def sink_kind(self) -> type[Sink]:
        """What writes a part."""
        return SINKS[self.suffix]

    def accept(self, source: Store, facts: Facts, dim: int, strategy: str) -> None:
        """Ids are written into or beside the parts."""
        super().accept(source, facts, dim, strategy)
        if "ids" in self.address.options:
            raise UsageError(f"{self.name}: a new gallery holds its ids itself; leave ?ids= out.")

    def dump_of(self, part: Path) -> Dump:
        """A part with its ids, where it has any."""
        ids: Path | str | None = self.address.options.get("ids")
        beside = part.with_name(f"_{part.name}.ids.npy")
        if ids is None and beside.is_file():
            ids = beside
        return open_dump(part, column=self.address.vector, ids=ids, id_column=self.address.options.get("id"))

    @cached_property
    def first(self) -> Dump:
        """The first part."""
        if self.path.is_dir() and len(self.parts) > 1 and "ids" in self.address.options:
            raise RefusedError(f"{self.name}: one file of ids cannot belong to {len(self.parts)} parts.")
        return self.dump_of(self.parts[0])

    def has_ids(self) -> bool:
        """Whether they stand in or beside the parts."""
        return self.first.ids is not None

    def part_rows(self, part: Path) -> int:
        """From the header."""
        return self.dump_of(part).rows

    def check_part(self, part: Path) -> None:
        """One width, one type, one kind of ids."""
        ours, theirs = self.first, self.dump_of(part)
        there, here = (
            f"{d.dim} columns of {d.dtype}, ids {'none' if d.ids is None else d.ids.kind}" for d in (ours, theirs)
        )
        if there != here:
            raise RefusedError(f"{part}: expected {there}, as in {self.parts[0].name}, got {here}.")

    def facts(self) -> Facts:
        """From the first part."""
        dump = self.first
        kind = "int" if dump.ids is None else dump.ids.kind
        return self.facts_with(dim=dump.dim, dtype=str(dump.dtype), id_kind=kind)

    def rows_of(self, part: Path, start: int, stop: int, base: int, size: int, vectors: bool) -> Iterator[Batch]:
        """Blocks of the dump; where it has no ids, row numbers are the ids."""
        dump = self.dump_of(part)
        stamps = self.stamps_of(part)
        names = None if dump.ids is None else chain_ids(dump, start, stop, size)
        blocks: Iterator[Array | None] = dump.blocks(size, start, stop) if vectors else iter(lambda: None, 0)
        at = start
        while at < stop:
            block = next(blocks)
            count = min(size, stop - at)
            ids = np.arange(base + at, base + at + count) if names is None else next(names)
            rows = np.empty((count, 0), np.float32) if block is None else block.copy()
            yield Batch(ids, rows, None, None if stamps is None else stamps[at : at + count])
            at += count

    def stamps_of(self, part: Path) -> list[str | None] | None:
        """The stamps of a part that suture wrote: beside it where they differ, else one for all rows."""
        beside = part.with_name(f"_{part.name}.stamps.npy")
        if beside.is_file():
            stamps: list[str | None] = np.load(beside).tolist()
            return stamps
        own = read_json(part.parent / GALLERY)
        return None if own is None else [own["model"]] * self.part_rows(part)

    def put(self, part: Path, batches: Iterator[Batch]) -> int:
        """Vectors in the part; ids and stamps in it or beside it, there before it is."""
        first = next(batches, None)
        if first is None:
            return 0
        make = self.sink_kind()
        rows, ids, stamps = 0, list[Array](), list[str | None]()
        with aside(part) as file:
            sink = make(
                file, first.vectors.shape[1], first.vectors.dtype, id_kind(first.ids) if make.holds_ids else None
            )
            try:
                batch: Batch | None = first
                while batch is not None:
                    if batch.payload is not None:
                        raise SutureError(f"{self.name}: {self.suffix} files keep no payload; use parquet.")
                    sink.write(np.ascontiguousarray(batch.vectors), batch.ids if make.holds_ids else None)
                    ids.append(batch.ids)
                    stamps += batch.stamps or [None] * len(batch)
                    rows += len(batch)
                    batch = next(batches, None)
                sink.finish(rows)
            except BaseException:
                sink.abandon()
                raise
            beside = {"ids": np.concatenate(ids)} if not make.holds_ids else {}
            if beside and beside["ids"].dtype == object:
                beside["ids"] = beside["ids"].astype(str)
            if set(stamps) != {(read_json(part.parent / GALLERY) or {}).get("model")}:
                beside["stamps"] = np.array([stamp or "" for stamp in stamps])
            else:
                part.with_name(f"_{part.name}.stamps.npy").unlink(missing_ok=True)
            for name, values in beside.items():
                with aside(part.with_name(f"_{part.name}.{name}.npy")) as other:
                    np.save(other, values, allow_pickle=False)
        return rows

    def write(self, number: int, batches: Iterable[Batch]) -> dict[str, Any]:
        """With the checksums of what stands beside the part."""
        entry = super().write(number, batches)
        part = self.part_of(number)
        entry["beside"] = {p.name: checksum(p) for p in sorted(part.parent.glob(f"_{part.name}.*.npy"))}
        return entry

    def recorded(self, number: int, entry: dict[str, Any], *, deep: bool) -> bool:
        """What stands beside the part counts too."""
        beside = {name: self.path / name for name in entry["beside"]}
        if not super().recorded(number, entry, deep=deep) or not all(p.is_file() for p in beside.values()):
            return False
        return not deep or all(checksum(p) == entry["beside"][name] for name, p in beside.items())


def chain_ids(dump: Dump, start: int, stop: int, size: int) -> Iterator[Array]:
    """The ids of the rows from ``start`` to ``stop``, in arrays of ``size`` that line up with the blocks."""
    assert dump.ids is not None
    skipped, left = start, stop - start
    held = np.empty(0, object if dump.ids.kind == "str" else np.int64)
    for block in dump.ids.blocks(size):
        if skipped >= len(block):
            skipped -= len(block)
            continue
        fresh = block[skipped : skipped + left - len(held)]
        skipped = 0
        fresh = fresh.astype(object) if fresh.dtype.kind == "U" else fresh
        held = fresh if not len(held) else np.concatenate([held, fresh])
        while len(held) >= size or (held.size and len(held) == left):
            yield held[:size]
            left -= len(held[:size])
            held = held[size:]
        if not left:
            return


class NpyStore(PlainStore):
    """``npy:dir`` or ``npy:file.npy?ids=ids.npy``."""

    suffix = ".npy"

    def accept(self, source: Store, facts: Facts, dim: int, strategy: str) -> None:
        """They hold one array without a name."""
        super().accept(source, facts, dim, strategy)
        if self.address.vector or "id" in self.address.options:
            raise UsageError(f"{self.name}: .npy files hold one array without a name; leave #NAME and ?id= out.")


class H5Store(PlainStore):
    """``h5:dir#dataset?id=dataset``; a new gallery has them under these names, else ``embeddings`` and ``ids``."""

    suffix = ".h5"

    def sink_kind(self) -> type[Sink]:
        """One that knows these names. Raises `UsageError` where both are the same."""
        vectors, ids = H5Sink.names
        named = self.address.vector or vectors, self.address.options.get("id", ids)
        if named[0] == named[1]:
            raise UsageError(f"{self.name}: vectors and ids cannot both be the dataset {named[0]}.")

        class Named(H5Sink):
            names = named

        return Named

    def accept(self, source: Store, facts: Facts, dim: int, strategy: str) -> None:
        """Under two names."""
        super().accept(source, facts, dim, strategy)
        self.sink_kind()
