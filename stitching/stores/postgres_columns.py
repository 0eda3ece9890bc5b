"""The statements that change a table: adding the new column, exchanging it with the old one, and back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ...aligners.errors import IncompleteError, RefusedError
from ..dumps.arrays import Array
from ..dumps.extras import need

if TYPE_CHECKING:
    from .postgres import PostgresStore

__all__ = [
    "add_column",
    "before",
    "columns_of",
    "comment",
    "drop_column",
    "index_of",
    "is_not_null",
    "plain",
    "require_free",
    "stamp_of",
    "text_of",
    "to_new",
    "to_old",
    "wait_for_builder",
]

WAIT = "5s"  # for a lock: behind a waiting rename, every query of the table would wait too


def comment(owner: str) -> str:
    """What marks the new column as that of a plan."""
    return f"suture {owner}"


def stamp_of(column: str) -> str:
    """The column of the stamps."""
    return f"{column}_stamp"


def before(column: str) -> str:
    """What the old column is called while the new one bears its name."""
    return f"{column}_old"


def columns_of(store: PostgresStore) -> list[tuple[str, str, int]]:
    """Name, type and modifier of every column of the table; none where there is no table."""
    rows: list[tuple[str, str, int]] = store.db.execute(
        "SELECT a.attname, t.typname, a.atttypmod FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
        "WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        [store.table],
    ).fetchall()
    return rows


def require_free(store: PostgresStore, old: str) -> None:
    """Raise `RefusedError` where the new column's name is taken, or ``old`` cannot give up its own."""
    there = store.columns()
    if store.column in there:
        raise RefusedError(f"{store.name}: expected no column of this name, there is one. Name another.")
    if before(old) in there:
        raise RefusedError(f"{store.name}: {before(old)} is there from an earlier upgrade; retire that first.")
    if old not in there:
        raise RefusedError(f"{store.name}: the old column {old} is gone.")


def guard_name(store: PostgresStore) -> str:
    """Of the trigger and its function."""
    schema, dot, table = store.table.rpartition(".")
    return f"{schema}{dot}_suture_{table}_{store.wanted}"


@contextmanager
def changing(store: PostgresStore) -> Iterator[None]:
    """A transaction that holds the table alone; given up where others are in the way for too long."""
    errors = need("psycopg.errors", "postgres")
    try:
        with store.db.transaction():
            store.db.execute(f"SET LOCAL lock_timeout = '{WAIT}'")
            store.db.execute(store.sql("LOCK TABLE {t} IN ACCESS EXCLUSIVE MODE"))
            yield
    except errors.LockNotAvailable as error:
        raise IncompleteError(
            f"{store.name}: the table was in use for {WAIT}, nothing was changed. Run the command again when no long "
            "transaction is open."
        ) from error


def add_column(store: PostgresStore, old: str, kind: str, owner: str) -> None:
    """The new column, its stamp, and the trigger that empties both in a row whose old vector changes."""
    sql = need("psycopg.sql", "postgres")
    with changing(store):
        store.db.execute(store.sql("ALTER TABLE {t} ADD COLUMN {v} ") + sql.SQL(kind))
        store.db.execute(store.sql("ALTER TABLE {t} ADD COLUMN {s} text"))
        store.db.execute(store.sql("COMMENT ON COLUMN {t}.{v} IS ") + sql.Literal(comment(owner)))
        guard(store, old, "NEW.{v} := NULL; NEW.{s} := NULL;")


def guard(store: PostgresStore, watched: str, body: str) -> None:
    """A trigger that does ``body`` where the ``watched`` column changes, in place of the one there may be."""
    sql = need("psycopg.sql", "postgres")
    name = guard_name(store)
    text = store.sql("BEGIN " + body + " RETURN NEW; END").as_string(store.db)
    unguard(store)
    store.db.execute(
        store.sql("CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS ", f=name) + sql.Literal(text)
    )
    store.db.execute(
        store.sql(
            "CREATE TRIGGER {g} BEFORE UPDATE ON {t} FOR EACH ROW WHEN (OLD.{o} IS DISTINCT FROM NEW.{o}) "
            "EXECUTE FUNCTION {f}()",
            f=name,
            g=name.rpartition(".")[2],
            o=watched,
        )
    )


def unguard(store: PostgresStore) -> None:
    """Remove the trigger."""
    name = guard_name(store)
    store.db.execute(store.sql("DROP TRIGGER IF EXISTS {g} ON {t}", g=name.rpartition(".")[2]))
    store.db.execute(store.sql("DROP FUNCTION IF EXISTS {f}()", f=name))


