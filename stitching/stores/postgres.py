"""pgvector columns in PostgreSQL. The new gallery is a second column of the same table; two renames switch it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from ...aligners.errors import RefusedError, SutureError, UsageError
from ..dumps.arrays import Array
from ..dumps.extras import need
from ..dumps.ids import id_array
from .address import Address
from .batch import Batch
from .files import by_id
from .postgres_columns import (
    add_column,
    before,
    columns_of,
    comment,
    drop_column,
    index_of,
    is_not_null,
    plain,
    require_free,
    stamp_of,
    text_of,
    to_new,
    to_old,
    wait_for_builder,
)
from .store import Facts, Fragment, Spec, Store

__all__ = ["PostgresStore"]

INTEGERS = ("int2", "int4", "int8")
TEXTS = ("text", "varchar", "bpchar", "uuid")
METRICS = {"vector_cosine_ops": "cosine", "vector_ip_ops": "dot", "vector_l2_ops": "l2"}
OPERATORS = {"cosine": "<=>", "dot": "<#>", "l2": "<->"}
WIDEST = {"vector": 2000, "halfvec": 4000}


class PostgresStore(Store):
    """``postgresql://host/db#table.column?id=column``; the id is the primary key where none is named.

    The target is another column of the same table, so payload, filters and tenants are the same rows. While it is
    filled a trigger empties it in every row whose old vector changes: what is still to do is what is null. ``switch``
    renames both columns in one transaction. ``?type=halfvec`` keeps half precision, which an index needs beyond 2,000
    dims.
    """

    live = True
    shared = True
    added: str | None

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        address.allow("id", "type")
        self.table, self.column = address.column()
        self.wanted, self.added = self.column, None
        self.kind_wanted = address.options.get("type", "vector")
        if self.kind_wanted not in WIDEST:
            raise UsageError(f"{self.name}: ?type= takes vector or halfvec, got {self.kind_wanted}.")

    @property
    def name(self) -> str:
        """Without user and password."""
        return self.address.shown

    @property
    def tolerance(self) -> float:  # type: ignore[override]
        """Rows that are caught up are multiplied in other blocks, which rounds otherwise; halfvec rounds more."""
        return 1e-3 if self.kind_wanted == "halfvec" else 1e-6

    @cached_property
    def db(self) -> Any:
        """One connection; every statement is its own transaction unless one is opened."""
        psycopg = need("psycopg", "postgres")
        try:
            return psycopg.connect(self.address.path, autocommit=True)
        except psycopg.OperationalError as error:
            raise SutureError(f"{self.name}: cannot be reached ({str(error).strip()}).") from error

    def close(self) -> None:
        """Close the connection."""
        db = self.__dict__.pop("db", None)
        if db is not None:
            db.close()

    def sql(self, text: str, **names: str) -> Any:
        """A statement with names quoted: ``{t}`` the table, ``{v}`` the column, ``{i}`` the id, and those given."""
        sql = need("psycopg.sql", "postgres")
        known = {"v": self.column, "s": stamp_of(self.column), **names}
        if "{i}" in text:
            known["i"] = self.id
        quoted = {key: sql.Identifier(*value.split(".")) for key, value in known.items()}
        return sql.SQL(text).format(t=sql.Identifier(*self.table.split(".")), **quoted)

    def ask(self, text: str, values: Any = None, **names: str) -> list[Any]:
        """All rows of a statement."""
        rows: list[Any] = self.db.execute(self.sql(text, **names), values).fetchall()
        return rows

    @property
    def within(self) -> str:
        """Table and column."""
        return f"{self.table}.{self.column}"

    @property
    def called(self) -> str:
        """With the name of the column now."""
        return self.address.naming(self.column)

    def columns(self) -> dict[str, tuple[str, int]]:
        """Type and width (0 where there is none) of the columns, from the catalogue: a vector's is its modifier."""
        return {name: (kind, max(width, 0) if kind in WIDEST else 0) for name, kind, width in columns_of(self)}

    @cached_property
    def id(self) -> str:
        """The column of the ids; `SutureError` where the table has no primary key of one column."""
        if named := self.address.options.get("id"):
            return named
        keys = self.db.execute(
            "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = "
            "ANY(i.indkey) WHERE i.indrelid = to_regclass(%s) AND i.indisprimary",
            [self.table],
        ).fetchall()
        if len(keys) != 1:
            raise SutureError(
                f"{self.name}: expected a primary key of one column, got {len(keys)}; name one: ?id=column"
            )
        return str(keys[0][0])

    def exists(self) -> bool:
        """Whether the column is there."""
        return self.column in self.columns()

    def facts(self) -> Facts:
        """From the catalogue; ids and payload by name."""
        columns = self.columns()
        kind, dim = columns[self.column]
        if kind not in WIDEST:
            raise RefusedError(f"{self.name}: expected a column of type vector or halfvec, got {kind}.")
        key = columns[self.id][0]
        if key not in INTEGERS + TEXTS:
            raise RefusedError(f"{self.name}: expected ids that are integers, texts or UUIDs, got {key}.")
        if not dim:
            found = self.ask("SELECT DISTINCT vector_dims({v}) FROM {t} WHERE {v} IS NOT NULL LIMIT 2")
            if len(found) != 1:
                raise RefusedError(f"{self.name}: expected vectors of one width, got {[row[0] for row in found]}.")
            dim = found[0][0]
        ours = {self.column, self.id, stamp_of(self.column)}
        stamped = stamp_of(self.column) in columns
        model = self.ask("SELECT {s} FROM {t} WHERE {s} IS NOT NULL LIMIT 1") if stamped else []
        index = index_of(self)
        return Facts(
            rows=self.count(),
            dim=dim,
            dtype="float32" if kind == "vector" else "float16",
            metric=METRICS.get(index[1].replace("halfvec", "vector")) if index else None,
            id_kind="int" if key in INTEGERS else "str",
            index=index[0] if index else None,
            payload=tuple(name for name in columns if name not in ours),
            model=model[0][0] if model else None,
            bytes=self.ask("SELECT pg_total_relation_size(to_regclass(%s))", [self.table])[0][0],
        )

    # Reading

    def fragments(self, rows: int) -> Iterator[Fragment]:
        """Ranges of ids from ``after`` (excluded) to ``upto``, found by the database; the ends are open."""
        after = None
        counted = (
            "SELECT {i}, count(*) OVER () FROM (SELECT {i} FROM {t} WHERE {v} IS NOT NULL {a} ORDER BY {i} LIMIT %s) x "
            "ORDER BY {i} DESC LIMIT 1"  # there is no max of UUIDs
        )
        while True:
            where, values = self._range(after, None)
            if not (found := self.ask(counted.replace("{a}", where), [*values, rows])):
                return
            last, count = found[0]
            more_where, more = self._range(last, None)
            more_rows = "SELECT 1 FROM {t} WHERE {v} IS NOT NULL {a} LIMIT 1".replace("{a}", more_where)
            end = not self.ask(more_rows, more)
            yield {"after": plain(after), "upto": None if end else plain(last), "rows": count}
            if end:
                return
            after = last

    def _range(self, after: Any, upto: Any) -> tuple[str, list[Any]]:
        parts = [(after, "AND {i} > %s"), (upto, "AND {i} <= %s")]
        return " ".join(text for key, text in parts if key is not None), [key for key, _ in parts if key is not None]

    def read(self, fragment: Fragment, size: int, *, vectors: bool = True) -> Iterator[Batch]:
        """Rows that have a vector, by keyset: no transaction is held open over a long run."""
        after = fragment["after"]
        while True:
            where, values = self._range(after, fragment["upto"])
            batch = self._batch(f"WHERE {{v}} IS NOT NULL {where} ORDER BY {{i}} LIMIT %s", [*values, size], vectors)
            if not len(batch):
                return
            yield batch
            if len(batch) < size:
                return
            after = batch.ids[-1]
            after = after.item() if hasattr(after, "item") else after

    def _batch(self, tail: str, values: list[Any], vectors: bool) -> Batch:
        stamped = stamp_of(self.column) in self.columns()
        what = "{i}" + (", {v}::text" if vectors else "") + (", {s}" if stamped else "")
        rows = self.ask(f"SELECT {what} FROM {{t}} {tail}", values)
        ids = id_array([plain(row[0]) for row in rows], self.name) if rows else np.empty(0, np.int64)
        found = np.empty((len(rows), 0), np.float32)
        if vectors and rows:
            found = np.stack([np.fromstring(row[1][1:-1], np.float32, sep=",") for row in rows])
        return Batch(ids, found, None, [row[-1] for row in rows] if stamped else None)

    # Writing

    def accept(self, source: Store, facts: Facts, dim: int, strategy: str) -> None:
        """Only beside its source, and only as wide as an index takes."""
        super().accept(source, facts, dim, strategy)
        ours = (self.address.path, self.table)
        if not isinstance(source, PostgresStore) or (source.address.path, source.table) != ours:
            raise RefusedError(f"{self.name}: the new vectors go into a second column of the old table: #table.column2")
        if dim > WIDEST[self.kind_wanted]:
            advice = "add ?type=halfvec" if dim <= WIDEST["halfvec"] else "no type of pgvector has an index so wide"
            raise RefusedError(
                f"{self.name}: the new vectors have {dim} dims, an index on {self.kind_wanted} takes "
                f"{WIDEST[self.kind_wanted]}; {advice}."
            )

    def vacant(self, spec: Spec) -> None:
        """No column, or this plan's; the old one with no other before it."""
        if self.added is None:
            require_free(self, Address.parse(spec.source).column()[1])

    def create(self, spec: Spec) -> None:
        """Add column and stamp, and the trigger that empties them where the old vector changes."""
        self.vacant(spec)
        if self.added is None:
            add_column(self, Address.parse(spec.source).column()[1], f"{self.kind_wanted}({spec.dim})", spec.owner)
            self.adopt(spec.owner, "target")

    def adopt(self, owner: str, role: str) -> None:
        """Find the column of this ``role`` in the plan: after a switch it bears another name; a comment tells."""
        found = self.db.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped "
            "AND col_description(attrelid, attnum) = %s",
            [self.table, comment(owner)],
        ).fetchone()
        self.added = None if found is None else str(found[0])
        self.column = self.wanted
        if self.added is not None and role == "target":
            self.column = self.added
        elif self.added == self.wanted:
            self.column = before(self.wanted)

    def write(self, number: int, batches: Iterable[Batch]) -> dict[str, Any]:
        """COPY into a temporary table, then one UPDATE, a transaction a batch.

        A row whose old vector was changed in the meantime is left: the comparison is with the vector that was mapped.
        """
        rows = 0
        for batch in batches:
            with self.db.transaction():
                self.db.execute("CREATE TEMPORARY TABLE _suture_rows (i text, v text, s text) ON COMMIT DROP")
                with self.db.cursor().copy("COPY _suture_rows FROM STDIN") as copy:
                    stamps = batch.stamps or [None] * len(batch)
                    for key, row, stamp in zip(batch.ids.tolist(), batch.vectors, stamps, strict=True):
                        copy.write_row((str(key), text_of(row), stamp))
                kind, key = self.kind_wanted, self.columns()[self.id][0]
                self.db.execute(
                    self.sql(
                        f"UPDATE {{t}} SET {{v}} = r.v::{kind}, {{s}} = r.s FROM _suture_rows r "
                        f"WHERE {{i}} = r.i::{key}"
                    )
                )
            rows += len(batch)
        return {"rows": rows}

    def discard(self, ids: Array) -> None:
        """Rows that went took their new vectors along."""

    def finish(self, spec: Spec) -> None:
        """Index the new column as the old one is, without locking out writers; an invalid leftover is replaced."""
        with PostgresStore(Address.parse(spec.source)) as old:
            old.adopt(spec.owner, "source")
            like = index_of(old)
        wait_for_builder(self)
        if like is None or index_of(self) is not None:
            return
        name = f"{self.table.split('.')[-1]}_{self.column}_idx"
        schema = f"{self.table.split('.')[0]}." if "." in self.table else ""
        self.db.execute(self.sql("DROP INDEX CONCURRENTLY IF EXISTS {n}", n=schema + name))
        classes = like[1].replace("halfvec", "vector").replace("vector", self.kind_wanted)
        options = f" WITH ({like[2]})" if like[2] else ""
        made = self.sql(f"CREATE INDEX CONCURRENTLY {{n}} ON {{t}} USING {like[0]} ({{v}} {classes}){options}", n=name)
        self.db.execute(made)

    def fetch(self, number: int, ids: Array, *, vectors: bool = True) -> Batch:
        """By id; rows whose new vector is null are not there."""
        key = self.columns()[self.id][0]
        batch = self._batch(f"WHERE {{v}} IS NOT NULL AND {{i}} = ANY(%s::{key}[])", [ids.tolist()], vectors)
        return by_id(batch, ids)

    def count(self) -> int:
        """Rows that have a vector."""
        return int(self.ask("SELECT count(*) FROM {t} WHERE {v} IS NOT NULL")[0][0])

    def has_index(self) -> bool:
        """Where there is one on the column."""
        return index_of(self) is not None

    def search(self, queries: Array, k: int) -> list[list[Any]]:
        """By the database, as it plans it."""
        index = index_of(self)
        metric = METRICS[index[1].replace("halfvec", "vector")] if index else "cosine"
        text = "SELECT {i} FROM {t} WHERE {v} IS NOT NULL ORDER BY {v} "
        text += f"{OPERATORS[metric]} %s::{self.kind_wanted} LIMIT %s"
        return [[plain(row[0]) for row in self.ask(text, [text_of(q), k])] for q in queries]

    # Moving

    def serving(self, source: Store) -> str | None:
        """Which column bears the old name, and whether it may be null."""
        assert isinstance(source, PostgresStore)
        return "source" + (" not null" if is_not_null(source) else "")

    def point(self, source: Store, *, at: str | None, left_out: int = 0) -> None:
        """Rename both columns in one transaction, which gives up after five seconds of waiting for other users."""
        assert isinstance(source, PostgresStore)
        if at == "target":
            to_new(self, source, left_out)
        else:
            to_old(self, source, restore=str(at).endswith("not null"))

    def drop(self) -> None:
        """Drop the column, and what the upgrade added to the table."""
        drop_column(self)
