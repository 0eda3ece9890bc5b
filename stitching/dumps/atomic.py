"""Files that appear whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ...aligners.errors import RefusedError, SutureError

WRITEBACK_BYTES = 1 << 25

__all__ = ["Writeback", "atomic_write"]


class Writeback:
    """Sends what was appended to a file on its way to the disk now and then, so that the last fsync finds little left.

    The kernel would begin after some seconds, or a tenth of the memory, only. What is sent stays in its cache.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sent = 0

    def step(self) -> None:
        """To be called after every write; where the system has no such call, fsync alone does the work."""
        end = self._file.tell()
        if end - self._sent >= WRITEBACK_BYTES and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), self._sent, end - self._sent, os.POSIX_FADV_DONTNEED)
            self._sent = end


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
