"""Which row of one dump belongs to which row of the other, and the pairs as a stream."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...aligners.errors import RefusedError, UsageError
from .arrays import BLOCK, Array, Rows
from .badrows import REFUSE, BadRows, Screen
from .dump import Dump
from .idfiles import open_columns, open_groups
from .ids import IdColumn, first_ids, hash_ids, hash_rows, repeated_ids, same_ids, shown
from .join import Join, RowPairs
from .weights import Weights, read_weights, scaled

__all__ = ["PairBlock", "Pairing", "pair"]

Keys = NDArray[np.uint64]


class PairBlock(NamedTuple):
    """Paired rows without bad ones: `x (m, p)`, `y (m, q)`, `keys (m,)`, uint64 and equal within a group, weights."""

    x: Array
    y: Array
    keys: Keys
    weights: Weights | None = None


class Pairing:
    """`rows` pairs of a source and a target row, in the order of the source rows; `blocks` reads them.

    `report` is a JSON-able account of how they were found, `bad` of the bad rows met in the last pass, and
    `key_blocks()` a fresh stream of the keys of all source rows.
    """

    def __init__(
        self,
        source: Dump,
        target: Dump,
        by: Literal["row", "id", "pairs"],
        report: dict[str, Any],
        joined: RowPairs | None,
        keys: Callable[[], Iterator[Keys]],
        bad_rows: BadRows,
        weights: Weights | None,
    ) -> None:
        self.source = source
        self.target = target
        self.by = by
        self.rows = source.rows if joined is None else joined.rows
        self.bad_rows = bad_rows
        self.bad: dict[str, Any] = {}
        self.report = {
            "by": by,
            "rows": self.rows,
            "source_rows": source.rows,
            "target_rows": target.rows,
            **report,
        }
        self._joined = joined
        self.key_blocks = keys
        self.weights = None if weights is None else scaled(weights, self._source_rows())

    def blocks(self, size: int = BLOCK) -> Iterator[PairBlock]:
        """One pass over the pairs, at most `size` at a time; the arrays are valid until the next step.

        Raises RefusedError at the end of the pass if there were bad rows to refuse; no block follows the first of them.
        """
        with Screen(self.bad_rows, self.source, self.target) as screen:
            cursor = KeyCursor(self.key_blocks())
            for x, y, i, j in self._read(size):
                mask = screen.keep((x, y), (i, j))
                if not screen.refusing:
                    weights = None if self.weights is None else self.weights[i]
                    block = PairBlock(x, y, cursor.take(i), weights)
                    if mask is not None:
                        kept = None if weights is None else weights[mask]
                        block = PairBlock(x[mask], y[mask], block.keys[mask], kept)
                    if len(block.keys):
                        yield block
            self.bad = {"source": screen.counts[0], "target": screen.counts[1], "dropped": screen.dropped}

    def target_rows(self) -> Rows:
        """The target row `(rows,)` of each pair; 8 bytes a pair."""
        if self._joined is None:
            return np.arange(self.rows)
        return np.concatenate([block[:, 1] for block in self._joined.blocks(BLOCK)])

    def _source_rows(self) -> Iterator[Rows]:
        if self._joined is None:
            return iter((np.arange(self.rows),))
        return (block[:, 0] for block in self._joined.blocks(BLOCK))

    def partners(self) -> Rows:
        """The target row `(source.rows,)` of each source row, -1 where it has none; its first, where it has several."""
        if self._joined is None:
            return np.arange(self.source.rows)
        out = np.full(self.source.rows, -1)
        for pairs in self._joined.blocks(BLOCK):
            rows, first = np.unique(pairs[:, 0], return_index=True)
            new = out[rows] < 0
            out[rows[new]] = pairs[first[new], 1]
        return out

    def _read(self, size: int) -> Iterator[tuple[Array, Array, Rows, Rows]]:
        if self._joined is None:
            first = 0
            for x, y in side_by_side(self.source.blocks(size), self.target.blocks(size)):
                rows = np.arange(first, first + len(x))
                yield x, y, rows, rows
                first += len(x)
        else:
            for pairs in self._joined.blocks(size):
                i, j = np.ascontiguousarray(pairs.T)
                yield self.source.gather(i), self.target.gather(j), i, j


def side_by_side(left: Iterator[Array], right: Iterator[Array]) -> Iterator[tuple[Array, Array]]:
    """`zip` of two readers, each step of the second in a thread of its own: files are read and parsed in parallel."""
    with ThreadPoolExecutor(1) as pool:
        while True:
            other = pool.submit(next, right, None)
            one, two = next(left, None), other.result()
            if one is None or two is None:
                return
            yield one, two


class KeyCursor:
    """Keys of ascending source rows, taken out of a stream of the keys of all source rows."""

    def __init__(self, stream: Iterator[Keys]) -> None:
        self._stream = stream
        self._block: Keys = np.empty(0, np.uint64)
        self._first = 0

    def take(self, rows: Rows) -> Keys:
        """The keys `(len(rows),)` of the sorted `rows`, none of them before the last one asked for."""
        out = np.empty(len(rows), np.uint64)
        at = 0
        while at < len(rows):
            stop = self._first + len(self._block)
            end = at + int(np.searchsorted(rows[at:], stop))
            out[at:end] = self._block[rows[at:end] - self._first]
            at = end
            if at < len(rows):
                self._first = stop
                self._block = next(self._stream)
        return out


def pair(
    source: Dump,
    target: Dump,
    *,
    by_row: bool = False,
    pairs: Path | None = None,
    groups: Path | None = None,
    weights: Path | None = None,
    bad_rows: BadRows = REFUSE,
    by_table: bool = True,
) -> Pairing:
    """Pair the rows of two dumps: by id where both have ids, by position where neither has (or `by_row`), or as the
    table `pairs` says (columns source and target: ids where the dump has ids, else row numbers).

    `weights` is a file with a number for each source row: how much its pair counts. `groups` is a file of group labels,
    one a source row or with the columns id and group: rows of one group share a key. Ids in the same order are paired
    in constant memory, others through a temporary database on disk.
    Raises RefusedError where pairing would be a guess: unequal lengths, ids on one side only, ids of different kinds,
    repeated or disjoint ids. With `by_table` off they do not advise a table, for callers that take none.
    """
    table = ", or --pairs FILE" if by_table else ""
    if by_row and pairs is not None:
        raise UsageError(f"got both --by-row and --pairs {pairs}: give one of them.")
    by: Literal["row", "id", "pairs"]
    joined: RowPairs | None = None
    report: dict[str, Any] = {"overlap": source.rows, "source_only": 0, "target_only": 0, "order": "same"}
    report |= {"source_repeated": 0, "target_repeated": 0}
    if pairs is not None:
        by, (joined, report) = "pairs", join_table(source, target, pairs)
    elif by_row or (source.ids is None and target.ids is None):
        by = "row"
        require_equal_lengths(source, target, table)
    else:
        by = "id"
        left, right = comparable(source, target, table)
        if not in_same_order(left, right):
            joined, found = join_ids(source, target, left, right, table)
            report |= found
        elif (twice := repeated_ids(left))[0]:
            for side in ("source", "target"):
                report |= {f"{side}_repeated": twice[0], f"{side}_repeated_examples": twice[1]}
    given = None if weights is None else read_weights(weights, source.rows)
    return Pairing(source, target, by, report, joined, row_keys(source, groups), bad_rows, given)


def require_equal_lengths(source: Dump, target: Dump, table: str = "") -> None:
    """RefusedError unless rows can correspond by position."""
    if source.rows != target.rows:
        raise RefusedError(
            f"Rows can be paired by position only where both dumps have equally many: {source.name} has {source.rows}, "
            f"{target.name} has {target.rows}. Give ids for both (--ids FILE or --id-column NAME){table}."
        )


def comparable(source: Dump, target: Dump, table: str) -> tuple[IdColumn, IdColumn]:
    """The two id columns, of one kind; RefusedError where one is missing or the kinds differ."""
    left, right = source.ids, target.ids
    if left is None or right is None:
        has, lacks = (target, source) if left is None else (source, target)
        raise RefusedError(
            f"{has.name} has ids, {lacks.name} has none: whether their rows correspond by position is a guess. "
            f"Give ids for both (--ids FILE or --id-column NAME){table}, or --by-row if you know they do."
        )
    return one_kind(left, right)


def one_kind(left: IdColumn, right: IdColumn) -> tuple[IdColumn, IdColumn]:
    """Both columns as int or both as str; text without types follows the other side."""
    if left.kind != right.kind:
        left = left.as_text() if left.textual and left.kind == "int" else left
        right = right.as_text() if right.textual and right.kind == "int" else right
    if left.kind != right.kind:
        raise RefusedError(
            f"Ids of one kind are expected on both sides: {left.name} are {left.kind} (first: {first_ids(left)[0]!r}), "
            f"{right.name} are {right.kind} (first: {first_ids(right)[0]!r}). Write them the same way in both files."
        )
    return left, right


def in_same_order(left: IdColumn, right: IdColumn) -> bool:
    """Whether both columns hold the same ids in the same order; stops at the first difference."""
    return left.rows == right.rows and all(same_ids(a, b) for a, b in zip(left.blocks(), right.blocks(), strict=True))


def join_ids(
    source: Dump, target: Dump, left: IdColumn, right: IdColumn, table: str
) -> tuple[RowPairs, dict[str, Any]]:
    """Pair equal ids, in the order of the source rows."""
    with Join() as join:
        join.load("s", left)
        join.load("t", right)
        join.refuse_duplicates("s", source.name, table)
        join.refuse_duplicates("t", target.name, table)
        # CROSS JOIN fixes the loops: the source in its order outside, the index of the target inside.
        rows = join.pairs("SELECT s.row, t.row FROM s CROSS JOIN t ON t.id = s.id ORDER BY s.row")
        if not rows.rows:
            raise RefusedError(
                f"No id of {source.name} is an id of {target.name}: {shown(left)} against {shown(right)}. "
                "Are they dumps of the same items, and the ids written the same way?"
            )
        return rows, {
            "overlap": rows.rows,
            "order": "joined",
            **without_mate(join, "source", "s", "t"),
            **without_mate(join, "target", "t", "s"),
        }


def without_mate(join: Join, side: str, table: str, other: str) -> dict[str, Any]:
    """What the report says of the ids of one side that are not on the other."""
    count, examples = join.missing(table, other)
    return {f"{side}_only": count, f"{side}_only_examples": examples}


def join_table(source: Dump, target: Dump, path: Path) -> tuple[RowPairs, dict[str, Any]]:
    """Pair what a table says, each source and target named by id, or by row number where its dump has no ids."""
    columns = open_columns(path, "source", "target")
    if columns[0].rows != columns[1].rows:
        raise RefusedError(f"{path}: its columns have {columns[0].rows} and {columns[1].rows} rows.")
    report: dict[str, Any] = {"order": "table", "pairs": str(path)}
    with Join() as join:
        for table, dump, column in (("s", source, columns[0]), ("t", target, columns[1])):
            side = "source" if table == "s" else "target"
            ids = row_numbers(dump) if dump.ids is None else dump.ids
            known, named = one_kind(ids, column)
            join.load(table, known)
            join.refuse_duplicates(table, dump.name)
            join.load(f"{table}_named", named)
            count, examples = join.missing(f"{table}_named", table)
            if count:
                what = f"row numbers below {dump.rows}" if dump.ids is None else "ids of this dump"
                raise RefusedError(
                    f"{path}: expected {what} for {dump.name}, {count} of {named.rows} are not: "
                    f"{', '.join(map(repr, examples))}. Remove or correct these pairs."
                )
            report |= without_mate(join, side, table, f"{table}_named")
            twice, _, repeats = join.repeated(f"{table}_named")
            report |= {f"{side}_repeated": twice, f"{side}_repeated_examples": [name for name, _ in repeats]}
        rows = join.pairs(
            "SELECT s.row, t.row FROM s_named AS a CROSS JOIN t_named AS b ON b.row = a.row "
            "CROSS JOIN s ON s.id = a.id CROSS JOIN t ON t.id = b.id ORDER BY s.row, t.row"
        )
        return rows, {"overlap": rows.rows, **report}


def row_numbers(dump: Dump) -> IdColumn:
    """The row numbers of a dump as if they were its ids."""
    chunks = lambda: (np.arange(i, min(i + BLOCK, dump.rows)) for i in range(0, dump.rows, BLOCK))  # noqa: E731
    return IdColumn(f"row numbers of {dump.name}", dump.rows, "int", chunks)


def row_keys(source: Dump, groups: Path | None) -> Callable[[], Iterator[Keys]]:
    """A fresh stream of the keys of all source rows: of their group, else of their id, else of their number."""
    if groups is None:
        if source.ids is not None:
            return hashes(source.ids)
        return lambda: (hash_rows(i, min(i + BLOCK, source.rows)) for i in range(0, source.rows, BLOCK))
    ids, labels = open_groups(groups)
    if ids is None:
        if labels.rows != source.rows:
            raise RefusedError(
                f"{groups} holds {labels.rows} group labels, {source.name} has {source.rows} rows. "
                "Give one label a source row, or a table with the columns id and group."
            )
        return hashes(labels)
    if source.ids is None:
        raise RefusedError(
            f"{groups} names groups by id, {source.name} has no ids. Give its ids, or one label a row in a .txt file."
        )
    grouped = keys_by_id(source, source.ids, groups, ids, labels)
    return lambda: (np.ascontiguousarray(block[:, 1]).view(np.uint64) for block in grouped.blocks(BLOCK))


def keys_by_id(source: Dump, known: IdColumn, groups: Path, ids: IdColumn, labels: IdColumn) -> RowPairs:
    """The source rows and the hashes of their groups, as int64, for groups named by id."""
    known, ids = one_kind(known, ids)
    with Join() as join:
        join.load("s", known)
        join.load("g", ids, (hash_ids(block).view(np.int64) for block in labels.blocks(BLOCK)))
        join.refuse_duplicates("g", str(groups))
        count, examples = join.missing("s", "g")
        if count:
            raise RefusedError(
                f"{groups}: expected a group for every id of {source.name}, {count} of {source.rows} have none: "
                f"{', '.join(map(repr, examples))}. Add them; a row of its own may be its own group."
            )
        return join.pairs("SELECT s.row, g.value FROM s CROSS JOIN g ON g.id = s.id ORDER BY s.row")


def hashes(ids: IdColumn) -> Callable[[], Iterator[Keys]]:
    """A fresh stream of the hashes of a column."""
    return lambda: map(hash_ids, ids.blocks(BLOCK))
