"""Parquet, Arrow IPC and Feather: vectors in a column of lists, ids in another."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ....aligners.errors import SutureError
from ..arrays import BLOCK, Array, rebatch
from ..codec import Codec
from ..dump import Dump
from ..extras import need
from ..ids import IdColumn, IdKind, as_int64, id_array
from .request import Request, choose, choose_ids
from .sinks import Sink

__all__ = ["ParquetSink", "open_arrow", "open_parquet", "open_parquet_column"]

BUFFER = 1 << 20  # bytes read ahead: without it a row group is held whole
GROUP = 8192  # rows of a row group that is written


class Table(ABC):
    """A file of record batches: its schema, its number of rows, and one column as a stream."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path):
            self.schema, self.rows = self._measure()

    @abstractmethod
    def _measure(self) -> tuple[Any, int]: ...

    @abstractmethod
    def _batches(self, column: str, size: int) -> Iterator[Any]: ...

    def arrays(self, column: str, size: int) -> Iterator[Any]:
        """The column as Arrow arrays of about `size` rows."""
        with reading(self.path):
            for batch in self._batches(column, size):
                yield batch.column(0)


class ParquetTable(Table):
    """Parquet; row groups are read in pieces."""

    def _open(self) -> Any:
        return need("pyarrow.parquet", "arrow").ParquetFile(self.path, pre_buffer=False, buffer_size=BUFFER)

    def _measure(self) -> tuple[Any, int]:
        with self._open() as file:
            return file.schema_arrow, file.metadata.num_rows

    def _batches(self, column: str, size: int) -> Iterator[Any]:
        with self._open() as file:
            yield from file.iter_batches(batch_size=size, columns=[column])


class IpcTable(Table):
    """Arrow IPC, as a file (.arrow, .feather version 2) or as a stream (Hugging Face datasets); batches as written."""

    def _measure(self) -> tuple[Any, int]:
        # Neither form counts its rows: the cheapest column is read through once.
        pa = need("pyarrow", "arrow")
        with self._open([]) as reader:
            schema = reader.schema
        flat = [i for i, field in enumerate(schema) if not pa.types.is_nested(field.type)]
        with self._open([flat[0] if flat else 0]) as reader:
            return schema, sum(batch.num_rows for batch in in_order(reader))

    @contextmanager
    def _open(self, fields: list[int]) -> Iterator[Any]:
        pa = need("pyarrow", "arrow")
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        with pa.OSFile(str(self.path)) as file:
            random_access = file.read(6) == b"ARROW1"
            file.seek(0)
            opened = pa.ipc.open_file if random_access else pa.ipc.open_stream
            with opened(file, options=options) as reader:
                yield reader

    def _batches(self, column: str, size: int) -> Iterator[Any]:
        with self._open([self.schema.get_field_index(column)]) as reader:
            yield from in_order(reader)


def in_order(reader: Any) -> Iterator[Any]:
    """The record batches of an IPC file or stream."""
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    return iter(reader)


def open_parquet(request: Request) -> Dump:
    """Open the only column of lists of numbers of a .parquet file, or `::column`; `id` or `ids` holds the ids."""
    return open_table(request, ParquetTable(request.path))


def open_arrow(request: Request) -> Dump:
    """The same of an .arrow or .feather file."""
    return open_table(request, IpcTable(request.path))


def open_parquet_column(path: Path, name: str) -> IdColumn:
    """The ids `(n,)` in the column `name` of a .parquet file."""
    table = ParquetTable(path)
    if name not in table.schema.names:
        raise SutureError(f"{path}: expected a column {name!r}, got: {', '.join(table.schema.names)}.")
    return arrow_ids(table, name)


def open_table(request: Request, table: Table) -> Dump:
    """The dump in a table, with its ids."""
    shapes = {field.name: (table.rows, *width(field.type)) for field in table.schema}
    dump = ArrowDump(request, table, choose(request, shapes, "column of lists"))
    id_column = choose_ids(request, shapes, "column")
    if id_column is not None:
        dump.ids = arrow_ids(table, id_column)
    return dump


def width(kind: Any) -> list[object]:
    """How many numbers a column of this type holds a row, in brackets; none for flat columns."""
    types = need("pyarrow", "arrow").types
    if types.is_fixed_size_list(kind):
        return [kind.list_size]
    return [f"list of {kind.value_type}"] if types.is_list(kind) or types.is_large_list(kind) else []


