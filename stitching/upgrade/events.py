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


def quiet(step: str, facts: dict[str, Any]) -> None:
    """Tell nobody."""


@contextmanager
def stopping(needed: int, where: str) -> Iterator[None]:
    """A full disk and an interrupted run become `IncompleteError`: nothing half-done is visible, and it can go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise IncompleteError(f"{where}: paused; run the same command to go on.") from None
    except Exception as error:
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
