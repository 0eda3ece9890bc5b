"""Files that are written aside, flushed, and renamed; and the pointer that says which of several is served."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ...aligners.errors import RefusedError, SutureError
from ..dumps.atomic import sync_folder
from .remote import is_remote, spooled, version

__all__ = [
    "CURRENT",
    "aside",
    "checksum",
    "free_bytes",
    "mark",
    "pointed",
    "read_json",
    "read_state",
    "remove",
    "resolved",
    "set_pointer",
    "settle",
    "stamped_json",
    "write_json",
]

CURRENT = "_CURRENT"


@contextmanager
def aside(path: Path) -> Iterator[BinaryIO]:
    """A file that becomes ``path`` when the block ends well, replacing what is there.

    The name aside is fixed, so that a run that was killed leaves at most one such file and the next run takes it over;
    it begins with an underscore, which readers of folders skip. Only the holder of a lock may write here.
    """
    if is_remote(path):
        with spooled(path) as spool:
            yield spool
        return
    temporary = path.with_name(f"_{path.name}.tmp")
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def settle(folder: Path) -> None:
    """Make what was renamed or deleted in a folder last; object stores do so by themselves."""
    if not is_remote(folder):
        sync_folder(folder)


def stamped_json(value: Any) -> bytes:
    """``value`` with a digest of itself, so that a torn file is told from a whole one."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f'{{"digest": "{digest}", "value": {text}}}\n'.encode()


def write_json(path: Path, value: Any) -> None:
    """Write `stamped_json`."""
    with aside(path) as file:
        file.write(stamped_json(value))


def read_json(path: Path) -> Any:
    """What `write_json` wrote; None where there is nothing, or nothing whole."""
    try:
        whole = json.loads(path.read_bytes())
        text = json.dumps(whole["value"], sort_keys=True, allow_nan=False)
        return whole["value"] if hashlib.sha256(text.encode()).hexdigest() == whole["digest"] else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def read_state(path: Path) -> Any:
    """What `write_json` wrote; None where there is no file. `RefusedError` where it is no longer whole."""
    found = read_json(path)
    if found is None and path.exists():
        raise RefusedError(
            f"{path}: this file is damaged (it was written whole). What was done is not known without it: bring it "
            "back from a backup. Nothing was changed."
        )
    return found


def mark(path: Path) -> list[Any]:
    """What tells a file from a changed one: bytes, and the time of its last change in ns, or its version."""
    try:
        if is_remote(path):
            return version(path)
        found = path.stat()
    except FileNotFoundError:
        raise RefusedError(f"{path}: this part of the gallery is gone. Bring it back, or plan anew.") from None
    return [found.st_size, found.st_mtime_ns]


def pointed(folder: Path) -> str | None:
    """The name that the pointer in ``folder`` holds; None without one."""
    try:
        return (folder / CURRENT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def set_pointer(folder: Path, name: str | None) -> None:
    """Point at ``name``; None takes the pointer away, as it was before the first switch."""
    path = folder / CURRENT
    if name is None:
        path.unlink(missing_ok=True)
        settle(folder)
        return
    with aside(path) as file:
        file.write(f"{name}\n".encode())


def resolved(path: Path) -> Path:
    """``path`` itself, or what the pointer in it leads to."""
    name = pointed(path) if path.is_dir() else None
    if name is None:
        return path
    found = path / name
    if not found.exists():
        raise SutureError(f"{path / CURRENT} points to {name}, and there is no such file or folder in {path}.")
    return found


def free_bytes(path: Path) -> int:
    """Free space where ``path`` is, or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it."""
    if is_remote(path):
        path.fs.rm(path.path, recursive=True)  # type: ignore[attr-defined]
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    settle(path.parent)
