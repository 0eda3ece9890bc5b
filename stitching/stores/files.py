"""Galleries in files: a folder of parquet, npy or HDF5 parts, or one such file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...aligners.errors import RefusedError, SutureError, UsageError
from ..dumps.arrays import Array
from ..dumps.ids import IdKind
from .address import Address, location
from .batch import Batch, joined
from .disk import (
    checksum,
    free_bytes,
    mark,
    pointed,
    read_json,
    remove,
    resolved,
    set_pointer,
    settle,
    stamped_json,
    write_json,
)
from .remote import is_remote, place, put_first
from .store import Facts, Fragment, Spec, Store

__all__ = ["FileStore", "PartsStore"]

GALLERY = "_gallery.json"


class FileStore(Store):
    """What all stores on disk have in common: the file or folder ``path``, and a pointer beside it.

    The pointer ``_CURRENT`` in the parent folder names the one that is served; a URI of that folder opens it.
    ``remote``: the path may also be that of an object store.
    """

    options: ClassVar[tuple[str, ...]] = ("id",)
    remote: ClassVar[bool] = False

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        address.allow(*self.options)
        if "://" in address.path and not self.remote:
            raise UsageError(f"'{address.text}': expected a path of a local or mounted disk; parquet: takes any.")
        self.path = resolved(place(address.path))

    def pinned(self) -> str:
        """The URI of the very file or folder, not of a pointer to it."""
        options = "&".join(f"{key}={value}" for key, value in self.address.options.items())
        vector = "" if self.address.vector is None else f"#{self.address.vector}"
        return f"{self.address.scheme}:{self.path}{vector}{'?' if options else ''}{options}"

    def where(self) -> tuple[str, ...]:
        """That of the path, not of a pointer to it."""
        return location(str(self.path))

    def exists(self) -> bool:
        """Whether anything stands at the path."""
        return self.path.exists()

    def room_for(self, needed: int) -> None:
        """Raise `RefusedError` where the disk has less free than the new gallery needs; object stores do not say."""
        if is_remote(self.path):
            return
        free = free_bytes(self.path)
        if free < needed:
            raise RefusedError(
                f"{self.path}: the new gallery needs about {needed} bytes, {free} are free on this disk."
            )

    def serving(self, source: Store) -> str | None:
        """What the pointer beside the target says."""
        return pointed(self.path.parent)

    def point(self, source: Store, *, at: str | None, left_out: int = 0) -> None:
        """Replace the pointer beside the target."""
        set_pointer(self.path.parent, self.path.name if at == "target" else at)

    def undone(self, source: Store) -> str:
        """The folder with the pointer: the URI that always opens what is served."""
        return f"{self.address.scheme}:{self.path.parent}"

    def drop(self) -> None:
        """Delete the file or folder; what is served is not deleted."""
        if pointed(self.path.parent) == self.path.name:
            raise RefusedError(f"{self.path} is what {self.path.parent / '_CURRENT'} points to; it is not deleted.")
        remove(self.path)


class PartsStore(FileStore):
    """A folder of parts, all of one kind, in the order of their names, or one file. A target is always a folder.

    Parts do not change: a fragment is a range of rows in one part, and part n of a target is made of fragment n.
    """

    suffix: ClassVar[str]
    keeps_payload: ClassVar[bool] = False

    _walked = -1, 0  # the part that was asked for rows last, and the row after them

    # Reading

    @cached_property
    def parts(self) -> list[Path]:
        """The files that hold rows; SutureError where there are none."""
        if self.path.is_file():
            return [self.path]
        if not self.path.is_dir():
            raise SutureError(f"{self.path}: expected a {self.address.scheme} file or a folder of them, there is none.")
        found = sorted(p for p in self.path.iterdir() if p.suffix == self.suffix and p.name[0] not in "._")
        if not found:
            raise SutureError(f"{self.path}: expected parts that end in {self.suffix}, there are none in this folder.")
        return found

    def part_rows(self, part: Path) -> int:
        """Number of rows in a part, without reading them."""
        raise NotImplementedError

    def check_part(self, part: Path) -> None:
        """Raise `RefusedError` where a part has another schema than the first."""
        raise NotImplementedError

    def rows_of(self, part: Path, start: int, stop: int, base: int, size: int, vectors: bool) -> Iterator[Batch]:
        """Rows ``start`` to ``stop`` of a part; ``base`` is the number of rows in the parts before it."""
        raise NotImplementedError

    def fragments(self, rows: int) -> Iterator[Fragment]:
        """Ranges of up to ``rows`` rows inside the parts."""
        base = 0
        for part in self.parts:
            self.check_part(part)
            count = self.part_rows(part)
            for start in range(0, count, rows):
                stop = min(start + rows, count)
                yield {
                    "part": part.name,
                    "start": start,
                    "stop": stop,
                    "rows": stop - start,
                    "base": base,
                    "mark": mark(part),
                }
            base += count

    def read(self, fragment: Fragment, size: int, *, vectors: bool = True) -> Iterator[Batch]:
        """The rows of the fragment; `RefusedError` where its part was changed or has gone since the plan."""
        part = self.path / fragment["part"] if self.path.is_dir() else self.path
        if mark(part) != fragment["mark"]:
            raise RefusedError(
                f"{part}: this part was changed after the plan was made (size and time then {fragment['mark']}, now "
                f"{mark(part)}). Plan anew, into another folder; the ledger of this plan no longer describes it."
            )
        start, stop = fragment["start"], fragment["stop"]
        yield from self.rows_of(part, start, stop, fragment["base"], size, vectors)

    def count(self) -> int:
        """Rows of all parts."""
        self.__dict__.pop("parts", None)
        return sum(map(self.part_rows, self.parts))

    def facts_with(self, **found: Any) -> Facts:
        """`Facts` of these parts and of what stands in the gallery's own description."""
        own = self.own()
        return Facts(
            rows=self.count(),
            model=None if own is None else own["model"],
            metric=None if own is None else own["metric"],
            bytes=sum(part.stat().st_size for part in self.parts),
            **found,
        )

    # Writing

    def own(self) -> Any:
        """What the folder says of itself, if it was made here."""
        return read_json(self.path / GALLERY) if self.path.is_dir() else None

    def vacant(self, spec: Spec) -> None:
        """A folder that is not there or empty, or this plan's."""
        own = self.own()
        if not self.path.exists() or (own is not None and own["owner"] == spec.owner):
            return
        if self.path.is_file() or any(p.name != f"_{GALLERY}.tmp" for p in self.path.iterdir()):
            raise RefusedError(
                f"{self.path}: expected an empty place for the new gallery, this one "
                f"{f'belongs to another plan{whose(own)}' if own else 'holds files already'}. Name another folder."
            )

    def create(self, spec: Spec) -> None:
        """Make the folder and describe it."""
        self.vacant(spec)
        if self.own() is not None:
            return
        described = {**spec.described(), "source": spec.source}
        if is_remote(self.path):
            if not put_first(self.path / GALLERY, stamped_json(described)):
                self.create(spec)  # whose it is stands there now
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.path / GALLERY, described)
            settle(self.path.parent)

    def part_of(self, number: int) -> Path:
        """Where fragment ``number`` goes."""
        return self.path / f"part-{number:06d}{self.suffix}"

    def put(self, part: Path, batches: Iterator[Batch]) -> int:
        """Write the part and what stands beside it; the number of rows."""
        raise NotImplementedError

    def write(self, number: int, batches: Iterable[Batch]) -> dict[str, Any]:
        """One part, aside and then renamed. A fragment of which no row is left has none."""
        self.__dict__.pop("parts", None)
        part = self.part_of(number)
        rows = self.put(part, (batch for batch in batches if len(batch)))
        if not rows:
            part.unlink(missing_ok=True)
            return {"rows": 0, "part": None}
        return {"rows": rows, "part": part.name, "bytes": part.stat().st_size, "sha256": checksum(part)}

    def recorded(self, number: int, entry: dict[str, Any], *, deep: bool) -> bool:
        """Whether the part is there in its full size, or, if ``deep``, with its checksum."""
        if entry["part"] is None:
            return not self.part_of(number).exists()
        part = self.path / entry["part"]
        whole = part.is_file() and part.stat().st_size == entry["bytes"]
        return whole and (not deep or checksum(part) == entry["sha256"])

    def fetch(self, number: int, ids: Array, *, vectors: bool = True) -> Batch:
        """From part ``number``: its next rows where it is they, as when a part is walked through, else all of it."""
        part = self.part_of(number)
        rows = self.part_rows(part) if part.exists() else 0
        walked, start = self._walked
        start = start if walked == number and start + len(ids) <= rows else 0
        stop = min(start + len(ids), rows)
        found = self._joined(part, start, stop, vectors)
        if found is None or found.ids.tolist() != ids.tolist():
            found = self._joined(part, 0, rows, vectors)
        self._walked = number, stop
        return Batch(ids[:0], np.empty((0, 0), np.float32)) if found is None else by_id(found, ids)

    def _joined(self, part: Path, start: int, stop: int, vectors: bool) -> Batch | None:
        return joined(list(self.rows_of(part, start, stop, 0, 1 << 16, vectors))) if start < stop else None


def by_id(batch: Batch, ids: Array) -> Batch:
    """The rows of ``batch`` with these ids, in that order; absent ones are left out."""
    if len(batch) == len(ids) and batch.ids.tolist() == ids.tolist():
        return batch
    at = {key: i for i, key in enumerate(batch.ids.tolist())}
    return batch.take(np.array([at[key] for key in ids.tolist() if key in at], np.int64))


def whose(own: dict[str, Any]) -> str:
    """The plan that a gallery's description names, in a sentence."""
    return f", {own['plan']}" if "plan" in own else ""


def id_kind(ids: Array) -> IdKind:
    """Whether ids are integers or texts."""
    return "int" if ids.dtype.kind in "iu" else "str"


def starts(counts: Iterable[int]) -> list[int]:
    """Where each of consecutive pieces begins."""
    return [0, *accumulate(counts)]
