"""Qdrant collections, in a local folder or on a server. The new gallery is a new collection; an alias is moved."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
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
from .files import by_id
from .local import borrow, give_back
from .store import Facts, Fragment, Spec, Store

__all__ = ["QdrantStore"]

STAMP, OWNER = "_stamp", "_owner"
PAGE = 256
METRICS = {"COSINE": "cosine", "DOT": "dot", "EUCLID": "l2"}


class QdrantStore(Store):
    """``qdrant:DIR/collection`` or ``qdrant:http://host:6333/collection``, ``#name`` for one of several vectors.

    ``?alias=NAME`` on the target is the name users ask; by default the alias under which the old gallery was given, or
    ``COLLECTION_current``. Points are numbers or UUIDs, and so ordered by the server. Qdrant keeps cosine vectors at
    length 1, so they come back otherwise in the last bit.
    """

    live = True
    tolerance = 2e-6
    making = False

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        address.allow("alias")
        self.place, self.asked = address.split("collection")

    @cached_property
    def client(self) -> Any:
        """The connection; a local folder belongs to one process at a time, and is made by nobody but `create`."""
        if not self._there():
            raise SutureError(f"{self.name}: expected a folder of Qdrant at {self.place}, there is none.")
        qdrant = need("qdrant_client", "qdrant")
        if "://" in self.place:
            return qdrant.QdrantClient(url=self.place, timeout=60)
        try:
            return borrow(self.place, lambda: qdrant.QdrantClient(path=self.place))
        except RuntimeError as error:
            raise RefusedError(
                f"{self.place}: another process has this Qdrant folder open. Stop it, or run a server ({error})."
            ) from error

    def _there(self) -> bool:
        return self.making or "://" in self.place or (Path(self.place) / "meta.json").is_file()

    def where(self) -> tuple[str, ...]:
        """The server or folder."""
        return location(self.place)

    @property
    def within(self) -> str:
        """The collection."""
        return self.collection

    def close(self) -> None:
        """Close the connection; a local folder when its last user goes."""
        client = self.__dict__.pop("client", None)
        if client is not None and "://" not in self.place:
            give_back(self.place, lambda one: one.close())
        elif client is not None:
            client.close()

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Collection by alias."""
        return {} if not self._there() else {a.alias_name: a.collection_name for a in self.client.get_aliases().aliases}

    @property
    def collection(self) -> str:
        """The collection itself, where the address names an alias."""
        return self.aliases.get(self.asked, self.asked)

    def pinned(self) -> str:
        """With the collection in place of the alias."""
        text = self.address.text
        if self.collection == self.asked:
            return text
        return text.replace(f"/{self.asked}", f"/{self.collection}", 1)

    def exists(self) -> bool:
        """Whether the collection is there."""
        return self._there() and bool(self.client.collection_exists(self.collection))

    @property
    def _vector(self) -> Any:
        config = self.client.get_collection(self.collection).config.params.vectors
        if isinstance(config, dict):
            names = sorted(config)
            name = self.address.vector
            if name is None and len(names) == 1:
                name = names[0]
            if name not in config:
                raise SutureError(f"{self.name}: expected #NAME with one of {', '.join(names)}.")
            return name, config[name]
        return None, config

    def facts(self) -> Facts:
        """From the configuration and the first point."""
        config = self._vector[1]
        points, _ = self.client.scroll(self.collection, limit=1, with_payload=True)
        stored = dict(points[0].payload or {}) if points else {}
        kind = "int" if not points or isinstance(points[0].id, int) else "str"
        metric = METRICS.get(config.distance.name)
        if metric is None:
            raise RefusedError(f"{self.name}: expected cosine, dot or Euclid distance, got {config.distance.name}.")
        return Facts(
            rows=self.count(),
            dim=int(config.size),
            dtype="float32",
            metric=metric,
            id_kind=kind,
            index="HNSW",
            payload=tuple(sorted(set(stored) - {STAMP, OWNER})),
            model=stored.get(STAMP),
        )

    def fragments(self, rows: int) -> Iterator[Fragment]:
        """Ranges of ids in the order of the store: from ``after`` (excluded) to ``upto``; the ends are open."""
        after, count, at = None, 0, None
        for page in self._pages(None, with_vectors=False):
            for point in page:
                if count == rows:
                    yield {"after": after, "upto": at, "rows": count}
                    after, count = at, 0
                at, count = point.id, count + 1
        if count:
            yield {"after": after, "upto": None, "rows": count}

    def _pages(self, after: Any, *, with_vectors: bool) -> Iterator[list[Any]]:
        name, _ = self._vector
        offset, skip = after, after is not None
        while True:
            points, offset = self.client.scroll(
                self.collection,
                limit=PAGE,
                offset=offset,
                with_payload=True,
                with_vectors=([name] if name else True) if with_vectors else False,
            )
            yield points[1:] if skip and points and points[0].id == after else points
            skip = False
            if offset is None:
                return

    def read(self, fragment: Fragment, size: int, *, vectors: bool = True) -> Iterator[Batch]:
        """Points of the range, a page at a time."""
        last = None if fragment["upto"] is None else order(fragment["upto"])
        for page in self._pages(fragment["after"], with_vectors=vectors):
            points = [p for p in page if last is None or order(p.id) <= last]
            if points:
                yield self._batch(points, vectors)
            if len(points) < len(page):
                return

    def _batch(self, points: list[Any], vectors: bool) -> Batch:
        name, config = self._vector
        payload = [dict(p.payload or {}) for p in points]
        stamps = [row.pop(STAMP, None) for row in payload]
        for row in payload:
            row.pop(OWNER, None)
        rows = np.empty((len(points), 0 if not vectors else int(config.size)), np.float32)
        if vectors:
            for i, point in enumerate(points):
                found = point.vector.get(name) if isinstance(point.vector, dict) else point.vector
                if found is None:
                    raise RefusedError(f"{self.name}: point {point.id!r} has no vector; every row must have one.")
                rows[i] = found
        return Batch(id_array([p.id for p in points], self.name), rows, payload, stamps)

    # Writing

    def accept(self, source: Store, facts: Facts, dim: int, strategy: str) -> None:
        """Texts that are no UUIDs cannot be ids of points."""
        super().accept(source, facts, dim, strategy)
        if facts.id_kind == "str" and not isinstance(source, QdrantStore):
            first = next(source.read(next(source.fragments(1)), 1, vectors=False)).ids[0]
            try:
                uuid.UUID(str(first))
            except ValueError:
                raise RefusedError(f"{self.name}: Qdrant takes integers and UUIDs as ids, got {first!r}.") from None

    def vacant(self, spec: Spec) -> None:
        """No collection, this plan's, or an empty one that nobody claims: a run that was killed leaves that."""
        if not self.exists() or self.aliases.get(self._claimed(spec)) == self.asked:
            return
        claimed = self.collection != self.asked or self.asked in self.aliases.values()
        if claimed or self.count() or self.facts().dim != spec.dim:
            raise RefusedError(
                f"{self.name}: expected no collection here, or this plan's own; there is another. Name another."
            )

    def _claimed(self, spec: Spec) -> str:
        return f"_suture_{self.asked}_{spec.owner[:16]}"

    def create(self, spec: Spec) -> None:
        """A collection of one vector; the plan's claim stands in the name of an alias that nobody asks."""
        models = need("qdrant_client.models", "qdrant")
        self.vacant(spec)
        self.making, claim = True, self._claimed(spec)
        if self.exists():
            if self.aliases.get(claim) != self.asked:
                self._claim(claim)
            return
        distance = {ours: theirs for theirs, ours in METRICS.items()}[spec.metric]
        vector = models.VectorParams(size=spec.dim, distance=getattr(models.Distance, distance))
        config = {self.address.vector: vector} if self.address.vector else vector
        self.client.create_collection(self.asked, vectors_config=config)
        self._claim(claim)

    def _claim(self, name: str) -> None:
        self._alias((None, name))
        self.__dict__.pop("aliases", None)

    def write(self, number: int, batches: Iterable[Batch]) -> dict[str, Any]:
        """Upsert, and wait until it is durable."""
        models = need("qdrant_client.models", "qdrant")
        rows = 0
        for batch in batches:
            stamps = batch.stamps or [None] * len(batch)
            payload = records(batch.payload, len(batch))
            points = [
                models.PointStruct(
                    id=key, vector={self.address.vector: row} if self.address.vector else row, payload={**p, STAMP: s}
                )
                for key, row, p, s in zip(batch.ids.tolist(), batch.vectors.tolist(), payload, stamps, strict=True)
            ]
            for first in range(0, len(points), PAGE):
                self.client.upsert(self.asked, points[first : first + PAGE], wait=True)
            rows += len(points)
        return {"rows": rows}

    def discard(self, ids: Array) -> None:
        """Delete points."""
        models = need("qdrant_client.models", "qdrant")
        self.client.delete(self.asked, models.PointIdsList(points=ids.tolist()), wait=True)

    def fetch(self, number: int, ids: Array, *, vectors: bool = True) -> Batch:
        """By id."""
        points: list[Any] = []
        for first in range(0, len(ids), PAGE):
            some = ids[first : first + PAGE].tolist()
            points += self.client.retrieve(self.collection, some, with_payload=True, with_vectors=vectors)
        if not points:
            return Batch(ids[:0], np.empty((0, 0), np.float32), [], [])
        return by_id(self._batch(points, vectors), ids)

    def count(self) -> int:
        """Counted, not estimated."""
        return int(self.client.count(self.collection, exact=True).count)

    def has_index(self) -> bool:
        """A server has one. Local mode compares with all rows, which changes their last bits (qdrant-client 1.20)."""
        return "://" in self.place

    def search(self, queries: Array, k: int) -> list[list[Any]]:
        """By the collection."""
        name, _ = self._vector
        return [
            [p.id for p in self.client.query_points(self.collection, query=row, using=name, limit=k).points]
            for row in queries.tolist()
        ]

    # Moving

    def _served_as(self, source: Store) -> str:
        named = self.address.options.get("alias")
        if named:
            return named
        here = isinstance(source, QdrantStore) and source.where() == self.where()
        return f"{source.asked if here and isinstance(source, QdrantStore) else self.asked}_current"

    def serving(self, source: Store) -> str | None:
        """The collection behind the alias."""
        self.__dict__.pop("aliases", None)
        return self.aliases.get(self._served_as(source))

    def point(self, source: Store, *, at: str | None, left_out: int = 0) -> None:
        """Both halves in one request: there is no instant without the alias."""
        alias = self._served_as(source)
        before = self.serving(source)
        self._alias(
            (alias if before is not None else None, None if at is None else alias), self.asked if at == "target" else at
        )
        self.__dict__.pop("aliases", None)

    def _alias(self, change: tuple[str | None, str | None], collection: str | None = None) -> None:
        models = need("qdrant_client.models", "qdrant")
        old, new = change
        operations: list[Any] = []
        if old is not None:
            operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=old)))
        if new is not None:
            made = models.CreateAlias(collection_name=collection or self.asked, alias_name=new)
            operations.append(models.CreateAliasOperation(create_alias=made))
        if operations:
            self.client.update_collection_aliases(change_aliases_operations=operations)

    def undone(self, source: Store) -> str:
        """The alias."""
        return f"qdrant:{self.place}/{self._served_as(source)}"

    def drop(self) -> None:
        """Delete the collection, unless an alias that users ask leads to it."""
        asked = sorted(a for a, c in self.aliases.items() if c == self.collection and not a.startswith("_suture_"))
        if asked:
            raise RefusedError(f"{self.name}: the alias {asked[0]} leads here; it is not deleted.")
        self.client.delete_collection(self.collection)


def order(key: Any) -> tuple[int, Any]:
    """Numbers before UUIDs, each by value, as Qdrant scrolls."""
    return (0, key) if isinstance(key, int) else (1, uuid.UUID(key).int)