class ArrowDump(Dump):
    """Vectors `(n, p)` in one column of lists; their lengths are verified as they are read."""

    def __init__(self, request: Request, table: Table, column: str) -> None:
        kind = table.schema.field(column).type
        self.table = table
        self.column = column
        self.name = request.name
        try:
            stored = np.dtype(kind.value_type.to_pandas_dtype())
        except NotImplementedError:
            stored = np.dtype(object)
        codec = Codec.of(stored, f"{request.name}, column {column} of {kind}")
        first = next((array for array in table.arrays(column, 1) if len(array)), None)
        dim = 0 if first is None else self.vectors(first[:1], None, 0).shape[1]
        super().__init__(request.name, request.path, table.rows, dim, codec.dtype)

    def _stream(self, size: int, start: int, stop: int) -> Iterator[Array]:
        return rebatch(self._chunks(size), size, self.dim, self.dtype, start, stop - start)

    def _chunks(self, size: int) -> Iterator[Array]:
        first = 0
        for array in self.table.arrays(self.column, min(size, BLOCK)):
            yield self.vectors(array, self.dim, first)
            first += len(array)

    def vectors(self, array: Any, dim: int | None, first: int) -> Array:
        """The numbers `(m, dim)` of an Arrow array; its first row is `first`; SutureError for nulls and ragged ones."""
        where = f"{self.name}, column {self.column}, rows {first} to {first + len(array) - 1}"
        flat = array.flatten()
        if array.null_count or flat.null_count:
            raise SutureError(
                f"{where}: expected no nulls, got {array.null_count} null vectors and {flat.null_count} null numbers. "
                "Drop these rows when the file is written."
            )
        values: Array = flat.to_numpy(zero_copy_only=False)
        dim = len(array[0]) if dim is None and len(array) else dim
        lengths = np.diff(array.offsets.to_numpy()) if hasattr(array, "offsets") else np.array([array.type.list_size])
        if dim is not None and np.any(lengths != dim):
            raise SutureError(
                f"{where}: expected {dim} numbers in every row, got {lengths[lengths != dim][0]} in some. "
                "All vectors of a dump must have one length."
            )
        return values.reshape(len(array), -1 if dim is None else dim)


def arrow_ids(table: Table, column: str) -> IdColumn:
    """Ids `(n,)` in a column of integers or strings."""
    pa = need("pyarrow", "arrow")
    kind = table.schema.field(column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    name = f"{table.path}::{column}"
    if not text and not pa.types.is_integer(kind):
        raise SutureError(f"{name}: expected ids that are integers or strings, got {kind}. Cast the column.")

    def chunks() -> Iterator[Array]:
        for array in table.arrays(column, BLOCK):
            if array.null_count:
                raise SutureError(f"{name}: expected an id in every row, got {array.null_count} nulls. Give them ids.")
            if text:
                yield id_array(array.to_pylist(), name)
            else:
                plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
                yield plain.to_numpy(zero_copy_only=False)

    return IdColumn(name, table.rows, "str" if text else "int", chunks)


class ParquetSink(Sink):
    """Writes the columns `id`, where there are ids, and `vector`, a list of fixed size."""

    holds_ids = True

    def __init__(self, file: BinaryIO, dim: int, dtype: np.dtype, id_kind: IdKind | None) -> None:
        pa = need("pyarrow", "arrow")
        self._dim = dim
        self._pending: list[tuple[Array, Array | None]] = []
        self._rows = 0
        fields = [("vector", pa.list_(pa.from_numpy_dtype(dtype), dim))]
        if id_kind is not None:
            fields.insert(0, ("id", pa.string() if id_kind == "str" else pa.int64()))
        self._schema = pa.schema(fields)
        # Embeddings hardly repeat: a dictionary or statistics would only cost.
        self._writer = need("pyarrow.parquet", "arrow").ParquetWriter(
            file, self._schema, use_dictionary=False, write_statistics=["id"] if id_kind else False
        )

    def write(self, block: Array, ids: Array | None) -> None:
        """Append a block `(m, dim)` and its ids `(m,)`; row groups of GROUP rows are written as they fill."""
        self._pending.append((block.copy(), None if ids is None else ids.copy()))
        self._rows += len(block)
        if self._rows >= GROUP:
            self._flush()

    def finish(self, rows: int) -> None:
        """Write the last row group and the footer."""
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Close the writer while its file is still open."""
        self._writer.close()

    def _flush(self) -> None:
        pa = need("pyarrow", "arrow")
        batches = []
        for block, ids in self._pending:
            flat = pa.array(block.reshape(-1))
            columns = [pa.FixedSizeListArray.from_arrays(flat, self._dim)]
            if ids is not None:
                columns.insert(0, pa.array(ids.tolist() if ids.dtype.kind in "UO" else as_int64(ids)))
            batches.append(pa.record_batch(columns, schema=self._schema))
        self._writer.write_table(pa.Table.from_batches(batches, self._schema), row_group_size=2 * GROUP)
        self._pending = []
        self._rows = 0


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """SutureError instead of the errors of a damaged file."""
    pa = need("pyarrow", "arrow")
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise SutureError(f"{path}: cannot be read ({error}). It is truncated, or of another format.") from error
