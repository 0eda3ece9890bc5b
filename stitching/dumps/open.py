"""`open_dump`: a path, and what to read in it, become a Dump."""

from pathlib import Path

from ...aligners.errors import RefusedError, SutureError, UsageError
from .dump import Dump
from .formats import READERS, Request, open_folder
from .idfiles import open_ids

__all__ = ["open_dump"]


def open_dump(
    spec: str | Path, *, column: str | None = None, ids: str | Path | None = None, id_column: str | None = None
) -> Dump:
    """Open the embeddings `(n, p)` that `spec` names: a PATH, or PATH::key for one array or column among several.

    `column` is the key given apart. `ids` is a file of n ids, `id_column` the column (array) of ids inside the dump.
    Raises SutureError for anything that is not one non-empty, numeric, rectangular 2-D array, UsageError for
    contradicting arguments, RefusedError where ids and rows differ in number.
    """
    name = str(spec)
    path, key = split_key(name)
    if column is not None and key is not None and column != key:
        raise UsageError(f"{name} names {key!r}, --column names {column!r}: give one of them.")
    if ids is not None and id_column is not None:
        raise UsageError(f"{name}: got both --ids {ids} and --id-column {id_column}: give one of them.")
    if not path.exists():
        raise SutureError(f"{path}: expected a file or folder of embeddings, there is none at this path.")
    dump = open_request(Request(name, path, key if column is None else column, id_column, own_ids=ids is None))
    if ids is not None:
        dump.ids = open_ids(Path(ids))
    if dump.ids is not None and dump.ids.rows != dump.rows:
        raise RefusedError(
            f"{name} has {dump.rows} rows, its ids {dump.ids.name} are {dump.ids.rows}. "
            "Give the ids of exactly these rows, in their order."
        )
    return dump


def open_request(request: Request) -> Dump:
    """Open a file by its suffix; SutureError for a suffix that is not read."""
    if request.path.is_dir():
        return open_folder(request)
    lowered = request.path.name.lower()
    for suffix, reader in READERS.items():
        if lowered.endswith(suffix):
            return reader(request)
    raise SutureError(f"{request.path}: expected one of {', '.join(READERS)}, or a folder; this suffix is not read.")


def split_key(spec: str) -> tuple[Path, str | None]:
    """PATH::key as path and key; a path that exists as it stands has no key."""
    path, mark, key = spec.rpartition("::")
    if not mark or Path(spec).exists():
        return Path(spec), None
    return Path(path), key
