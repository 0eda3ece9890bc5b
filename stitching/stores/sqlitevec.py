"""sqlite-vec tables. The new gallery is a second vec0 table in the same file; a view is switched."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...aligners.errors import RefusedError, SutureError
from ..dumps.arrays import Array
from ..dumps.extras import need
from ..dumps.ids import id_array
from .address import Address
from .batch import Batch, records
from .ranges import RangeStore
from .store import Facts, Spec, Store

__all__ = ["SqliteVecStore"]

STAMP = "suture_stamp"
METRICS = {"cosine": "cosine", "l2": "l2"}


class SqliteVecStore(RangeStore):
    """``sqlite-vec:file.db#table.column``, a float column of a vec0 table with a primary key.

    ``?view=NAME`` on the target is what is switched, by default ``TABLE_current``: a view over the served table,
    with ``distance`` and ``k``, so that it is searched like the table. vec0 tables cannot be renamed.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        address.allow("view")
        self.table, self.column = address.column()

    @cached_property
    def db(self) -> Any:
        """The file, which is never made here, with the extension loaded; a transaction that ended is on the disk."""
        apsw, vec = need("apsw", "sqlite"), need("sqlite_vec", "sqlite")
        try:
            db = apsw.Connection(self.address.path, flags=apsw.SQLITE_OPEN_READWRITE)
            db.set_busy_timeout(30_000)
            db.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except (apsw.CantOpenError, apsw.NotADBError) as error:
            raise SutureError(f"{self.name}: expected an SQLite file {self.address.path} ({error}).") from error
        db.enable_load_extension(True)
        db.load_extension(vec.loadable_path())
        db.enable_load_extension(False)
        return db

    @property
    def within(self) -> str:
        """The table."""
        return self.table

    def close(self) -> None:
        """Close the file."""
        db = self.__dict__.pop("db", None)
        if db is not None:
            db.close()

    def ask(self, text: str, values: Any = ()) -> list[Any]:
        """All rows of a statement."""
        return list(self.db.execute(text, values))

    def _made(self) -> str | None:
        found = self.ask("SELECT sql FROM sqlite_master WHERE name = ?", [self.table])
        return str(found[0][0]) if found else None

    def exists(self) -> bool:
        """Whether the table is there."""
        return Path(self.address.path).is_file() and self._made() is not None

    @cached_property
    def parts(self) -> list[str]:
        """The columns as they were declared."""
        made = self._made()
        if made is None or "vec0" not in made:
            raise SutureError(f"{self.name}: expected a vec0 table {self.table}, there is none.")
        inside = made[made.index("(") + 1 : made.rindex(")")]
        return [part.strip() for part in inside.split(",") if "=" not in part.split()[0]]

    @cached_property
    def columns(self) -> tuple[str, list[str]]:
        """The primary key, and the payload."""
        names = [part.lstrip("+").split()[0] for part in self.parts]
        keys = [n for n, part in zip(names, self.parts, strict=True) if "primary key" in part.lower()]
        if len(keys) != 1 or self.column not in names:
            raise SutureError(
                f"{self.name}: expected a primary key and a column {self.column}, got {', '.join(names)}."
            )
        return keys[0], [n for n in names if n not in (keys[0], self.column, STAMP)]

    @property
    def declared(self) -> str:
        """How the vectors were declared."""
        return next(part for part in self.parts if part.split()[0] == self.column)

    def facts(self) -> Facts:
        """From the declaration."""
        key, payload = self.columns
        found = re.search(r"float(?:32)?\[(\d+)\]", self.declared)
        if not found:
            raise RefusedError(f"{self.name}: expected float vectors, got '{self.declared}'.")
        metric = re.search(r"distance_metric\s*=\s*(\w+)", self.declared)
        space = METRICS.get(metric[1].lower() if metric else "l2")
        if space is None:
            raise RefusedError(f"{self.name}: expected cosine or L2 distance, got '{self.declared}'.")
        declared = next(part for part in self.parts if part.split()[0] == key)
        stamped = any(part.lstrip("+").split()[0] == STAMP for part in self.parts)
        stamp = self.ask(f'SELECT {STAMP} FROM "{self.table}" LIMIT 1') if stamped else []
        return Facts(
            rows=self.count(),
            dim=int(found[1]),
            dtype="float32",
            metric=space,
            id_kind="int" if "int" in declared.lower() else "str",
            index="vec0",
            payload=tuple(payload),
            model=stamp[0][0] if stamp else None,
        )

    def ids(self) -> list[Any]:
        """All keys."""
        return [row[0] for row in self.ask(f'SELECT "{self.columns[0]}" FROM "{self.table}"')]

    def rows(self, ids: list[Any], vectors: bool) -> Batch:
        """By key, one look-up each: vec0 has no other."""
        key, payload = self.columns
        stamped = any(part.lstrip("+").split()[0] == STAMP for part in self.parts)
        names = [key, *payload, *([STAMP] if stamped else []), *([self.column] if vectors else [])]
        text = f'SELECT {", ".join(map(named, names))} FROM "{self.table}" WHERE "{key}" = ?'
        found = [row for one in ids for row in self.ask(text, [one])]
        rows = np.empty((len(found), 0), np.float32)
        if vectors and found:
            rows = np.stack([np.frombuffer(row[-1], np.float32) for row in found])
        kept = [dict(zip(payload, row[1:], strict=False)) for row in found]
        stamps = [row[1 + len(payload)] for row in found] if stamped else None
        return Batch(id_array([row[0] for row in found], self.name), rows, kept, stamps)

    def accept(self, source: Store, facts: Facts, dim: int, strategy: str) -> None:
        """Beside a table of the same file, whose declaration it takes."""
        super().accept(source, facts, dim, strategy)
        if not isinstance(source, SqliteVecStore) or source.where() != self.where():
            raise RefusedError(f"{self.name}: the new table takes its columns from another in the same file.")

    def vacant(self, spec: Spec) -> None:
        """No table, or this plan's."""
        if not self.exists():
            return
        claims = self.ask("SELECT 1 FROM sqlite_master WHERE name = 'suture_plans'")
        whose = self.ask("SELECT owner FROM suture_plans WHERE name = ?", [self.table]) if claims else []
        if whose != [(spec.owner,)]:
            raise RefusedError(f"{self.name}: expected no table here, there is one. Name another.")

    def create(self, spec: Spec) -> None:
        """The old declaration with the new width, and a column for the stamp; a table of its own keeps the claims."""
        self.vacant(spec)
        if self.exists():
            return
        self.db.execute("CREATE TABLE IF NOT EXISTS suture_plans (name TEXT PRIMARY KEY, owner TEXT)")
        with SqliteVecStore(Address.parse(spec.source)) as old:
            declared = re.sub(r"\[\d+\]", f"[{spec.dim}]", old.declared)
            declared = re.sub(rf"^{old.column}\b", self.column, declared)
            kept = [declared if part == old.declared else part for part in old.parts if STAMP not in part]
        with self.db:
            self.db.execute("INSERT OR REPLACE INTO suture_plans VALUES (?, ?)", [self.table, spec.owner])
            self.db.execute(f'CREATE VIRTUAL TABLE "{self.table}" USING vec0({", ".join([*kept, f"+{STAMP} TEXT"])})')
        self.__dict__.pop("parts", None)
        self.__dict__.pop("columns", None)

    def write(self, number: int, batches: Iterable[Batch]) -> dict[str, Any]:
        """Delete and insert, for vec0 knows no replacing; one transaction a batch."""
        key, payload = self.columns
        names = [key, self.column, STAMP, *payload]
        insert = f'INSERT INTO "{self.table}" ({", ".join(map(named, names))}) VALUES ({", ".join("?" * len(names))})'
        rows = 0
        for batch in batches:
            stamps = batch.stamps or [""] * len(batch)
            kept = records(batch.payload, len(batch))
            with self.db:
                for i, row, stamp, record in zip(batch.ids.tolist(), batch.vectors, stamps, kept, strict=True):
                    self.db.execute(f'DELETE FROM "{self.table}" WHERE "{key}" = ?', [i])
                    vector = row.astype(np.float32).tobytes()
                    self.db.execute(insert, [i, vector, stamp or "", *(record[name] for name in payload)])
            rows += len(batch)
        return {"rows": rows}

    def discard(self, ids: Array) -> None:
        """Delete rows."""
        with self.db:
            for key in ids.tolist():
                self.db.execute(f'DELETE FROM "{self.table}" WHERE "{self.columns[0]}" = ?', [key])

    def has_index(self) -> bool:
        """It searches, exactly."""
        return True

    def search(self, queries: Array, k: int) -> list[list[Any]]:
        """By the table."""
        text = f'SELECT "{self.columns[0]}" FROM "{self.table}" WHERE "{self.column}" MATCH ? AND k = ?'
        return [[row[0] for row in self.ask(text, [q.astype(np.float32).tobytes(), k])] for q in queries]

    def _view(self, source: Store) -> str:
        table = source.table if isinstance(source, SqliteVecStore) else self.table
        return self.address.options.get("view", f"{table}_current")

    def serving(self, source: Store) -> str | None:
        """The statement that made the view."""
        found = self.ask("SELECT sql FROM sqlite_master WHERE type = 'view' AND name = ?", [self._view(source)])
        return str(found[0][0]) if found else None

    def point(self, source: Store, *, at: str | None, left_out: int = 0) -> None:
        """Replace the view in one transaction."""
        view = self._view(source)
        key, payload = self.columns
        old = source.column if isinstance(source, SqliteVecStore) else self.column
        what = [named(key), f"{named(self.column)} AS {named(old)}", *map(named, payload), "distance", "k"]
        made = f'CREATE VIEW "{view}" AS SELECT {", ".join(what)} FROM "{self.table}"'
        with self.db:
            self.db.execute(f'DROP VIEW IF EXISTS "{view}"')
            if at is not None:
                self.db.execute(made if at == "target" else at)

    def undone(self, source: Store) -> str:
        """The view."""
        return f"{self.address.path}, view {self._view(source)}"

    def drop(self) -> None:
        """Delete the table, unless a view shows it."""
        views = self.ask("SELECT name, sql FROM sqlite_master WHERE type = 'view'")
        shown = [name for name, text in views if f'FROM "{self.table}"' in text]
        if shown:
            raise RefusedError(f"{self.name}: the view {shown[0]} shows this table; it is not deleted.")
        with self.db:
            self.db.execute(f'DROP TABLE "{self.table}"')
            self.db.execute("DELETE FROM suture_plans WHERE name = ?", [self.table])


def named(column: str) -> str:
    """A name in SQL."""
    return f'"{column}"'
