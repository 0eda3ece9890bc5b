"""Files that appear whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ...aligners.errors import RefusedError, SutureError

__all__ = ["atomic_write"]


@contextmanager
def atomic_write(path: str | Path, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A binary file, readable and seekable, that becomes `path` when the block ends well.

    It is written beside the target, flushed to the disk and renamed. On an exception nothing is left and an existing
    file is untouched. `file.name` is its path for libraries that want one. RefusedError if the target exists and
    `overwrite` is False.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        file = temporary.open("x+b")
    except OSError as error:
        raise SutureError(f"{path}: cannot be written ({error.strerror}). Is the folder there and writable?") from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        refuse_existing(path, overwrite)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """RefusedError if something stands at `path` that may not be replaced."""
    if path.is_dir() or (path.exists() and not overwrite):
        raise RefusedError(f"{path} exists already. Choose another name, or pass --overwrite (overwrite=True).")


def sync_folder(folder: Path) -> None:
    """Make a rename last: it is kept in the folder, which has a cache of its own."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
