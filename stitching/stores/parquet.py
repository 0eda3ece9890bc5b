"""Folders of parquet files: every column but the vectors travels along untouched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ...aligners.errors import RefusedError
from ..dumps.arrays import Array
from ..dumps.extras import need
from ..dumps.formats.arrow import BUFFER, GROUP, ArrowDump, ParquetTable, open_table, reading
from ..dumps.formats.request import Request
from ..dumps.ids import id_array
from .batch import Batch, table
from .disk import aside, mark
from .files import PartsStore, id_kind
from .remote import opened
from .store import Facts

__all__ = ["ParquetStore"]

STAMP = "_stamp"


class ParquetStore(PartsStore):
    """``parquet:dir#vector?id=column``, where ``dir`` may be ``s3://bucket/dir`` or whatever else fsspec knows.

    Without names: ``vector`` or the only list column; ``id`` or ``ids``.
    """

    suffix = ".parquet"
    remote = True
    keeps_payload = True

    @cached_property
    def dump(self) -> ArrowDump:
        """The first part, read as a dump: it knows the columns and checks the rows."""
        first = self.parts[0]
        table = PartTable(first)
        column = self.address.vector or ("vector" if "vector" in table.schema.names else None)
        dump = open_table(Request(str(first), first, column, self.address.options.get("id")), table)
        assert isinstance(dump, ArrowDump)
        return dump

    @property
    def vector(self) -> str:
        """The column of the vectors."""
        return self.dump.column

    @cached_property
    def id_column(self) -> str | None:
        """The column of the ids; None where rows are known by their number."""
        named = self.address.options.get("id")
        return named or next((name for name in ("id", "ids") if name in self.dump.table.schema.names), None)

    def has_ids(self) -> bool:
        """Whether there is a column of them."""
        return self.id_column is not None

    def part_rows(self, part: Path) -> int:
        """From the footer."""
        return int(footer(part, *mark(part)).num_rows)

    def check_part(self, part: Path) -> None:
        """All columns of all parts have one name and type."""
        schema = footer(part, *mark(part)).schema.to_arrow_schema()
        first = self.dump.table.schema
        if not schema.equals(first):
            ours, theirs = (
                dict(zip(first.names, first.types, strict=True)),
                dict(zip(schema.names, schema.types, strict=True)),
            )
            odd = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
            told = "; ".join(f"{k}: {ours.get(k, 'absent')} there, {theirs.get(k, 'absent')} here" for k in odd)
            raise RefusedError(
                f"{part}: expected the columns of {self.parts[0].name}, got others ({told or 'in another order'}). All "
                "parts of a gallery must have one schema: write this part again."
            )

    def facts(self) -> Facts:
        """From the first part."""
        schema = self.dump.table.schema
        kind = "int" if self.dump.ids is None else self.dump.ids.kind
        payload = tuple(n for n in schema.names if n not in (self.vector, self.id_column, STAMP))
        return self.facts_with(dim=self.dump.dim, dtype=str(self.dump.dtype), id_kind=kind, payload=payload)

    def rows_of(self, part: Path, start: int, stop: int, base: int, size: int, vectors: bool) -> Iterator[Batch]:
        """Batches of the row groups that hold the rows."""
        with opened(part) as source, parquet_file(source) as file:
            names = [n for n in file.schema_arrow.names if vectors or n != self.vector]
            counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            edges = np.cumsum([0, *counts])
            groups = [i for i in range(len(counts)) if edges[i] < stop and edges[i + 1] > start]
            at = int(edges[groups[0]]) if groups else 0
            for batch in file.iter_batches(batch_size=size, row_groups=groups, columns=names):
                first, last = max(start - at, 0), min(stop - at, batch.num_rows)
                if first < last:
                    yield self.batch(batch.slice(first, last - first), base + at + first, vectors)
                at += batch.num_rows

    def batch(self, rows: Any, first: int, vectors: bool) -> Batch:
        """A record batch taken apart."""
        pa = need("pyarrow", "arrow")
        names = rows.schema.names
        found = np.empty((rows.num_rows, 0), np.float32)
        if vectors:
            found = self.dump.vectors(rows.column(self.vector), self.dump.dim, first).astype(
                self.dump.dtype, copy=False
            )
        ids: Array = np.arange(first, first + rows.num_rows)
        if self.id_column is not None:
            ids = arrow_ids(rows.column(self.id_column), f"{self.path}, column {self.id_column}")
        rest = [n for n in names if n not in (self.vector, self.id_column, STAMP)]
        payload = pa.Table.from_batches([rows.select(rest)]) if rest else None
        stamps = rows.column(STAMP).to_pylist() if STAMP in names else None
        return Batch(ids, found, payload, stamps)

    def put(self, part: Path, batches: Iterator[Batch]) -> int:
        """Columns id, vector, the payload, stamp; row groups of 8192 rows."""
        pa, pq = need("pyarrow", "arrow"), need("pyarrow.parquet", "arrow")
        rows, writer = 0, None
        first = next(batches, None)
        if first is None:
            return 0
        id_name, vector = self.address.options.get("id", "id"), self.address.vector or "vector"
        with aside(part) as file:
            batch: Batch | None = first
            while batch is not None:
                dim = batch.vectors.shape[1]
                flat = pa.array(np.ascontiguousarray(batch.vectors).reshape(-1))
                ids = pa.array(batch.ids.tolist(), pa.string()) if id_kind(batch.ids) == "str" else pa.array(batch.ids)
                columns = {id_name: ids, vector: pa.FixedSizeListArray.from_arrays(flat, dim)}
                extra = table(batch.payload, len(batch))
                if extra is not None:
                    clash = sorted({*columns, STAMP} & set(extra.schema.names))
                    if clash:
                        raise RefusedError(
                            f"{self.name}: the payload has a column {clash[0]} of its own; name the ids or vectors of "
                            "the new gallery otherwise (#vector?id=name)."
                        )
                    columns.update(zip(extra.schema.names, extra.columns, strict=True))
                columns[STAMP] = pa.array(batch.stamps or [None] * len(batch), pa.string())
                written = pa.table(columns)
                if writer is None:
                    # Embeddings hardly repeat: a dictionary, statistics or compression would only cost.
                    plain = [n for n in written.schema.names if n != vector]
                    writer = pq.ParquetWriter(
                        file, written.schema, use_dictionary=plain, write_statistics=[id_name], compression="none"
                    )
                writer.write_table(written, row_group_size=2 * GROUP)
                rows += len(batch)
                batch = next(batches, None)
            assert writer is not None
            writer.close()
        return rows


class PartTable(ParquetTable):
    """A part as a table, wherever it lies."""

    @contextmanager
    def _open(self) -> Iterator[Any]:
        with opened(self.path) as source, parquet_file(source) as file:
            yield file


def parquet_file(source: Any) -> Any:
    """Read in pieces, not row group by row group."""
    return need("pyarrow.parquet", "arrow").ParquetFile(source, pre_buffer=False, buffer_size=BUFFER)


@lru_cache(maxsize=4096)
def footer(part: Path, *version: Any) -> Any:
    """The metadata of a parquet file; ``version`` makes a rewritten file another one."""
    with reading(part), opened(part) as source:
        return need("pyarrow.parquet", "arrow").read_metadata(source)


def arrow_ids(column: Any, where: str) -> Array:
    """Ids from an Arrow array of integers or strings."""
    pa = need("pyarrow", "arrow")
    if column.null_count:
        raise RefusedError(f"{where}: expected an id in every row, got {column.null_count} nulls. Give them ids.")
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    if pa.types.is_integer(plain.type):
        ids: Array = plain.to_numpy(zero_copy_only=False)
        return ids.astype(np.uint64 if ids.dtype == np.uint64 else np.int64, copy=False)
    return id_array(plain.to_pylist(), where)
