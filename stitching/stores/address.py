"""Where a gallery lies: ``scheme:path#vector?option=value``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import normpath
from types import MappingProxyType
from urllib.parse import parse_qsl, unquote

from ...aligners.errors import SutureError, UsageError

__all__ = ["Address", "location"]

SUFFIXES = {
    ".parquet": "parquet",
    ".npy": "npy",
    ".h5": "h5",
    ".hdf5": "h5",
    ".faiss": "faiss",
    ".index": "faiss",
    ".usearch": "usearch",
    ".hnsw": "hnswlib",
}
FORMS = "scheme:path#vector?id=column, as in parquet:dir#vector or postgresql://host/db#table.column"


@dataclass(frozen=True)
class Address:
    """One gallery: the ``scheme`` names the kind of store, ``path`` the folder, file, or server and collection in it,
    ``vector`` what comes after ``#``, ``options`` what comes after ``?``.
    """

    text: str
    scheme: str
    path: str
    vector: str | None = None
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read a URI; a bare path gets its scheme from its suffix, or from the parts in the folder.

        Raises `UsageError` on what is no URI of a gallery.
        """
        left, _, right = text.partition("#")
        scheme, colon, path = left.partition(":")
        options: dict[str, str] = {}
        if not colon:
            scheme, path = guess(Path(left)), left
        if scheme in ("postgres", "postgresql"):
            scheme, path = "postgresql", left  # a DSN has options of its own
        elif "?" in path:
            path, _, query = path.partition("?")
            options.update(parse_qsl(query, keep_blank_values=True))
        vector, _, query = right.partition("?")
        options.update(parse_qsl(query, keep_blank_values=True))
        if not path:
            raise UsageError(f"'{text}': expected {FORMS}; the path is empty.")
        vector = unquote(vector)
        if scheme == "lance":  # a folder NAME.lance is a table of the LanceDB in its parent
            folder = Path(path)
            scheme, path, vector = "lancedb", str(folder.parent), f"{folder.stem}.{vector or 'vector'}"
        return cls(text, scheme, path, vector or None, MappingProxyType(options))

    @property
    def shown(self) -> str:
        """The text without user and password."""
        head, slashes, tail = self.text.partition("://")
        return f"{head}{slashes}{tail.rpartition('@')[2] if '@' in tail.partition('#')[0] else tail}"

    def allow(self, *names: str) -> None:
        """Raise `UsageError` for an option that this kind of store does not know: a typo must not be ignored."""
        strange = sorted(set(self.options) - set(names))
        if strange:
            raise UsageError(
                f"'{self.shown}': {self.scheme} takes {', '.join(names) or 'no options'} after '?', got "
                f"{', '.join(strange)}."
            )

    def split(self, what: str) -> tuple[str, str]:
        """The path as place and last component, which is the name of the ``what``."""
        place, slash, name = self.path.rpartition("/")
        if not slash or not name:
            raise UsageError(f"'{self.text}': expected {self.scheme}:PLACE/NAME, where NAME is the {what}.")
        return place, name

    def naming(self, column: str) -> str:
        """`shown`, with another column after ``#``."""
        head, _, right = self.shown.partition("#")
        vector, question, options = right.partition("?")
        table, dot, _ = vector.rpartition(".")
        return f"{head}#{table}{dot}{column}{question}{options}"

    def column(self) -> tuple[str, str]:
        """``table.column`` after ``#``; the table may have a schema before it."""
        table, dot, column = (self.vector or "").rpartition(".")
        if not dot or not table or not column:
            raise UsageError(f"'{self.shown}': expected {self.scheme}:...#table.column.")
        return table, column


def location(place: str) -> tuple[str, ...]:
    """A file, folder or server, part by part, links followed: one lies in another where it begins with its parts."""
    scheme, remote, rest = place.partition("://")
    return (scheme, *normpath(rest).split("/")) if remote else Path(place).resolve().parts


def guess(path: Path) -> str:
    """The scheme of a bare path. Raises `SutureError` where nothing tells it."""
    if path.suffix == ".lance":
        return "lance"
    if path.suffix.lower() in SUFFIXES:
        return SUFFIXES[path.suffix.lower()]
    if path.is_dir():
        if (path / "_CURRENT").is_file():
            return guess(path / (path / "_CURRENT").read_text(encoding="utf-8").strip())
        found = {SUFFIXES[p.suffix] for p in path.iterdir() if p.name[0] not in "._" and p.suffix in SUFFIXES}
        if len(found) == 1:
            return found.pop()
    raise SutureError(f"{path}: cannot tell what kind of gallery this is; write {FORMS}.")
