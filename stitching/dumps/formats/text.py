"""Text, line by line: the ground under .txt, .csv, .jsonl and word2vec; and ids one a line."""

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from ....aligners.errors import SutureError
from ..arrays import Array
from ..ids import IdColumn, canonical_int, id_array

__all__ = ["CHUNK", "chunked", "open_text_ids", "text_column", "text_lines"]

CHUNK = 512  # rows held as Python objects at a time: 512 x 768 numbers are about 30 MB

T = TypeVar("T")


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of the lines that are not empty; .gz is unpacked on the way. UTF-8, or SutureError.

    Only a newline ends a line: ids may hold the other separators of Unicode.
    """
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if stripped := line.rstrip("\r\n"):
                    yield number, stripped
    except UnicodeDecodeError as error:
        raise SutureError(f"{path}: not UTF-8 text soon after line {number} ({error.reason}). Convert it.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SutureError(f"{path}: cannot be unpacked after line {number} ({error}). It is damaged or cut.") from error


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def text_column(name: str, texts: Callable[[], Iterator[str]]) -> IdColumn:
    """Ids that are stored as text: integers if every one prints as itself (7, not 007 or +7), else strings.

    Costs one pass over the ids when it is opened.
    """
    rows, integers = 0, True
    for text in texts():
        rows += 1
        integers = integers and canonical_int(text)
    if not rows:
        raise SutureError(f"{name}: expected ids, found none.")

    def chunks() -> Iterator[Array]:
        for chunk in chunked(texts(), CHUNK):
            yield id_array([int(text) for text in chunk] if integers else chunk, name)

    return IdColumn(name, rows, "int" if integers else "str", chunks, textual=True)


def open_text_ids(path: Path) -> IdColumn:
    """Ids `(n,)`, one a line."""
    return text_column(str(path), lambda: (line for _, line in text_lines(path)))
