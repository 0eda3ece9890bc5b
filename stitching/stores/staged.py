"""Galleries that are one index file: mapped rows are staged part by part, and the index is built of them at the end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...aligners.errors import RefusedError
from ..dumps.arrays import Array
from ..dumps.atomic import sync_folder
from .address import Address
from .batch import Batch
from .disk import aside, checksum, mark, read_json, write_json
from .files import FileStore, by_id, whose
from .plain import NpyStore
from .store import Facts, Fragment, Spec, Store

__all__ = ["IndexStore"]


class IndexStore(FileStore):
    """One index file. While it is made, its rows lie in the folder ``_NAME.parts`` beside it, as a gallery of .npy.

    These parts stay: they are what a vector is read back from exactly, and what backfill changes before the index is
    built anew. ``_NAME.json`` beside the file says whose it is.
    """

    keeps_payload: ClassVar[bool] = False
    text_ids: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ()
    _summed: tuple[list[Any] | None, str] = None, ""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._loaded: Any = None

    # What an index must do

    @abstractmethod
    def open_index(self) -> Any:
        """Read the index file."""

    @abstractmethod
    def index_facts(self, index: Any) -> Facts:
        """What it says of itself."""

    @abstractmethod
    def index_rows(self, index: Any, start: int, stop: int) -> tuple[Array, Array]:
        """Ids and vectors at these positions; the order never changes."""

    @abstractmethod
    def build(self, spec: Spec, rows: int, batches: Iterator[Batch], path: Path) -> None:
        """Write an index of all rows to ``path``."""

    # Reading

    @property
    def index(self) -> Any:
        """The index, read once."""
        if self._loaded is None:
            self._loaded = self.open_index()
        return self._loaded

    @property
    def described(self) -> Path:
        """The description beside the file."""
        return self.path.with_name(f"_{self.path.name}.json")

    @property
    def parts(self) -> NpyStore:
        """The staged rows."""
        return NpyStore(Address.parse(f"npy:{self.path.with_name(f'_{self.path.name}.parts')}"))

    def facts(self) -> Facts:
        """Those of the index, and the stamp."""
        found = self.index_facts(self.index)
        own = read_json(self.described)
        return Facts(
            **{
                **vars(found),
                "model": None if own is None else own["model"],
                "bytes": self.path.stat().st_size,
            }
        )

    def fragments(self, rows: int) -> Iterator[Fragment]:
        """Ranges of positions."""
        count, size = self.count(), self.path.stat()
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            mark = [size.st_size, size.st_mtime_ns]
            yield {"part": self.path.name, "start": start, "stop": stop, "rows": stop - start, "mark": mark}

    def read(self, fragment: Fragment, size: int, *, vectors: bool = True) -> Iterator[Batch]:
        """Positions in order; `RefusedError` where the file was changed since the plan."""
        found = self.path.stat() if self.path.exists() else None
        if found is None or [found.st_size, found.st_mtime_ns] != fragment["mark"]:
            raise RefusedError(f"{self.path}: this index was changed or removed after the plan was made. Plan anew.")
        for first in range(fragment["start"], fragment["stop"], size):
            ids, rows = self.index_rows(self.index, first, min(first + size, fragment["stop"]))
            yield Batch(ids, rows)

    def count(self) -> int:
        """As the index counts."""
        return self.index_facts(self.index).rows

    # Writing

    def vacant(self, spec: Spec) -> None:
        """No file, or this plan's; the same of its parts."""
        own = read_json(self.described)
        if own is not None and own["owner"] != spec.owner:
            raise RefusedError(f"{self.path}: this place belongs to another plan{whose(own)}. Name another file.")
        if own is None and self.path.exists():
            raise RefusedError(f"{self.path}: expected no file here, there is one. Name another.")
        self.parts.vacant(spec)

    def create(self, spec: Spec) -> None:
        """Claim the place; the index itself appears when all rows are there."""
        self.vacant(spec)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if read_json(self.described) is None:
            write_json(self.described, spec.described())
        self._parts = self.parts
        self._parts.create(spec)

    def write(self, number: int, batches: Iterable[Batch]) -> dict[str, Any]:
        """Stage one part."""
        return self._staged().write(number, batches)

    def _staged(self) -> NpyStore:
        if not hasattr(self, "_parts"):
            self._parts = self.parts
        return self._parts

    def recorded(self, number: int, entry: dict[str, Any], *, deep: bool) -> bool:
        """Whether its part stands, and, if ``deep``, the index is the one that was built."""
        return self._staged().recorded(number, entry, deep=deep) and (not deep or self.as_built())

    def as_built(self) -> bool:
        """Whether the index is, byte for byte, the one that was built; read once while it stays as it is."""
        if not self.path.exists():
            return False
        now = mark(self.path)
        if self._summed[0] != now:
            self._summed = now, checksum(self.path)
        own = read_json(self.described) or {}
        return bool(self._summed[1] == own.get("sha256"))

    def rewritten(self) -> bool:
        """Whether somebody wrote the index since it was built, and not a run that was killed before it said so."""
        own = read_json(self.described) or {}
        return not self.as_built() and own.get("of") == "".join(checksum(p) for p in self.parts.parts)

    def finish(self, spec: Spec) -> None:
        """Build the index of the staged rows, aside, and put it in its place."""
        staged = self.parts
        digest = "".join(checksum(p) for p in staged.parts)
        own = read_json(self.described) or {}
        if own.get("of") == digest and self.as_built():
            return

        def rows() -> Iterator[Batch]:
            for fragment in staged.fragments(1 << 62):
                yield from staged.read(fragment, 1 << 14)

        with aside(self.path) as file:
            self.build(spec, staged.count(), rows(), Path(file.name))
            file.seek(0, 2)
        self._loaded = None
        write_json(self.described, {**spec.described(), "of": digest, "sha256": checksum(self.path)})
        sync_folder(self.path.parent)

    def fetch(self, number: int, ids: Array, *, vectors: bool = True) -> Batch:
        """From the staged part; the index check of `verify` looks at the index itself."""
        return by_id(self._staged().fetch(number, ids, vectors=vectors), ids)

    def has_index(self) -> bool:
        """It is one."""
        return True

    def drop(self) -> None:
        """The file and what stands beside it."""
        super().drop()
        parts = self.path.with_name(f"_{self.path.name}.parts")
        if parts.exists():
            FileStore.drop(self.parts)
        self.described.unlink(missing_ok=True)

    def point(self, source: Store, *, at: str | None, left_out: int = 0) -> None:
        """Replace the pointer beside the index; what serves must load the file that it names."""
        super().point(source, at=at)


def as_float32(rows: Array) -> Array:
    """Contiguous float32, as indexes want it."""
    return np.ascontiguousarray(rows, np.float32)
