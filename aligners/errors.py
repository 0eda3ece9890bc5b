"""The errors of suture, as one small tree.

    SutureError            unreadable or malformed input                         exit 1
    ├── UsageError         a request that means nothing (unknown name, option)   exit 2
    ├── RefusedError       readable input, refused: a wrong answer would result  exit 3
    └── IncompleteError    stopped on the way; doing it again goes on from there exit 6

Every message says what was expected, what came, and what to do.
"""

__all__ = ["IncompleteError", "RefusedError", "SutureError", "UsageError"]


class SutureError(ValueError):
    """Base of every error that suture raises on purpose."""


class UsageError(SutureError):
    """The request itself cannot be understood: an unknown method, parameter or option value."""


class RefusedError(SutureError):
    """The input could be read, but going on would give a wrong answer: bad rows, mispairs, the wrong side."""


class IncompleteError(SutureError):
    """Work stopped before its end with nothing lost: the disk is full, the run was paused. The same call goes on."""
