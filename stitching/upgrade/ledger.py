"""What was done: one small file a fragment, each written aside, with a digest of its own.

A torn or foreign entry counts for nothing: its fragment is done again, which changes nothing that was right.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..dumps.arrays import Array
from ..stores.disk import aside, read_json, write_json

__all__ = ["Entry", "Ledger"]

Entry = dict[str, Any]


class Ledger:
    """The entries of the plan with the hash ``plan``, in ``folder``; beside them, what each live fragment held.

    ``seen``: ids and 64-bit digests of the rows of a fragment of a live source, by which a later look at the source
    tells what was inserted, changed or deleted since.
    """

    def __init__(self, folder: Path, plan: str) -> None:
        self.folder = folder
        self.plan = plan
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, number: int) -> Entry | None:
        """The entry of a fragment; None where there is none, or no whole one of this plan."""
        entry = read_json(self.folder / f"{number:06d}.json")
        return entry if isinstance(entry, dict) and entry.get("plan") == self.plan else None

    def put(self, number: int, entry: Mapping[str, Any]) -> None:
        """Record a fragment; what it describes must be durable already."""
        write_json(self.folder / f"{number:06d}.json", {**entry, "plan": self.plan, "fragment": number})

    def drop(self, number: int) -> None:
        """Forget a fragment whose rows turned out to be damaged."""
        (self.folder / f"{number:06d}.json").unlink(missing_ok=True)

    def entries(self) -> dict[int, Entry]:
        """All whole entries, by fragment."""
        numbers = sorted(int(path.stem) for path in self.folder.glob("[0-9]*.json"))
        found = {number: self.get(number) for number in numbers}
        return {number: entry for number, entry in found.items() if entry is not None}

    def digest(self) -> str:
        """A hash of everything recorded: what was verified is told from what came after."""
        return hashlib.sha256(json.dumps(self.entries(), sort_keys=True).encode()).hexdigest()

    def put_seen(self, number: int, ids: Array, digests: Array) -> None:
        """Keep what a live fragment held."""
        with aside(self.folder / f"{number:06d}.npy") as file:
            np.save(file, digests, allow_pickle=False)
            np.save(file, ids.astype(str) if ids.dtype == object else ids, allow_pickle=False)

    def seen(self, number: int) -> dict[Any, int]:
        """What it held, as digest by id; nothing where that is not known."""
        try:
            with (self.folder / f"{number:06d}.npy").open("rb") as file:
                digests, ids = np.load(file), np.load(file)
        except (OSError, ValueError, EOFError):
            return {}
        return dict(zip(ids.tolist(), digests.tolist(), strict=True))
