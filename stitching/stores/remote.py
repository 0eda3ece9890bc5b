"""Galleries in object stores, through fsspec: what paths there do otherwise than those of a disk.

A path of universal-pathlib behaves as a `Path`, and is treated as one here. An object appears whole when its put ends,
and never before, so nothing is renamed; the spool that is sent is on the local disk. Only the gallery lies there:
plan, ledger and locks stay on a file system.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from ...aligners.errors import SutureError, UsageError
from ..dumps.extras import need

__all__ = ["is_remote", "opened", "place", "put_first", "spooled", "version"]

AHEAD = 1 << 20  # bytes that one request fetches at least; the ids alone are read too, and they are few
# What tells an object from one that was put there later; which of them there is depends on the store.
VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "updated", "created", "mtime")


def place(text: str) -> Path:
    """A path of this machine, or of what ``text`` names as in ``s3://bucket/folder``.

    Listings are not cached: others put objects there. Raises `UsageError` for a protocol nobody knows, `SutureError`
    where its package is not installed.
    """
    if "://" not in text:
        return Path(text)
    upath = need("upath", "fsspec")
    try:
        found: Path = upath.UPath(text, use_listings_cache=False)
        found.exists()  # brings in the package of the protocol
    except ValueError as error:
        raise UsageError(f"'{text}': fsspec knows no such protocol ({error}).") from error
    except ImportError as error:
        raise SutureError(f"'{text}': {error}.") from error
    return found


def is_remote(path: object) -> bool:
    """Whether `place` led to an object store."""
    return not isinstance(path, Path)


def opened(path: Any) -> AbstractContextManager[Any]:
    """A file to be read by pyarrow: on a disk, by its path."""
    return path.open("rb", block_size=AHEAD) if is_remote(path) else nullcontext(path)


@contextmanager
def spooled(path: Any) -> Iterator[BinaryIO]:
    """A local file that becomes the object ``path`` when the block ends well; `SutureError` where it did not arrive."""
    with tempfile.NamedTemporaryFile(prefix="suture-put-") as file:
        yield file  # type: ignore[misc]
        file.flush()
        path.fs.put_file(file.name, path.path)
        sent = Path(file.name).stat().st_size
        if path.stat().st_size != sent:
            raise SutureError(f"{path}: {sent} bytes were sent, {path.stat().st_size} arrived. Run the command again.")


def put_first(path: Any, data: bytes) -> bool:
    """Put an object where none is, and say whether it was this call that did: of two runs at once, one did not."""
    try:
        path.fs.pipe_file(path.path, data, mode="create")
    except FileExistsError:
        return False
    return True


def version(path: Any) -> list[Any]:
    """Its size, and what the store calls this version of it."""
    found = path.fs.info(path.path)
    return [found["size"], next((str(found[key]) for key in VERSIONS if found.get(key)), "")]
