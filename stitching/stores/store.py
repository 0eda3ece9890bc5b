"""What every store can do. One class a store; the upgrade knows no other way to a gallery."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from ...aligners.errors import RefusedError, SutureError
from ..dumps.arrays import Array
from .address import Address, location
from .batch import Batch

__all__ = ["Facts", "Fragment", "Spec", "Store"]

Fragment = dict[str, Any]
"""A unit of work, as plain JSON: ``rows`` and whatever the store needs to find them again."""


@dataclass(frozen=True)
class Facts:
    """What a gallery says of itself. ``exact``: its vectors come back as they went in; else ``lossy`` says why not."""

    rows: int
    dim: int
    dtype: str
    metric: str | None = None
    id_kind: str = "int"
    exact: bool = True
    lossy: str | None = None
    index: str | None = None
    payload: tuple[str, ...] = ()
    model: str | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Spec:
    """What a new gallery must be: its width and type, the kind of its ids, its metric, and whose it is.

    ``owner`` tells plans apart, ``plan`` names the file.
    """

    dim: int
    dtype: str
    metric: str
    id_kind: str
    owner: str
    model: str
    source: str
    fragments: int
    plan: str

    def described(self) -> dict[str, str]:
        """What stands beside a gallery in files."""
        return {"owner": self.owner, "model": self.model, "metric": self.metric, "plan": self.plan}


class Store(ABC):
    """One gallery in one store, opened by its address. Nothing is written before `create`.

    ``live``: rows may change one by one, as in a database. ``shared``: a target lives in the rows of its source (a
    second column), so payload and deletions need no copying. ``tolerance``: how far a vector that was written may come
    back otherwise, value by value; 0 where it comes back bit for bit.
    """

    live: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    keeps_payload: ClassVar[bool] = True
    text_ids: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.0

    def __init__(self, address: Address) -> None:
        self.address = address

    @property
    def name(self) -> str:
        """As the user wrote it, without what may be secret."""
        return self.address.text

    def where(self) -> tuple[str, ...]:
        """The `location` of the file, folder or server that holds it."""
        return location(self.address.path)

    @property
    def within(self) -> str | None:
        """What it is called in that place; None where it is all of it."""
        return None

    @property
    def called(self) -> str:
        """`name`, with what a switch has renamed as it is called now."""
        return self.name

    def close(self) -> None:  # noqa: B027 files hold nothing open
        """Let go of files and connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def adopt(self, owner: str, role: str) -> None:  # noqa: B027 in most stores names stay
        """Be the "source" or the "target" of the plan ``owner``, whatever its name is now."""

    # Reading

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is a gallery at this address. Looking makes nothing: many clients make what they open."""

    def require(self) -> None:
        """Raise `SutureError` where there is no gallery at this address."""
        if not self.exists():
            raise SutureError(f"{self.name}: expected a gallery, there is none.")

    @abstractmethod
    def facts(self) -> Facts:
        """Describe the gallery; reads no vectors but a few."""

    @abstractmethod
    def fragments(self, rows: int) -> Iterator[Fragment]:
        """Cut the gallery into units of about ``rows`` rows, which together hold every row once."""

    @abstractmethod
    def read(self, fragment: Fragment, size: int, *, vectors: bool = True) -> Iterator[Batch]:
        """The rows of one fragment, always in one order, in batches of up to ``size``.

        Without ``vectors`` these have zero width. Raises `RefusedError` where the fragment is no longer what it was.
        """

    def pinned(self) -> str:
        """The URI of this very gallery: what a pointer or an alias leads to may change."""
        return self.address.text

    def has_ids(self) -> bool:
        """Whether rows have ids of their own, not only numbers."""
        return True

    # Writing; only ever to a gallery that `create` made.

    def accept(self, source: Store, facts: Facts, dim: int, strategy: str) -> None:
        """Raise `RefusedError` unless rows of ``source``, ``dim`` wide, can be written here, payload and all."""
        self.apart(source)
        if facts.payload and not self.keeps_payload:
            raise RefusedError(
                f"{self.name}: {self.address.scheme} keeps no payload, and the gallery has {', '.join(facts.payload)}. "
                "Name a target that keeps it, as parquet: does."
            )
        if facts.id_kind == "str" and not self.text_ids:
            raise RefusedError(f"{self.name}: {self.address.scheme} has integer ids only, the gallery's are texts.")

    def apart(self, source: Store) -> None:
        """Raise `RefusedError` where this place is that of ``source``, by whatever path, or one lies in the other."""
        here, there = self.where(), source.where()
        if here == there and (self.within == source.within or None in (self.within, source.within)):
            raise RefusedError(f"{self.name}: this is the old gallery; the only copy is never overwritten.")
        shared = min(len(here), len(there))
        if here != there and here[:shared] == there[:shared]:
            inner, outer = (self, source) if len(here) > shared else (source, self)
            raise RefusedError(
                f"{self.name}: expected a place apart from the old gallery, but {inner.name} lies in {outer.name}. "
                "Name another folder."
            )

    def bytes_for(self, rows: int, dim: int, itemsize: int, old: int | None) -> int:
        """About how much disk the new gallery takes: the vectors, and as much again for the rest as the old one had."""
        return int(1.1 * rows * (dim * itemsize + 64))

    def room_for(self, needed: int) -> None:  # noqa: B027 a server knows its own disk
        """Raise `RefusedError` where the disk has less free."""

    @abstractmethod
    def vacant(self, spec: Spec) -> None:
        """Raise `RefusedError` unless the place is free, or holds what the same ``spec.owner`` made. Writes nothing."""

    @abstractmethod
    def create(self, spec: Spec) -> None:
        """Make the gallery where it is `vacant`, or find the one that the same ``spec.owner`` made."""

    @abstractmethod
    def write(self, number: int, batches: Iterable[Batch]) -> dict[str, Any]:
        """Write fragment ``number``; on return it is durable and whole. Writing it again changes nothing.

        The value says what was written, for the ledger: ``rows`` and, for files, name and checksum.
        """

    def recorded(self, number: int, entry: dict[str, Any], *, deep: bool) -> bool:
        """Whether what the ledger says of fragment ``number`` still stands; ``deep`` reads the bytes again."""
        return True

    def finish(self, spec: Spec) -> None:  # noqa: B027 most stores have nothing left to do
        """Build what needs all rows: an index. Doing it again changes nothing."""

    def discard(self, ids: Array) -> None:
        """Remove rows that their source no longer has."""
        raise RefusedError(f"{self.name}: rows cannot be removed one by one.")

    @abstractmethod
    def fetch(self, number: int, ids: Array, *, vectors: bool = True) -> Batch:
        """The rows of fragment ``number`` with these ids, in the order of ``ids``; absent ones are left out."""

    @abstractmethod
    def count(self) -> int:
        """How many rows the gallery has now."""

    def has_index(self) -> bool:
        """Whether the store searches by itself."""
        return False

    def search(self, queries: Array, k: int) -> list[list[Any]]:
        """The ids that the store's own search finds for each query, best first."""
        raise NotImplementedError

    # Moving

    @abstractmethod
    def serving(self, source: Store) -> str | None:
        """What users are led to now, by the name that `point` moves."""

    @abstractmethod
    def point(self, source: Store, *, at: str | None, left_out: int = 0) -> None:
        """Lead users to ``at``: "target", or what `serving` said before. Doing it again changes nothing.

        A store that can tell in the same transaction refuses where more than ``left_out`` rows are not here.
        """

    @abstractmethod
    def drop(self) -> None:
        """Delete the gallery."""

    def undone(self, source: Store) -> str:
        """How a user opens what is served now; where `point` renames, by the address of the old gallery."""
        return source.name
