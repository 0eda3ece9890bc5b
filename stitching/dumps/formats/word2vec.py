"""The text format of word2vec, fastText and GloVe: a line `n p`, then one word and its numbers a line."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from ....aligners.errors import SutureError
from ..arrays import Array, rebatch
from ..dump import Dump
from ..ids import IdColumn, id_array
from .request import Request
from .text import CHUNK, chunked, text_lines

__all__ = ["open_word2vec"]


def open_word2vec(request: Request) -> Dump:
    """Open .vec, or a .txt that begins with `n p`; the words are the ids."""
    request.without_key()
    request.without_ids()
    _, first = next(text_lines(request.path), (0, ""))
    sizes = first.split()
    if len(sizes) != 2 or not all(size.isdecimal() for size in sizes):
        raise SutureError(
            f"{request.path}: expected the word2vec text format, whose first line is `rows dimensions`, got "
            f"{first[:60]!r}. Add that line (GloVe leaves it out), or save the vectors as .csv or .npy."
        )
    dump = Word2VecDump(request.name, request.path, int(sizes[0]), int(sizes[1]))
    dump.ids = IdColumn(f"words of {request.path}", dump.rows, "str", dump.words)
    return dump


class Word2VecDump(Dump):
    """Float32 vectors `(n, p)`, each behind its word, which may hold spaces."""

    def __init__(self, name: str, path: Path, rows: int, dim: int) -> None:
        super().__init__(name, path, rows, dim, np.dtype(np.float32))

    def words(self) -> Iterator[Array]:
        """The words, in arrays of any length."""
        for chunk in chunked(self._records(), CHUNK):
            yield id_array([fields[0] for _, fields in chunk], self.name)

    def _stream(self, size: int, start: int, stop: int) -> Iterator[Array]:
        return rebatch(self._chunks(), size, self.dim, self.dtype, start, stop - start)

    def _chunks(self) -> Iterator[Array]:
        for chunk in chunked(self._records(), CHUNK):
            out = np.empty((len(chunk), self.dim), self.dtype)
            for i, (number, fields) in enumerate(chunk):
                try:
                    out[i] = fields[1:]
                except ValueError as error:
                    raise self._malformed(number, str(error)) from error
            yield out

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        for count, (number, line) in enumerate(islice(text_lines(self.path), 1, None), 1):
            fields = line.rstrip(" ").rsplit(" ", self.dim)
            if len(fields) != self.dim + 1:
                raise self._malformed(number, f"{len(fields)} fields")
            if count > self.rows:
                raise SutureError(f"{self.path}: its first line promises {self.rows} rows, there are more. Correct it.")
            yield number, fields

    def _malformed(self, number: int, got: str) -> SutureError:
        return SutureError(
            f"{self.path}, line {number}: expected a word and {self.dim} numbers, as the first line says, got {got}. "
            "The file is ragged or truncated."
        )
