"""Dumps of many spaces as one stream of items, joined by id out of core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..aligners.errors import RefusedError, UsageError
from ..aligners.multiway.many import ManyBlock
from ..aligners.pairs import BLOCK_ROWS, as_keys
from .dumps import BadRows, Dump, Screen, hash_ids, hash_rows
from .dumps.arrays import BLOCK
from .dumps.join import Join, RowTable

__all__ = ["ManyDumps"]


@dataclass(frozen=True, eq=False)
class ManyDumps:
    """A stream of items over dumps by name. ``table`` has the key of each item and its row in each dump, -1 for none.

    Without a table row i of every dump is item i. ``bad`` counts the bad rows of the last pass.
    """

    dumps: Mapping[str, Dump]
    table: RowTable | None
    bad_rows: BadRows
    advance: Callable[[int], None] = lambda rows: None
    bad: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        dumps: Mapping[str, Dump],
        *,
        by_row: bool = False,
        bad_rows: BadRows,
        advance: Callable[[int], None] = lambda rows: None,
    ) -> ManyDumps:
        """Join by id where all dumps have ids, by position where none has (or ``by_row``).

        Raises `RefusedError` where that would be a guess: ids on some only, or unequal lengths without ids.
        """
        if bad_rows.action == "quarantine":
            raise UsageError("--bad-rows quarantine is for two dumps; with more, refuse or skip.")
        have = [name for name, dump in dumps.items() if dump.ids is not None]
        if not have or by_row:
            if len({dump.rows for dump in dumps.values()}) > 1:
                sizes = ", ".join(f"{dump.name} has {dump.rows}" for dump in dumps.values())
                raise RefusedError(f"Rows correspond by position only where all dumps have as many: {sizes}. Give ids.")
            return cls(dumps, None, bad_rows, advance)
        if len(have) < len(dumps):
            lacks = ", ".join(dump.name for name, dump in dumps.items() if name not in have)
            raise RefusedError(f"{lacks}: has no ids and others have. Give ids for all (--ids), or --by-row.")
        kinds = {dump.ids.kind for dump in dumps.values() if dump.ids is not None}
        columns = [dump.ids for dump in dumps.values() if dump.ids is not None]
        if len(kinds) > 1:
            columns = [column.as_text() if column.textual else column for column in columns]
        if len({column.kind for column in columns}) > 1:
            words = ", ".join(f"{column.name} are {column.kind}" for column in columns)
            raise RefusedError(f"Ids of one kind are expected in all dumps: {words}. Write them the same way.")
        with Join() as join:
            for i, (column, dump) in enumerate(zip(columns, dumps.values(), strict=True)):
                join.load(f"s{i}", column, (hash_ids(block).view(np.int64) for block in column.blocks(BLOCK)))
                join.refuse_duplicates(f"s{i}", dump.name)
            every = " UNION ".join(f"SELECT id FROM s{i}" for i in range(len(dumps)))
            chosen = ", ".join(f"COALESCE(s{i}.row, -1)" for i in range(len(dumps)))
            joins = " ".join(f"LEFT JOIN s{i} ON s{i}.id = u.id" for i in range(len(dumps)))
            key = f"COALESCE({', '.join(f's{i}.value' for i in range(len(dumps)))})"
            order = "s0.row IS NULL, s0.row, u.id"
            sql = f"SELECT {key}, {chosen} FROM ({every}) AS u {joins} ORDER BY {order}"
            table = join.table(sql, 1 + len(dumps))
        return cls(dumps, table, bad_rows, advance)

    @property
    def dims(self) -> Mapping[str, int]:
        """Width of each space, by name."""
        return {name: dump.dim for name, dump in self.dumps.items()}

    @property
    def rows(self) -> int:
        """Number of items."""
        return next(iter(self.dumps.values())).rows if self.table is None else self.table.rows

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[ManyBlock]:
        """One pass over the items. Raises `RefusedError` at its end if there were bad rows to refuse."""
        with ExitStack() as stack:
            screens = {n: stack.enter_context(Screen(self.bad_rows, dump)) for n, dump in self.dumps.items()}
            for keys, places in self._places(size):
                rows, present = {}, {}
                for i, (name, dump) in enumerate(self.dumps.items()):
                    there = places[:, i] >= 0
                    block = dump.gather(places[there, i])
                    mask = screens[name].keep((block,), (places[there, i],))
                    if mask is not None:
                        block = block[mask]
                        there[there] = mask
                    rows[name], present[name] = torch.from_numpy(block), torch.from_numpy(there)
                if not any(screen.refusing for screen in screens.values()):
                    yield ManyBlock(as_keys(keys), rows, present)
                self.advance(len(places))
        self.bad.update({name: dict(screen.counts[0]) for name, screen in screens.items()})

    def _places(self, size: int) -> Iterator[tuple[Any, Any]]:
        if self.table is not None:
            yield from ((some[:, 0], some[:, 1:]) for some in self.table.blocks(size))
            return
        for start in range(0, self.rows, size):
            numbers = np.arange(start, min(start + size, self.rows))
            yield hash_rows(start, start + len(numbers)), np.repeat(numbers[:, None], len(self.dumps), 1)
