"""LanceDB tables. The new gallery is a second column; every step is a version, and one rename of both switches."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...aligners.errors import IncompleteError, RefusedError, SutureError
from ..dumps.arrays import Array
from ..dumps.extras import need
from .address import Address
from .batch import Batch
from .parquet import arrow_ids
from .ranges import RangeStore
from .store import Facts, Spec, Store

__all__ = ["LanceStore"]

ALL = (1 << 31) - 1
METRICS = {"cosine": "cosine", "dot": "dot", "l2": "l2"}


class LanceStore(RangeStore):
    """``lancedb:dir#table.column?id=column`` (``id`` by default).

    The target is another column of the same table, filled by merge, so payload and filters are the same rows. The old
    column is called ``COLUMN_old`` while the new one bears its name. Versions stay until LanceDB cleans them up.
    """

    shared = True

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        address.allow("id")
        self.table_name, self.column = address.column()
        self.wanted, self.mine = self.column, False
        self.id = address.options.get("id", "id")

    @cached_property
    def db(self) -> Any:
        """The database."""
        require_pandas()
        return need("lancedb", "lancedb").connect(self.address.path)

    @property
    def within(self) -> str:
        """Table and column."""
        return f"{self.table_name}.{self.column}"

    @property
    def called(self) -> str:
        """With the name of the column now."""
        return self.address.naming(self.column)

    def _there(self) -> bool:
        place = self.address.path
        return "://" in place or (Path(place) / f"{self.table_name}.lance").is_dir()

    @property
    def table(self) -> Any:
        """The table at its latest version; `SutureError` where there is none, for connecting would make a folder."""
        if not self._there():
            raise SutureError(f"{self.name}: there is no table {self.table_name}.")
        try:
            return self.db.open_table(self.table_name)
        except (ValueError, OSError) as error:
            raise SutureError(f"{self.name}: there is no table {self.table_name} ({error}).") from error

    def adopt(self, owner: str, role: str) -> None:
        """After a switch both columns bear other names; a tag on the table tells that the new one is of this plan."""
        if not self._there():
            return
        names = self.table.schema.names
        self.mine = tag(owner) in self.table.tags.list()
        if role == "source" and self.mine and f"{self.wanted}_old" in names:
            self.column = f"{self.wanted}_old"
        if role == "target" and self.mine and self.wanted not in names:
            stamps = [n.removesuffix("_stamp") for n in names if n.endswith("_stamp")]
            self.column = next((n for n in stamps if f"{n}_old" in names), stamps[-1])

    def exists(self) -> bool:
        """Whether the column is there."""
        if not self._there() or self.table_name not in self.db.list_tables().tables:
            return False
        return {self.column, self.id} <= set(self.table.schema.names)

    def facts(self) -> Facts:
        """From the schema."""
        pa = need("pyarrow", "lancedb")
        schema = self.table.schema
        for name in (self.column, self.id):
            if name not in schema.names:
                raise SutureError(f"{self.name}: expected a column {name}, got {', '.join(schema.names)}.")
        kind = schema.field(self.column).type
        if not pa.types.is_fixed_size_list(kind):
            raise RefusedError(f"{self.name}: expected lists of fixed size, got {kind}.")
        key = schema.field(self.id).type
        index = self._index()
        ours = (self.column, self.id, f"{self.column}_stamp")
        return Facts(
            rows=self.count(),
            dim=kind.list_size,
            dtype=str(np.dtype(kind.value_type.to_pandas_dtype())),
            metric=index[1] if index else None,
            id_kind="int" if pa.types.is_integer(key) else "str",
            index=index[0] if index else None,
            payload=tuple(n for n in schema.names if n not in ours),
        )

    def _index(self) -> tuple[str, str] | None:
        table = self.table
        for index in table.list_indices():
            if index.columns == [self.column]:
                found = table.index_stats(index.name)
                return index.index_type, METRICS.get(found.distance_type or "l2", "l2")
        return None

    def _ask(self, where: str, columns: list[str]) -> Any:
        return self.table.search().where(where).select(columns).limit(ALL).to_arrow()

    def ids(self) -> list[Any]:
        """Rows whose column is not null."""
        found: list[Any] = self._ask(f"`{self.column}` IS NOT NULL", [self.id])[self.id].to_pylist()
        return found

    def rows(self, ids: list[Any], vectors: bool) -> Batch:
        """By a list of ids."""
        stamp = f"{self.column}_stamp"
        stamped = stamp in self.table.schema.names
        columns = [self.id, *([self.column] if vectors else []), *([stamp] if stamped else [])]
        listed = ", ".join(str(k) if isinstance(k, int) else quoted(k) for k in ids)
        found = self._ask(f"`{self.id}` IN ({listed}) AND `{self.column}` IS NOT NULL", columns).combine_chunks()
        rows = np.empty((found.num_rows, 0), np.float32)
        if vectors and found.num_rows:
            column = found[self.column].combine_chunks()
            rows = column.flatten().to_numpy(zero_copy_only=False).reshape(found.num_rows, -1)
        keys = arrow_ids(found[self.id].combine_chunks(), self.name) if found.num_rows else np.empty(0, np.int64)
        return Batch(keys, rows, None, found[stamp].to_pylist() if stamped else None)

    # Writing

    def accept(self, source: Store, facts: Facts, dim: int, strategy: str) -> None:
        """Only beside its source."""
        super().accept(source, facts, dim, strategy)
        ours = (self.where(), self.table_name)
        if not isinstance(source, LanceStore) or (source.where(), source.table_name) != ours:
            raise RefusedError(f"{self.name}: the new vectors go into a second column of the old table: #table.column2")

    def vacant(self, spec: Spec) -> None:
        """No column, this plan's, or an empty one with a stamp: a run that was killed before its tag left that."""
        names = self.table.schema.names
        if not self.mine and self.column in names and (f"{self.column}_stamp" not in names or self.ids()):
            raise RefusedError(f"{self.name}: expected no column of this name, there is one. Name another.")

    def create(self, spec: Spec) -> None:
        """Add column and stamp, both null, and tag that version with the plan."""
        pa = need("pyarrow", "lancedb")
        if self.mine:
            return
        self.vacant(spec)
        table = self.table
        if self.column not in table.schema.names:
            kind = pa.list_(pa.from_numpy_dtype(np.dtype(spec.dtype)), spec.dim)
            fields = [pa.field(self.column, kind), pa.field(f"{self.column}_stamp", pa.string())]
            table.add_columns(pa.schema(fields))
        table.tags.create(tag(spec.owner), table.version)
        self.mine = True

    def write(self, number: int, batches: Iterable[Batch]) -> dict[str, Any]:
        """Merge by id, one version a batch; rows that went meanwhile stay away."""
        pa = need("pyarrow", "lancedb")
        rows = 0
        for batch in batches:
            key = self.table.schema.field(self.id).type
            flat = pa.array(np.ascontiguousarray(batch.vectors).reshape(-1))
            update = {
                self.id: pa.array(batch.ids.tolist(), key),
                self.column: pa.FixedSizeListArray.from_arrays(flat, batch.vectors.shape[1]),
                f"{self.column}_stamp": pa.array(batch.stamps or [None] * len(batch), pa.string()),
            }
            self.table.merge_insert(self.id).when_matched_update_all().execute(pa.table(update))
            rows += len(batch)
        return {"rows": rows}

    def discard(self, ids: Array) -> None:
        """Rows that went took their new vectors along."""

    def finish(self, spec: Spec) -> None:
        """Index the new column as the old one is."""
        with LanceStore(Address.parse(spec.source)) as old:
            old.adopt(spec.owner, "source")
            like = old._index()
        if like is not None and self._index() is None:
            self.table.create_index(metric=spec.metric, vector_column_name=self.column, index_type=like[0])

    def has_index(self) -> bool:
        """Where there is one on the column."""
        return self._index() is not None

    def search(self, queries: Array, k: int) -> list[list[Any]]:
        """By the table."""
        found = []
        for row in queries:
            asked = self.table.search(row, vector_column_name=self.column).limit(k).select([self.id, "_distance"])
            found.append([hit[self.id] for hit in asked.to_list()])
        return found

    # Moving

    def serving(self, source: Store) -> str | None:
        """The column that bears the old name."""
        return "source"

    def point(self, source: Store, *, at: str | None, left_out: int = 0) -> None:
        """Rename both columns in one version."""
        assert isinstance(source, LanceStore)
        name, old = source.wanted, f"{source.wanted}_old"
        new, there = self.wanted, self.table.schema.names
        if at == "target" and new in there:
            pairs = [(name, old), (f"{name}_stamp", f"{old}_stamp"), (new, name), (f"{new}_stamp", f"{name}_stamp")]
        elif at != "target" and old in there:
            pairs = [(name, new), (f"{name}_stamp", f"{new}_stamp"), (old, name), (f"{old}_stamp", f"{name}_stamp")]
        else:
            return
        changes = [{"path": a, "rename": b} for a, b in pairs if a in there]
        self.table.alter_columns(*changes)
        self.column, source.column = (name, old) if at == "target" else (new, name)

    def drop(self) -> None:
        """Drop the column with its stamp."""
        there = self.table.schema.names
        self.table.drop_columns([n for n in (self.column, f"{self.column}_stamp") if n in there])


def require_pandas() -> None:
    """Raise `IncompleteError` where pandas is installed and did not load whole.

    scikit-learn passes over a failure half-way, as on a machine short of memory; LanceDB would then stumble over the
    rest of it in the middle of a step, and blame a circular import.
    """
    if find_spec("pandas") is None:
        return
    try:
        import_module("pandas")
    except (AttributeError, ImportError, MemoryError, OSError) as error:
        raise IncompleteError(
            f"pandas, which LanceDB uses, did not load whole ({error}). Nothing was written; run the command again, "
            "when the machine has memory free, or reinstall pandas."
        ) from error


def tag(owner: str) -> str:
    """The tag of a plan."""
    return f"suture-{owner[:16]}"


def quoted(text: Any) -> str:
    """A text in SQL."""
    return "'" + str(text).replace("'", "''") + "'"
