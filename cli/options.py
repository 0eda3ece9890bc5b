"""Options that several commands share, and how their texts become values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from ..stitching.dumps import BadRows, Dump

T = TypeVar("T")

__all__ = [
    "BadRowsOption",
    "ByRow",
    "Column",
    "GalleryIds",
    "IdColumn",
    "Ids",
    "Json",
    "Overwrite",
    "Seed",
    "Settings",
    "Unfamiliar",
    "bad_rows_policy",
    "check_map_output",
    "check_output",
    "open_dumps",
    "open_one",
]

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of tables.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of every draw: folds, samples, bootstrap.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="name=value: a parameter of the method (suture methods NAME).")
]
Overwrite = Annotated[bool, typer.Option(help="Replace an existing output file.")]
Column = Annotated[
    list[str] | None, typer.Option(help="Array or column to read; once for all dumps, or once for each in turn.")
]
Ids = Annotated[
    list[Path] | None, typer.Option(help="File of ids, one a row; once for all dumps, or once for each in turn.")
]
GalleryIds = Annotated[
    list[Path] | None, typer.Option(help="File of ids, one a row; once for both galleries, or once for each in turn.")
]
ByRow = Annotated[bool, typer.Option("--by-row", help="Pair by position although there are ids.")]
IdColumn = Annotated[
    list[str] | None, typer.Option(help="Column of ids inside the dump; once for all, or once for each in turn.")
]
BadRowsOption = Annotated[
    str, typer.Option("--bad-rows", help="NaN, infinite and zero rows: refuse | skip | quarantine FILE (.jsonl).")
]
Unfamiliar = Annotated[
    bool, typer.Option("--unfamiliar", help="Map the rows even if they do not behave like those of the fit.")
]


def bad_rows_policy(text: str, *others: str | Path | None, overwrite: bool = False) -> BadRows:
    """The policy that ``--bad-rows`` names; its file may be none of the ``others`` that the command reads or writes."""
    from ..aligners.errors import UsageError
    from ..stitching.dumps import BadRows

    action, _, path = text.partition(" ")
    if action == "refuse" and not path:
        return BadRows()
    if action == "skip" and not path:
        return BadRows("skip")
    if action == "quarantine":
        policy = BadRows("quarantine", Path(path) if path else None)
        check_output(Path(path), *others, overwrite=overwrite)
        return policy
    raise UsageError(f"--bad-rows: expected refuse, skip or quarantine FILE, got '{text}'.")


def check_output(path: Path, *others: str | Path | None, overwrite: bool) -> None:
    """Refuse at once what could not be written in the end, or what would replace a file that the command reads.

    ``others`` are those files, dumps as PATH or PATH::key; None stands for an option that was not given.
    """
    from os import W_OK, access

    from ..aligners.errors import RefusedError, SutureError
    from ..stitching.dumps.open import split_key

    if path.is_dir():
        raise RefusedError(f"{path} is a folder; name a file in it.")
    if not path.parent.is_dir() or not access(path.parent, W_OK):
        problem = "is not writable" if path.parent.is_dir() else "is not there"
        raise SutureError(f"{path}: cannot be written, the folder {path.parent} {problem}.")
    for other in others:
        read = None if other is None else split_key(str(other))[0]
        if read is not None and (path == read or (path.exists() and read.exists() and path.samefile(read))):
            raise RefusedError(f"{path} is a file of this very command; an input is never overwritten. Name another.")
        if read is not None and read.is_dir() and path.parent.samefile(read):
            raise RefusedError(f"{path} would become a part of the dump {read}; name a file elsewhere.")
    if path.exists() and not overwrite:
        raise RefusedError(f"{path} exists; name another file or give --overwrite.")


def check_map_output(path: Path, *others: str | Path | None, option: str = "--out", overwrite: bool) -> None:
    """`check_output` for a map file, which has one suffix; ``option`` is the one that named it."""
    from ..aligners.errors import UsageError

    if path.suffix != ".safetensors":
        raise UsageError(f"{option}: expected a .safetensors file, got {path}.")
    check_output(path, *others, overwrite=overwrite)


def open_dumps(
    specs: Sequence[str],
    column: Sequence[str] | None = None,
    ids: Sequence[Path] | None = None,
    id_column: Sequence[str] | None = None,
) -> list[Dump]:
    """Open the dumps, each with its own column and ids, or all with the same."""
    columns, files = spread(column, len(specs), "--column"), spread(ids, len(specs), "--ids")
    names = spread(id_column, len(specs), "--id-column")
    return list(map(open_one, specs, columns, files, names))


def open_one(spec: str, column: str | None = None, ids: Path | None = None, id_column: str | None = None) -> Dump:
    """Open a dump. Raises `SutureError` on a map file, whose arrays could be read like a dump's."""
    from ..aligners.errors import SutureError
    from ..aligners.file import is_map_file
    from ..stitching.dumps import open_dump
    from ..stitching.dumps.open import split_key

    path = split_key(spec)[0]
    if path.is_file() and is_map_file(path):
        raise SutureError(f"{path}: expected a dump of embeddings, this is a map made by suture.")
    return open_dump(spec, column=column, ids=ids, id_column=id_column)


def spread(values: Sequence[T] | None, count: int, option: str) -> list[T | None]:
    """One value for each of ``count`` dumps, out of none, one, or one for each."""
    from ..aligners.errors import UsageError

    if not values:
        return [None] * count
    if len(values) not in (1, count):
        raise UsageError(f"{option}: expected one value, or one for each of {count} dumps, got {len(values)}.")
    return [*values] * (count if len(values) == 1 else 1)
