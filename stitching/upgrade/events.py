"""What a run tells while it works: one event a step, for progress bars, machines and tests that kill it there."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ...aligners.errors import IncompleteError

__all__ = ["Tell", "quiet", "stopping"]

Tell = Callable[[str, dict[str, Any]], None]
"""Called with the name of a step just done, and what is to be said of it."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What clients raise when nobody answers; they are known by name, for only the one that is used is imported.
LOST = {
    "aiohttp.ClientConnectionError",
    "botocore.ConnectionError",
    "botocore.HTTPClientError",
    "httpx.TransportError",
    "psycopg.OperationalError",
    "pymilvus.MilvusUnavailableException",
    "qdrant_client.ResponseHandlingException",
}


def quiet(step: str, facts: dict[str, Any]) -> None:
    """Tell nobody."""


@contextmanager
def stopping(needed: int, where: str) -> Iterator[None]:
    """A full disk, a store that went away and an interrupted run become `IncompleteError`: all of them can go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise IncompleteError(f"{where}: paused; run the same command to go on.") from None
    except Exception as error:
        if lost(error) and not disk_full(error):
            raise IncompleteError(
                f"{where}: a store did not answer ({str(error).strip() or type(error).__name__}). Nothing half-written "
                "counts; when it is back, run the same command: it goes on where it stopped."
            ) from error
        if not disk_full(error):
            raise
        raise IncompleteError(
            f"{where}: the disk is full. About {needed} bytes more are needed; nothing half-written is visible. Make "
            "room and run the same command: it goes on where it stopped."
        ) from error


def disk_full(error: BaseException) -> bool:
    """Whether an error, of whatever library, says that there is no room."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    text = str(error).lower()
    return any(words in text for words in ("no space left", "disk is full", "disk full", "file too large"))


def lost(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that a store went away."""
    while error is not None:
        names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
        if isinstance(error, ConnectionError | TimeoutError) or names & LOST:
            return True
        error = error.__cause__ or error.__context__
    return False
