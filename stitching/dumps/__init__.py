"""Reading and writing embedding dumps, streamed: memory does not grow with the number of rows."""

from .atomic import atomic_write
from .badrows import BadRows, Screen, find_bad
from .dump import Dump
from .ids import IdColumn, hash_ids, hash_rows
from .open import open_dump
from .pairs import PairBlock, Pairing, pair
from .relevant import read_relevant
from .write import Writer, open_writer

__all__ = [
    "BadRows",
    "Dump",
    "IdColumn",
    "PairBlock",
    "Pairing",
    "Screen",
    "Writer",
    "atomic_write",
    "find_bad",
    "hash_ids",
    "hash_rows",
    "open_dump",
    "open_writer",
    "pair",
    "read_relevant",
]
