"""The plan of an upgrade: everything that is decided, in one file, before anything is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ... import __version__
from ...aligners.alignment import Alignment
from ...aligners.errors import IncompleteError, RefusedError, SutureError
from ...aligners.file import load
from ..stores import Address, Fragment, Spec, Store, open_store
from ..stores.bridge import BridgeStore
from ..stores.disk import aside, read_state
from .events import stopping
from .ledger import Ledger
from .phase import phase
from .rows import RowMap, row_map

__all__ = ["Plan", "gone", "load_plan", "save_plan"]

FORMAT, VERSION = "suture-plan", 1
FRAGMENT_ROWS = 65536


@dataclass(frozen=True)
class Plan:
    """What `make_plan` decided. ``path`` is the file; ``state``, the folder beside it, holds all that happens after.

    ``stamp`` is written to every mapped row: the new model and the hash of the map, nothing that differs from plan to
    plan. ``evidence`` is what the semantic canary measured, None where it could not; ``estimate``, what an estimate in
    the map file promises of this strategy, None where it says nothing.
    """

    path: Path
    source: str
    target: str
    strategy: str
    model: str
    map_hash: str
    dtype: str
    normalize: str
    metric: str
    dim: int
    id_kind: str
    rows: int
    bytes_needed: int
    bad_rows: str
    familiar: bool
    lossy: bool
    order: str
    fragments: list[Fragment]
    evidence: dict[str, Any] | None = None
    estimate: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def state(self) -> Path:
        """Where the ledger, the map, the sample and the locks lie."""
        return self.path.with_name(f"{self.path.name}.state")

    @property
    def stamp(self) -> str:
        """Of a mapped row."""
        return f"{self.model}@map:{self.map_hash[:16]}"

    @cached_property
    def hash(self) -> str:
        """What binds ledger and gallery to this plan; what becomes of bad rows may be decided when they are found."""
        bound = {**self.content(), "bad_rows": "refuse"}
        return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()

    @property
    def owner(self) -> str:
        """Whose the new gallery is: that of this content and this folder, so that two equal plans are two."""
        drawn = read_state(self.state / "owner.json")
        return self.hash if drawn is None else hashlib.sha256(f"{self.hash} {drawn}".encode()).hexdigest()

    @property
    def ledger(self) -> Ledger:
        """What was done of it."""
        return Ledger(self.state / "ledger", self.hash)

    def content(self) -> dict[str, Any]:
        """The plan as JSON."""
        return {k: v for k, v in asdict(self).items() if k != "path"}

    def all_fragments(self) -> list[Fragment]:
        """Those of the plan, and those that came to the gallery since and were taken up."""
        return [*self.fragments, *(read_state(self.state / "added.json") or [])]

    def spec(self) -> Spec:
        """What the new gallery must be."""
        return Spec(
            dim=self.dim,
            dtype=self.dtype,
            metric=self.metric,
            id_kind=self.id_kind,
            owner=self.owner,
            model=self.stamp,
            source=self.source,
            fragments=len(self.fragments),
            plan=str(self.path.absolute()),
        )

    def open_source(self) -> Store:
        """The old gallery."""
        return self._opened(self.source, "source")

    def open_target(self) -> Store:
        """The new one."""
        return self._opened(self.target, "target")

    def _opened(self, uri: str, role: str) -> Store:
        with stopping(self.bytes_needed, Address.parse(uri).shown):
            store = open_target(uri, self.strategy) if role == "target" else open_store(uri)
            try:
                store.adopt(self.owner, role)
                if role == "source" and not self.retired and not store.exists():
                    raise gone(store)
            except BaseException:
                store.close()
                raise
        return store

    @property
    def retired(self) -> bool:
        """Whether one of its galleries was deleted on purpose."""
        return phase(self.state) == "retired"

    @cached_property
    def alignment(self) -> Alignment:
        """The map, from the copy that the plan keeps. `RefusedError` where that is not the planned one."""
        path = self.state / "map.safetensors"
        if file_hash(path) != self.map_hash:
            raise RefusedError(f"{path}: this is not the map that the plan was made with; plan anew.")
        return load(path)

    @cached_property
    def row_map(self) -> RowMap:
        """What becomes of a row."""
        return row_map(
            self.alignment, self.strategy, self.dtype, "l2" if self.normalize == "l2" else "none", lossy=self.lossy
        )


def gone(store: Store) -> IncompleteError:
    """What to say where the old gallery of a plan is not there any more."""
    return IncompleteError(
        f"{store.name}: the old gallery was here when the plan was made, and is not now. Put it back and run the same "
        "command again: it goes on where it stopped."
    )


def open_target(uri: str, strategy: str) -> Store:
    """The new gallery at ``uri``, or what stands for one where ``strategy`` writes no rows."""
    return BridgeStore(Address.parse(uri)) if strategy == "bridge" else open_store(uri)


def file_hash(path: Path) -> str:
    """SHA-256 of a file; `SutureError` where there is none."""
    if not path.is_file():
        raise SutureError(f"{path}: expected a map file, there is none.")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_plan(plan: Plan) -> None:
    """Write the plan file, the last act of planning."""
    whole = {"format": FORMAT, "version": VERSION, "suture": __version__, "hash": plan.hash, **plan.content()}
    with aside(plan.path) as file:
        file.write(json.dumps(whole, indent=1, sort_keys=True).encode() + b"\n")


def load_plan(path: str | Path) -> Plan:
    """The plan in the file at ``path``. Raises `SutureError` where there is none, or it was changed by hand."""
    path = Path(path)
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        if whole.pop("format") != FORMAT or whole.pop("version") > VERSION:
            raise SutureError(f"{path}: expected a {FORMAT} up to version {VERSION}; upgrade suture.")
        whole.pop("suture")
        expected = whole.pop("hash")
        plan = Plan(path=path, **whole)
    except FileNotFoundError:
        raise SutureError(f"{path}: expected a plan made by `suture gallery plan`, there is none.") from None
    except (ValueError, KeyError, TypeError, AttributeError, IsADirectoryError) as error:
        if isinstance(error, SutureError):
            raise
        raise SutureError(f"{path}: this is not a plan made by `suture gallery plan` ({error}).") from error
    if plan.hash != expected:
        raise RefusedError(f"{path}: this plan was changed after it was made; make it anew.")
    return plan


def total(fragments: Iterable[Fragment]) -> int:
    """Rows of these fragments."""
    return sum(fragment["rows"] for fragment in fragments)
