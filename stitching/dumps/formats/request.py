"""What the user asked to be opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ....aligners.errors import SutureError

__all__ = ["Request", "choose", "choose_ids"]

DEFAULT_IDS = ("id", "ids")


@dataclass(frozen=True)
class Request:
    """A dump as the user names it: `name` as written, the file, the array or column in it, the column of its ids.

    Without `own_ids` the ids come from elsewhere, and those that may be inside are left alone.
    """

    name: str
    path: Path
    key: str | None = None
    id_column: str | None = None
    own_ids: bool = True

    def without_key(self) -> None:
        """SutureError if a key was given to a format whose files hold one array."""
        if self.key is not None:
            raise SutureError(f"{self.path} holds one array without a name, got ::{self.key}. Leave the ::key away.")

    def without_ids(self) -> None:
        """SutureError if an id column was asked of a format that cannot hold one."""
        if self.id_column is not None:
            raise SutureError(
                f"{self.path} cannot hold ids, got id column {self.id_column!r}. Give them as a file: --ids FILE."
            )


def choose(request: Request, shapes: Mapping[str, Sequence[object]], what: str) -> str:
    """The key of the array to read: the one asked for, or the only one that is 2-D; SutureError lists them all."""
    listing = ", ".join(f"{key} ({', '.join(map(str, shape))})" for key, shape in shapes.items()) or "none"
    fitting = [key for key, shape in shapes.items() if len(shape) == 2]
    if request.key is not None:
        if request.key not in fitting:
            raise SutureError(
                f"{request.path}: expected a 2-D {what} {request.key!r} (rows, dimensions), got: {listing}."
            )
        return request.key
    if len(fitting) != 1:
        advice = f" Say which one: {request.path}::{fitting[0]}" if fitting else ""
        raise SutureError(
            f"{request.path}: expected one 2-D {what} (rows, dimensions), got {len(fitting)} among: {listing}.{advice}"
        )
    return fitting[0]


def choose_ids(request: Request, shapes: Mapping[str, Sequence[object]], what: str) -> str | None:
    """The key of the ids: the one asked for, else "id" or "ids" where it is there and 1-D, else None."""
    if not request.own_ids:
        return None
    fitting = [key for key, shape in shapes.items() if len(shape) == 1]
    if request.id_column is not None and request.id_column not in fitting:
        raise SutureError(
            f"{request.path}: expected a {what} of ids {request.id_column!r}, got: {', '.join(fitting) or 'none'}."
        )
    return request.id_column or next((key for key in DEFAULT_IDS if key in fitting), None)
