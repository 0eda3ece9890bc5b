"""Rows that are no direction in space: NaN, infinite or zero. Refused unless the user says otherwise."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...aligners.errors import RefusedError, UsageError
from .arrays import Array, Rows
from .atomic import atomic_write
from .dump import Dump

__all__ = ["ADVICE", "REASONS", "REFUSE", "BadRows", "Screen", "find_bad"]

REASONS = ("nan", "infinite", "zero")
SHOWN = 10
ADVICE = (
    "Repair the dump, or drop these rows; a command that has the option does it: --bad-rows skip, or --bad-rows "
    "quarantine FILE."
)


def find_bad(block: Array) -> dict[str, Rows]:
    """Positions in `block` `(m, p)` of its bad rows, by reason; a row of NaN and infinities counts as nan.

    Exact, also for 1e30 and for denormals. Only a row whose sum is zero or not finite can be bad; of those few, the
    bits of a float without its sign, read as an integer, order like its magnitude, with infinity above all numbers and
    NaN above infinity, so one integer maximum a row tells which. torch sums float16 rows 30 times faster than numpy.
    """
    import torch

    sums = torch.from_numpy(block).sum(1)
    suspects = (~torch.isfinite(sums) | (sums == 0)).nonzero()[:, 0].numpy()
    if not len(suspects):
        return {}
    bits = np.ascontiguousarray(block[suspects]).view(f"i{block.dtype.itemsize}")
    largest = np.bitwise_and(bits, np.iinfo(bits.dtype).max).max(1)
    infinity = np.array(np.inf, block.dtype).view(bits.dtype)
    masks = (largest > infinity, largest == infinity, largest == 0)
    return {reason: suspects[mask] for reason, mask in zip(REASONS, masks, strict=True) if mask.any()}


@dataclass(frozen=True)
class BadRows:
    """What to do with bad rows: "refuse" the dump, "skip" them, or skip and write them to a "quarantine" file."""

    action: Literal["refuse", "skip", "quarantine"] = "refuse"
    path: Path | None = None

    def __post_init__(self) -> None:
        if self.action not in ("refuse", "skip", "quarantine"):
            raise UsageError(f"--bad-rows: expected refuse, skip or quarantine, got {self.action!r}.")
        if (self.action == "quarantine") != (self.path is not None):
            raise UsageError("--bad-rows quarantine needs a FILE, and only it: --bad-rows quarantine bad.jsonl")
        if self.path is not None and self.path.suffix != ".jsonl":
            raise UsageError(f"--bad-rows quarantine writes JSON lines: name a .jsonl file, not {self.path}.")


REFUSE = BadRows()


class Screen:
    """One pass of `dumps`, read side by side, under a policy. Use it as a context manager around the pass.

    `keep` is asked block by block; leaving the block without an exception raises RefusedError under "refuse" where
    anything bad was seen, and writes the quarantine file, replacing the one of an earlier pass.
    """

    def __init__(self, policy: BadRows, *dumps: Dump) -> None:
        self.policy = policy
        self.dumps = dumps
        self.counts: list[dict[str, int]] = [{} for _ in dumps]
        self.dropped = 0
        self._bad: list[list[tuple[str, Rows]]] = [[] for _ in dumps]

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None and self.refusing:
            raise RefusedError(self._message())
        if kind is None and self.policy.path is not None:
            with atomic_write(self.policy.path, overwrite=True) as file:
                for record in self.records():
                    file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")

    def records(self) -> Iterator[dict[str, Any]]:
        """The bad rows as `{"dump", "row", "id", "reason"}`: under "refuse" the first ten of each dump, else all."""
        for dump, found in zip(self.dumps, self._bad, strict=True):
            if not found:
                continue
            rows = np.concatenate([rows for _, rows in found])
            reasons = [reason for reason, rows in found for _ in rows]
            ids = [None] * len(rows) if dump.ids is None else dump.ids.take(rows).tolist()
            for row, reason, name in zip(rows.tolist(), reasons, ids, strict=True):
                yield {"dump": dump.name, "row": row, "id": name, "reason": reason}

    @property
    def refusing(self) -> bool:
        """Whether the pass is lost already, and goes on only to count."""
        return self.policy.action == "refuse" and any(self.counts)

    def keep(self, blocks: Sequence[Array], rows: Sequence[Rows]) -> NDArray[np.bool_] | None:
        """Which rows `(m,)` are good in all `blocks`; None means all. `rows` are their row numbers, dump by dump."""
        mask: NDArray[np.bool_] | None = None
        for i, (block, numbers) in enumerate(zip(blocks, rows, strict=True)):
            for reason, at in find_bad(block).items():
                mask = np.ones(len(block), bool) if mask is None else mask
                mask[at] = False
                self._note(i, reason, numbers[at])
        if mask is not None:
            self.dropped += int(np.count_nonzero(~mask))
        return mask

    def _note(self, i: int, reason: str, rows: Rows) -> None:
        self.counts[i][reason] = self.counts[i].get(reason, 0) + len(rows)
        if self.policy.action == "refuse":
            rows = rows[: SHOWN - sum(len(seen) for _, seen in self._bad[i])]
        if self.policy.action != "skip":
            self._bad[i].append((reason, rows))

    def _message(self) -> str:
        lines = []
        for i, dump in enumerate(self.dumps):
            if self.counts[i]:
                found = ", ".join(f"{count} {reason}" for reason, count in self.counts[i].items())
                lines.append(f"{dump.name}: expected finite non-zero vectors, found {found} among {dump.rows} rows.")
        for record in self.records():
            name = "" if record["id"] is None else f", id {record['id']!r}"
            lines.append(f"  {record['dump']} row {record['row']}{name}: {record['reason']}")
        lines.append(ADVICE)
        return "\n".join(lines)
