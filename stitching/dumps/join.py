"""Joining rows by id, out of core: a temporary sqlite database does the sorting."""

import sqlite3
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...aligners.errors import RefusedError
from .arrays import BLOCK, Array, Rows
from .ids import SHOWN, IdColumn

__all__ = ["Join", "RowPairs", "RowTable"]


class RowTable:
    """A table of row numbers `(n, width)` in a temporary file, which is removed with the object."""

    def __init__(self, chunks: Iterator[Rows], width: int) -> None:
        self.rows = 0
        self._width = width
        with tempfile.NamedTemporaryFile(prefix="suture-", suffix=".rows", delete=False) as file:
            self._path = Path(file.name)
            weakref.finalize(self, self._path.unlink, missing_ok=True)
            for chunk in chunks:
                file.write(np.ascontiguousarray(chunk, np.int64).tobytes())
                self.rows += len(chunk)

    def blocks(self, size: int) -> Iterator[Rows]:
        """Arrays `(m, width)`."""
        with self._path.open("rb") as file:
            while chunk := file.read(size * 8 * self._width):
                yield np.frombuffer(chunk, np.int64).reshape(-1, self._width)


class RowPairs(RowTable):
    """Pairs of source row and target row `(n, 2)`, in the order of the source rows."""

    def __init__(self, chunks: Iterator[Rows]) -> None:
        super().__init__(chunks, 2)


class Join:
    """Tables of ids in a temporary sqlite file; use it as a context manager, which deletes the file.

    A million ids on either side take about 6 seconds, 150 MB of disk (TMPDIR) and 64 MB of memory.
    """

    def __enter__(self) -> "Join":
        self._folder = tempfile.TemporaryDirectory(prefix="suture-join-")
        self._db = sqlite3.connect(Path(self._folder.name) / "ids.sqlite", isolation_level=None)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-64000", "temp_store=FILE"):
            self._db.execute(f"PRAGMA {pragma}")
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._folder.cleanup()

    def load(self, table: str, ids: IdColumn, values: Iterator[Rows] | None = None) -> None:
        """Make `table(id, value)`, indexed by id; `values`, in blocks like the ids, default to the row numbers."""
        # No column type for the id: sqlite then keeps integers as integers and text as text.
        self._db.execute(f"CREATE TABLE {table} (id, value INTEGER, row INTEGER PRIMARY KEY)")
        self._db.execute("BEGIN")
        first = 0
        for block in ids.blocks(BLOCK):
            rows = range(first, first + len(block))
            second = rows if values is None else next(values).tolist()
            self._db.executemany(
                f"INSERT INTO {table} VALUES (?, ?, ?)", zip(storable(block), second, rows, strict=True)
            )
            first += len(block)
        self._db.execute("COMMIT")
        self._db.execute(f"CREATE INDEX {table}_id ON {table} (id)")

    def refuse_duplicates(self, table: str, name: str, advice: str = "") -> None:
        """RefusedError if an id of `table` stands in several rows; `advice` is added to what it says."""
        count, rows, examples = self.repeated(table)
        if count:
            shown = ", ".join(f"{id_!r} ({n} times)" for id_, n in examples)
            raise RefusedError(
                f"{name}: expected every id once, {count} ids stand in {rows} rows: {shown}. Remove the repeats; "
                f"or, if rows correspond by position, pair by row (--by-row){advice}."
            )

    def repeated(self, table: str) -> tuple[int, int, list[tuple[Any, int]]]:
        """How many ids of `table` stand in several rows, in how many, and a few of them, each with its number."""
        repeated = f"FROM (SELECT id, COUNT(*) AS n FROM {table} GROUP BY id HAVING n > 1)"
        count, rows = self._db.execute(f"SELECT COUNT(*), SUM(n) {repeated}").fetchone()
        return count, rows or 0, self._db.execute(f"SELECT id, n {repeated} LIMIT {SHOWN}").fetchall()

    def missing(self, table: str, other: str) -> tuple[int, list[Any]]:
        """How many ids of `table` are not in `other`, and a few of them."""
        where = f"FROM {table} AS a WHERE NOT EXISTS (SELECT 1 FROM {other} AS b WHERE b.id = a.id)"
        count = int(self._db.execute(f"SELECT COUNT(*) {where}").fetchone()[0])
        return count, [row[0] for row in self._db.execute(f"SELECT a.id {where} ORDER BY a.row LIMIT {SHOWN}")]

    def pairs(self, sql: str) -> RowPairs:
        """The `(source row, target row)` that a query yields."""
        return RowPairs(self._chunks(sql))

    def table(self, sql: str, width: int) -> RowTable:
        """The row numbers, `width` in a line, that a query yields."""
        return RowTable(self._chunks(sql), width)

    def _chunks(self, sql: str) -> Iterator[Rows]:
        cursor = self._db.execute(sql)
        return (np.array(chunk, np.int64) for chunk in iter(lambda: cursor.fetchmany(BLOCK), []))


def storable(ids: Array) -> list[Any]:
    """Ids as sqlite stores them: integers above 2^63 as text, which no smaller integer ever is."""
    values: list[Any] = ids.tolist()
    if ids.dtype == np.uint64:
        return [value if value < 2**63 else str(value) for value in values]
    return values
