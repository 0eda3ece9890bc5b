"""Chroma collections in a local folder. It has no aliases: two renames switch, and one can be seen in between."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...aligners.errors import RefusedError, SutureError
from ..dumps.arrays import Array
from ..dumps.extras import need
from ..dumps.ids import id_array
from .address import Address, location
from .batch import Batch, records
from .ranges import RangeStore
from .store import Facts, Spec, Store

__all__ = ["ChromaStore"]

STAMP, OWNER = "_stamp", "suture_owner"
DOCUMENT = "document"
METRICS = {"cosine": "cosine", "ip": "dot", "l2": "l2"}
AT_ONCE = 1000


class ChromaStore(RangeStore):
    """``chroma:DIR/collection``; ids are texts. Documents travel along as the payload ``document``.

    The old collection is called ``NAME_old`` while the new one bears its name. For the length of one call neither does:
    a reader that finds none should ask again.
    """

    making = False

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        address.allow()
        self.place, self.wanted = address.split("collection")
        self.collection_name = self.wanted

    @cached_property
    def client(self) -> Any:
        """The client of this folder, which sends no telemetry; the folder is made by nobody but `create`."""
        if not self._there():
            raise SutureError(f"{self.name}: expected a folder of Chroma at {self.place}, there is none.")
        chroma = need("chromadb", "chroma")
        return chroma.PersistentClient(self.place, settings=chroma.Settings(anonymized_telemetry=False))

    def _there(self) -> bool:
        return self.making or (Path(self.place) / "chroma.sqlite3").is_file()

    def where(self) -> tuple[str, ...]:
        """The folder."""
        return location(self.place)

    @property
    def within(self) -> str:
        """The collection."""
        return self.collection_name

    @property
    def called(self) -> str:
        """With the name of the collection now."""
        return f"chroma:{self.place}/{self.collection_name}"

    @property
    def collection(self) -> Any:
        """The collection; without an embedding function, which would download a model."""
        try:
            return self.client.get_collection(self.collection_name, embedding_function=None)
        except Exception as error:  # its own tree of errors changes between versions
            raise SutureError(f"{self.name}: there is no collection {self.collection_name} ({error}).") from error

    def _names(self) -> dict[str, str]:
        if not self._there():
            return {}
        return {c.name: (c.metadata or {}).get(OWNER, "") for c in self.client.list_collections()}

    def adopt(self, owner: str, role: str) -> None:
        """After a switch both collections bear other names; the new one's metadata tell."""
        names = self._names()
        ours = [name for name, whose in names.items() if whose == owner]
        if role == "target" and ours:
            self.collection_name = ours[0]
        if role == "source" and f"{self.wanted}_old" in names and (self.wanted not in names or self.wanted in ours):
            self.collection_name = f"{self.wanted}_old"

    def exists(self) -> bool:
        """Whether the collection is there."""
        return self.collection_name in self._names()

    def facts(self) -> Facts:
        """From the first row and the configuration."""
        first = self.collection.get(limit=1, include=["embeddings", "metadatas", "documents"])
        if not first["ids"]:
            raise RefusedError(f"{self.name}: this collection is empty.")
        row = dict(first["metadatas"][0] or {})
        stamp = row.pop(STAMP, None)
        payload = sorted(row) + ([DOCUMENT] if first["documents"][0] is not None else [])
        space = (self.collection.configuration_json.get("hnsw") or {}).get("space", "l2")
        return Facts(
            rows=self.count(),
            dim=len(first["embeddings"][0]),
            dtype="float32",
            metric=METRICS[space],
            id_kind="str",
            index="HNSW",
            payload=tuple(payload),
            model=stamp,
        )

    def ids(self) -> list[Any]:
        """All ids."""
        found: list[Any] = self.collection.get(include=[])["ids"]
        return found

    def count(self) -> int:
        """As the collection counts."""
        return int(self.collection.count())

    def rows(self, ids: list[Any], vectors: bool) -> Batch:
        """By id."""
        what = ["metadatas", "documents", *(["embeddings"] if vectors else [])]
        found = self.collection.get(ids=ids, include=what)
        payload, stamps = [], []
        for meta, document in zip(found["metadatas"], found["documents"], strict=True):
            row = dict(meta or {})
            stamps.append(row.pop(STAMP, None))
            payload.append(row if document is None else {**row, DOCUMENT: document})
        count = len(found["ids"])
        rows = np.asarray(found["embeddings"], np.float32) if vectors and count else np.empty((count, 0), np.float32)
        return Batch(id_array(found["ids"], self.name), rows, payload, stamps)

    def vacant(self, spec: Spec) -> None:
        """No collection, or one that is marked with this plan."""
        if self._names().get(self.collection_name) not in (None, spec.owner):
            raise RefusedError(f"{self.name}: expected no collection here, there is one. Name another.")

    def create(self, spec: Spec) -> None:
        """A collection of the same space, marked with the plan."""
        self.vacant(spec)
        self.making = True
        if self.exists():
            return
        space = {ours: theirs for theirs, ours in METRICS.items()}[spec.metric]
        self.client.create_collection(
            self.collection_name,
            embedding_function=None,
            metadata={OWNER: spec.owner},
            configuration={"hnsw": {"space": space}},
        )

    def write(self, number: int, batches: Iterable[Batch]) -> dict[str, Any]:
        """Upsert: add() would pass over ids that are there, without a word."""
        rows = 0
        for batch in batches:
            payload = [dict(row) for row in records(batch.payload, len(batch))]
            documents = [row.pop(DOCUMENT, None) for row in payload]
            stamps = batch.stamps or [None] * len(batch)
            metadatas = [{**row, STAMP: stamp} for row, stamp in zip(payload, stamps, strict=True)]
            for i in range(0, len(batch), AT_ONCE):
                part = slice(i, i + AT_ONCE)
                self.collection.upsert(
                    ids=[str(key) for key in batch.ids[part].tolist()],
                    embeddings=batch.vectors[part].astype(np.float32),
                    metadatas=metadatas[part],
                    documents=documents[part] if any(d is not None for d in documents[part]) else None,
                )
            rows += len(batch)
        return {"rows": rows}

    def discard(self, ids: Array) -> None:
        """Delete rows."""
        there = self.collection.get(ids=ids.tolist(), include=[])["ids"]
        if there:
            self.collection.delete(ids=there)

    def has_index(self) -> bool:
        """Chroma searches."""
        return True

    def search(self, queries: Array, k: int) -> list[list[Any]]:
        """By the collection."""
        found: list[list[Any]] = self.collection.query(query_embeddings=queries, n_results=k, include=[])["ids"]
        return found

    def serving(self, source: Store) -> str | None:
        """The collection that bears the old name."""
        return "source"

    def point(self, source: Store, *, at: str | None, left_out: int = 0) -> None:
        """Two renames, each done only if it is not done yet: a switch that was killed in between goes on."""
        if not isinstance(source, ChromaStore):
            return
        name, old = source.wanted, f"{source.wanted}_old"
        steps = [(name, old), (self.wanted, name)] if at == "target" else [(name, self.wanted), (old, name)]
        for a, b in steps:
            names = self._names()
            if a in names and b not in names:
                self.client.get_collection(a, embedding_function=None).modify(name=b)
        self.collection_name, source.collection_name = (name, old) if at == "target" else (self.wanted, name)

    def drop(self) -> None:
        """Delete the collection."""
        self.client.delete_collection(self.collection_name)