def wait_for_builder(store: PostgresStore) -> None:
    """Wait for the index that a run that was killed had begun: its server process goes on, and to drop it deadlocks."""
    building = "SELECT 1 FROM pg_stat_progress_create_index WHERE relid = to_regclass(%s)"
    while store.ask(building, [store.table]):
        time.sleep(0.2)


def is_not_null(store: PostgresStore) -> bool:
    """Whether the column refuses null."""
    found = store.db.execute(
        "SELECT attnotnull FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s",
        [store.table, store.column],
    ).fetchone()
    return bool(found and found[0])


def rename(store: PostgresStore, a: str, b: str) -> None:
    """A column and its stamp, where it has one."""
    columns = store.columns()
    store.db.execute(store.sql("ALTER TABLE {t} RENAME COLUMN {a} TO {b}", a=a, b=b))
    if stamp_of(a) in columns:
        store.db.execute(store.sql("ALTER TABLE {t} RENAME COLUMN {a} TO {b}", a=stamp_of(a), b=stamp_of(b)))


def to_new(store: PostgresStore, source: PostgresStore, left_out: int) -> None:
    """The new column takes the old name. `RefusedError` where a row came that has no new vector yet."""
    if store.column == source.wanted:
        return
    name = source.wanted
    with changing(store):
        waiting = store.ask("SELECT count(*) FROM {t} WHERE {v} IS NULL AND {o} IS NOT NULL", o=name)[0][0]
        if waiting > left_out:
            raise RefusedError(f"{source.name}: {waiting - left_out} rows came just now; run apply and verify again.")
        unguard(store)
        # Rows that come after the switch have no old vector.
        store.db.execute(store.sql("ALTER TABLE {t} ALTER COLUMN {o} DROP NOT NULL", o=name))
        rename(store, name, before(name))
        rename(store, store.column, name)
        store.column, source.column = name, before(name)
        # A vector that is written from now on is not the upgrade's: it loses the stamp, unless it brings its own.
        guard(store, name, "IF NEW.{s} IS NOT DISTINCT FROM OLD.{s} THEN NEW.{s} := NULL; END IF;")


def to_old(store: PostgresStore, source: PostgresStore, *, restore: bool) -> None:
    """The old column takes its name back; ``restore``: and refuses null again, where it can."""
    if store.column != source.wanted:
        return
    name = source.wanted
    with changing(store):
        unguard(store)
        rename(store, name, store.wanted)
        rename(store, before(name), name)
        store.column, source.column = store.wanted, name
        missing = store.ask("SELECT EXISTS (SELECT 1 FROM {t} WHERE {o} IS NULL)", o=name)[0][0]
        if restore and not missing:
            store.db.execute(store.sql("ALTER TABLE {t} ALTER COLUMN {o} SET NOT NULL", o=name))
        guard(store, name, "NEW.{v} := NULL; NEW.{s} := NULL;")


def drop_column(store: PostgresStore) -> None:
    """Drop the column with its stamp; with it goes what the upgrade added to the table."""
    with changing(store):
        columns = store.columns()
        for name in (store.column, stamp_of(store.column)):
            if name in columns:
                store.db.execute(store.sql("ALTER TABLE {t} DROP COLUMN {o}", o=name))
        left = store.db.execute(
            "SELECT t.tgname, n.nspname || '.' || p.proname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN "
            "pg_namespace n ON n.oid = p.pronamespace WHERE t.tgrelid = to_regclass(%s) AND t.tgname LIKE %s",
            [store.table, r"\_suture\_%"],
        ).fetchall()
        for trigger, function in left:
            store.db.execute(store.sql("DROP TRIGGER {g} ON {t}", g=trigger))
            store.db.execute(store.sql("DROP FUNCTION {f}()", f=function))


def plain(key: Any) -> Any:
    """An id as JSON has it."""
    return key if isinstance(key, int) or key is None else str(key)


def text_of(row: Array) -> str:
    """A vector as pgvector reads it, exact for float32."""
    return "[" + ",".join(map(repr, row.astype(np.float32).astype(float).tolist())) + "]"


def index_of(store: PostgresStore) -> tuple[str, str, str] | None:
    """Method, operator class and options of the valid index on the column."""
    found = store.db.execute(
        "SELECT am.amname, oc.opcname, COALESCE(array_to_string(c.reloptions, ', '), '') FROM pg_index i "
        "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam "
        "JOIN pg_opclass oc ON oc.oid = i.indclass[0] JOIN pg_attribute a ON a.attrelid = i.indrelid "
        "AND a.attnum = i.indkey[0] WHERE i.indrelid = to_regclass(%s) AND a.attname = %s AND i.indisvalid "
        "AND am.amname IN ('hnsw', 'ivfflat')",
        [store.table, store.column],
    ).fetchone()
    return None if found is None else (found[0], found[1], found[2])
