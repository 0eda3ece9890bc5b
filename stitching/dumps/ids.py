"""Ids: streamed like the vectors, kept exactly, and hashed the same way for ever."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...aligners.errors import SutureError
from .arrays import BLOCK, Array, Rows

__all__ = [
    "SHOWN",
    "IdColumn",
    "IdKind",
    "as_int64",
    "canonical_int",
    "first_ids",
    "hash_ids",
    "hash_rows",
    "id_array",
    "repeated_ids",
    "same_ids",
    "shown",
]

IdKind = Literal["int", "str"]

INT64_MAX = 2**63 - 1
SHOWN = 5
HELD = 1 << 21  # hashes that are sorted at a time: 16 MB


def id_array(values: Sequence[Any], where: str) -> Array:
    """Python ints as int64 (uint64 above 2^63), strs as an object array; anything else is a SutureError."""
    if all(type(value) is str for value in values):
        out = np.empty(len(values), object)
        out[:] = values
        return out
    for i, value in enumerate(values):
        if type(value) is not int:
            raise SutureError(
                f"{where}: expected ids that are all integers or all strings, got {value!r} beside {values[i - 1]!r}. "
                "Write every id as a string."
            )
    try:
        return np.array(values, np.uint64 if max(values) > INT64_MAX else np.int64)
    except OverflowError as error:
        raise SutureError(
            f"{where}: integer ids must fit into 64 bits, got {min(values)} to {max(values)}. Write them as strings."
        ) from error


def as_int64(ids: Array) -> NDArray[np.int64]:
    """Integer ids for a format that keeps them in one signed column; SutureError above 2^63."""
    if len(ids) and int(ids.max()) > INT64_MAX:
        raise SutureError(
            f"expected integer ids below 2^63, got {ids.max()}. Write these ids as strings, or to .jsonl."
        )
    return ids.astype(np.int64, copy=False)


def canonical_int(text: str) -> bool:
    """Whether `text` is an integer of at most 64 bits that prints as itself: "7" and "-7", not "007" or "+7"."""
    digits = text[1:] if text[:1] == "-" else text
    if not (digits.isascii() and digits.isdigit()) or (digits[0] == "0" and text != "0") or len(digits) > 20:
        return False
    return -(2**63) <= int(text) < 2**64


class IdColumn:
    """The `rows` ids of a dump, all of one `kind`, streamed from where they are stored.

    `chunks` opens a fresh stream of arrays of any length: integers, numpy str, or object arrays of str. `textual`
    says that integers were found in a file that has no types, such as .csv.
    """

    def __init__(
        self, name: str, rows: int, kind: IdKind, chunks: Callable[[], Iterable[Array]], textual: bool = False
    ) -> None:
        self.name = name
        self.rows = rows
        self.kind = kind
        self.textual = textual
        self._chunks = chunks

    def __repr__(self) -> str:
        return f"<IdColumn {self.name} ({self.rows},) {self.kind}>"

    def blocks(self, size: int = BLOCK) -> Iterator[Array]:
        """Arrays `(m,)`, all of exactly `size` ids but the last: int64 or uint64, or numpy str or object of str."""
        held: list[Array] = []
        filled = seen = 0
        for chunk in self._chunks():
            self._check(chunk)
            seen += len(chunk)
            while len(chunk):
                part = chunk[: size - filled]
                held.append(part)
                filled += len(part)
                chunk = chunk[len(part) :]
                if filled == size:
                    yield self._join(held)
                    held, filled = [], 0
        if filled:
            yield self._join(held)
        if seen != self.rows:
            raise SutureError(f"{self.name}: expected {self.rows} ids, the file holds {seen}. Was it changed?")

    def take(self, rows: Rows) -> Array:
        """The ids `(len(rows),)` of the named rows, as an object array of int or str. Costs one pass over the ids."""
        rows = np.asarray(rows, np.int64)
        out = np.empty(len(rows), object)
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        first = at = 0
        for block in self.blocks():
            end = at + int(np.searchsorted(wanted[at:], first + len(block)))
            out[order[at:end]] = block[wanted[at:end] - first].tolist()
            at, first = end, first + len(block)
            if at == len(rows):
                return out
        raise IndexError(f"{self.name}: expected row numbers within 0..{self.rows - 1}, got {rows.max()}")

    def as_text(self) -> "IdColumn":
        """The same ids as strings; exact for `textual` integers, each of which prints as it was written."""
        return IdColumn(self.name, self.rows, "str", lambda: (chunk.astype("U20") for chunk in self._chunks()))

    def _check(self, chunk: Array) -> None:
        kind = "int" if chunk.dtype.kind in "iu" else "str"
        if kind != self.kind:
            raise SutureError(
                f"{self.name}: the ids begin as {self.kind} and go on as {kind} ({chunk[0]!r}). "
                "Write every id the same way."
            )

    def _join(self, parts: list[Array]) -> Array:
        if self.kind == "str":
            return parts[0] if len(parts) == 1 else np.concatenate([part.astype(object) for part in parts])
        # int64 and uint64 side by side would make numpy fall back to float64, which merges neighbours above 2^53
        if any(part.dtype == np.uint64 and part.max() > INT64_MAX for part in parts):
            if any(part.min() < 0 for part in parts):
                raise SutureError(f"{self.name}: negative ids stand beside ids above 2^63. Write them as strings.")
            return np.concatenate([part.astype(np.uint64) for part in parts])
        return np.concatenate([part.astype(np.int64) for part in parts])


def same_ids(a: Array, b: Array) -> bool:
    """Whether two blocks of ids of one kind are equal, element by element."""
    if a.dtype.kind in "iu":
        return np.array_equal(a, b)
    return len(a) == len(b) and a.astype(object).tolist() == b.astype(object).tolist()


def hash_ids(ids: Array) -> NDArray[np.uint64]:
    """64-bit hashes `(n,)` of ids `(n,)`, the same for ever: splits and file provenance are built on them.

    An id hashes by what it prints as, whatever the width or type of its array: `7` as int32, as uint64 and as "7"
    are one id, "007" is another. FNV-1a over the code points, then splitmix64.
    """
    if ids.dtype.kind in "iu":
        ids = ids.astype("U20")
    if not len(ids):
        return np.empty(0, np.uint64)
    width = max(1, max(map(len, ids.tolist()))) if ids.dtype == object else max(1, ids.dtype.itemsize // 4)
    if len(ids) > 1 and len(ids) * width > 1 << 22:  # one long id must not widen a whole block: 4 bytes a cell
        half = len(ids) // 2
        return np.concatenate([hash_ids(ids[:half]), hash_ids(ids[half:])])
    points = np.ascontiguousarray(ids.astype(f"=U{width}")).view(np.uint32).reshape(len(ids), width)
    lengths = np.where(points.any(axis=1), width - np.argmax(points[:, ::-1] != 0, axis=1), 0)
    state = np.full(len(ids), 0xCBF29CE484222325, np.uint64)
    for j in range(int(lengths.max())):
        state = np.where(j < lengths, (state ^ points[:, j]) * np.uint64(0x100000001B3), state)
    return _splitmix64(state)


def repeated_ids(ids: IdColumn) -> tuple[int, list[Any]]:
    """How many ids stand in several rows, and one of them. A pass over the ids for every `HELD` of them."""
    parts = -(-ids.rows // HELD)
    count, known = 0, np.empty(0, np.uint64)
    for part in range(parts):
        mine = [hashed[hashed % np.uint64(parts) == part] for hashed in map(hash_ids, ids.blocks())]
        values, times = np.unique(np.concatenate(mine), return_counts=True)
        again = values[times > 1]
        count, known = count + len(again), known if len(known) else again[:1]
    if not count:
        return 0, []
    first = next(found for block in ids.blocks() if len(found := block[hash_ids(block) == known]))
    return count, first[:1].tolist()


def hash_rows(start: int, stop: int) -> NDArray[np.uint64]:
    """Hashes `(stop - start,)` of row numbers, for dumps without ids: splitmix64, so no two rows collide."""
    return _splitmix64(np.arange(start, stop, dtype=np.uint64))


def _splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # Steele, Lea and Flood 2014; a bijection of 64 bits.
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def first_ids(ids: IdColumn) -> list[Any]:
    """A few ids for messages."""
    first: list[Any] = next(ids.blocks(SHOWN)).tolist()
    return first


def shown(ids: IdColumn) -> str:
    """A few ids, as text."""
    return ", ".join(map(repr, first_ids(ids))) + (", ..." if ids.rows > SHOWN else "")
