"""Milvus collections: Milvus Lite in a local folder, or a server. The new gallery is a new collection."""

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
from .local import borrow, give_back
from .ranges import RangeStore
from .store import Facts, Spec, Store

__all__ = ["MilvusStore"]

STAMP = "_stamp"
METRICS = {"COSINE": "cosine", "IP": "dot", "L2": "l2"}
AT_ONCE = 1000


class MilvusStore(RangeStore):
    """``milvus:DIR.db/collection#field`` or ``milvus:http://host:19530/collection#field``; ``?alias=NAME`` is what is
    switched, by default ``COLLECTION_current``.
    """

    making = False

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        address.allow("alias")
        self.place, self.asked = address.split("collection")

    @cached_property
    def client(self) -> Any:
        """The connection; a local database is made by nobody but `create`."""
        if not self._there():
            raise SutureError(f"{self.name}: expected a database of Milvus Lite at {self.place}, there is none.")
        make = need("pymilvus", "milvus").MilvusClient
        return make(self.place) if "://" in self.place else borrow(self.place, lambda: make(self._folder))

    @property
    def _folder(self) -> str:
        return str(Path(self.place).resolve())  # clients are kept by their path

    def _there(self) -> bool:
        place = Path(self.place)
        return self.making or "://" in self.place or place.is_file() or (place / "LOCK").exists()

    def where(self) -> tuple[str, ...]:
        """The server or folder."""
        return location(self.place)

    @property
    def within(self) -> str:
        """The collection."""
        return self.collection if self._there() else self.asked

    def close(self) -> None:
        """Close it; a local folder when its last user goes, for this process would hold it until it ends."""
        client = self.__dict__.pop("client", None)
        if client is not None and "://" not in self.place:
            give_back(self.place, self._release)
        elif client is not None:
            client.close()

    def _release(self, client: Any) -> None:
        client.close()
        need("milvus_lite.server_manager", "milvus").server_manager_instance.release_server(self._folder)

    @cached_property
    def collection(self) -> str:
        """The collection behind an alias."""
        if self.asked in self.client.list_collections() or not self.client.has_collection(self.asked):
            return self.asked
        return str(self.client.describe_collection(self.asked)["collection_name"])

    def pinned(self) -> str:
        """With the collection in place of the alias."""
        return self.address.text.replace(f"/{self.asked}", f"/{self.collection}", 1)

    def exists(self) -> bool:
        """Whether the collection is there."""
        return self._there() and bool(self.client.has_collection(self.collection))

    @cached_property
    def _fields(self) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
        kinds = need("pymilvus", "milvus").DataType
        self.client.load_collection(self.collection)  # after a restart Milvus answers nothing before
        fields = self.client.describe_collection(self.collection)["fields"]
        key = next(f for f in fields if f.get("is_primary"))
        vectors = [f for f in fields if f["type"] == kinds.FLOAT_VECTOR]
        named = [f for f in vectors if f["name"] == self.address.vector] if self.address.vector else vectors
        if len(named) != 1:
            names = ", ".join(f["name"] for f in vectors) or "none"
            raise SutureError(f"{self.name}: expected one field of float vectors, or #FIELD; got {names}.")
        return key, named[0], [f for f in fields if f not in (key, named[0])]

    def facts(self) -> Facts:
        """From the schema and the index."""
        kinds = need("pymilvus", "milvus").DataType
        key, vector, rest = self._fields
        index = self.client.describe_index(self.collection, vector["name"]) or {}
        first = self.client.query(self.collection, filter="", limit=1, output_fields=["*"])
        stored = set(first[0]) - {key["name"], vector["name"], STAMP} if first else {f["name"] for f in rest}
        return Facts(
            rows=self.count(),
            dim=int(vector["params"]["dim"]),
            dtype="float32",
            metric=METRICS.get(index.get("metric_type", "COSINE")),
            id_kind="int" if key["type"] == kinds.INT64 else "str",
            index=index.get("index_type"),
            payload=tuple(sorted(stored)),
            model=first[0].get(STAMP) if first else None,
        )

    def ids(self) -> list[Any]:
        """All primary keys."""
        name = self._fields[0]["name"]
        pages = self.client.query_iterator(self.collection, filter="", output_fields=[name], batch_size=AT_ONCE)
        found = [row[name] for page in iter(pages.next, []) for row in page]
        pages.close()
        return found

    def rows(self, ids: list[Any], vectors: bool) -> Batch:
        """By primary key."""
        key, vector, _ = self._fields
        found = self.client.get(self.collection, ids=ids, output_fields=["*"])
        rows = np.empty((len(found), 0), np.float32)
        if vectors and found:
            rows = np.array([row[vector["name"]] for row in found], np.float32)
        payload = [{k: v for k, v in row.items() if k not in (key["name"], vector["name"], STAMP)} for row in found]
        stamps = [row.get(STAMP) for row in found]
        return Batch(id_array([row[key["name"]] for row in found], self.name), rows, payload, stamps)

    def accept(self, source: Store, facts: Facts, dim: int, strategy: str) -> None:
        """Schema and index are copied from a collection of the same kind."""
        super().accept(source, facts, dim, strategy)
        if not isinstance(source, MilvusStore):
            raise RefusedError(f"{self.name}: a Milvus collection takes its schema from another: give one as --from.")

    def vacant(self, spec: Spec) -> None:
        """No collection, this plan's, or an empty one that nobody claims: a run that was killed leaves that."""
        if not self.exists():
            return
        claims = self._claims()
        if claim(spec.owner) not in claims and (claims or self.count() or self.facts().dim != spec.dim):
            raise RefusedError(f"{self.name}: expected no collection here, there is one. Name another.")

    def _claims(self) -> list[str]:
        claims: list[str] = self.client.list_aliases(self.collection)["aliases"]
        return claims

    def create(self, spec: Spec) -> None:
        """The old schema with the new width, and a field for the stamp; an alias nobody asks is the plan's claim."""
        milvus = need("pymilvus", "milvus")
        self.vacant(spec)
        self.making = True
        if self.exists():
            if claim(spec.owner) not in self._claims():
                self.client.create_alias(self.asked, claim(spec.owner))
            return
        with MilvusStore(Address.parse(spec.source)) as old:
            whole = old.client.describe_collection(old.collection)
            key, vector, rest = old._fields
            index = old.client.describe_index(old.collection, vector["name"]) or {}
        schema = milvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=whole["enable_dynamic_field"])
        schema.add_field(key["name"], key["type"], is_primary=True, **key["params"])
        schema.add_field(vector["name"], vector["type"], dim=spec.dim)
        for each in rest:
            if each["name"] != STAMP:
                schema.add_field(each["name"], each["type"], nullable=each.get("nullable", False), **each["params"])
        schema.add_field(STAMP, milvus.DataType.VARCHAR, max_length=512)
        made = self.client.prepare_index_params()
        params = {k: index[k] for k in ("M", "efConstruction", "nlist") if k in index}
        metric = {ours: theirs for theirs, ours in METRICS.items()}[spec.metric]
        made.add_index(vector["name"], index_type=index.get("index_type", "FLAT"), metric_type=metric, params=params)
        self.client.create_collection(self.asked, schema=schema, index_params=made)
        self.client.create_alias(self.asked, claim(spec.owner))
        self.__dict__.pop("_fields", None)

    def write(self, number: int, batches: Iterable[Batch]) -> dict[str, Any]:
        """Upsert."""
        key, vector, _ = self._fields
        rows = 0
        for batch in batches:
            stamps = batch.stamps or [""] * len(batch)
            payload = records(batch.payload, len(batch))
            data = [
                {**p, key["name"]: i, vector["name"]: row, STAMP: s or ""}
                for i, row, p, s in zip(batch.ids.tolist(), batch.vectors.tolist(), payload, stamps, strict=True)
            ]
            for start in range(0, len(data), AT_ONCE):
                self.client.upsert(self.asked, data[start : start + AT_ONCE])
            rows += len(batch)
        self.client.flush(self.asked)
        return {"rows": rows}

    def discard(self, ids: Array) -> None:
        """Delete rows."""
        self.client.delete(self.asked, ids=ids.tolist())

    def has_index(self) -> bool:
        """Milvus searches."""
        return True

    def search(self, queries: Array, k: int) -> list[list[Any]]:
        """By the collection."""
        key, vector, _ = self._fields
        found = self.client.search(self.collection, queries.tolist(), limit=k, anns_field=vector["name"])
        return [[hit[key["name"]] for hit in row] for row in found]

    def _alias(self, source: Store) -> str:
        asked = source.asked if isinstance(source, MilvusStore) else self.asked
        return self.address.options.get("alias", f"{asked}_current")

    def serving(self, source: Store) -> str | None:
        """The collection behind the alias."""
        try:
            return str(self.client.describe_alias(self._alias(source))["collection_name"])
        except Exception:  # an unknown alias is an error of the server, of whatever type
            return None

    def point(self, source: Store, *, at: str | None, left_out: int = 0) -> None:
        """Alter the alias, or make or drop it."""
        alias, now = self._alias(source), self.serving(source)
        goal = self.asked if at == "target" else at
        if goal == now:
            return
        if goal is None:
            self.client.drop_alias(alias)
        elif now is None:
            self.client.create_alias(goal, alias)
        else:
            self.client.alter_alias(goal, alias)

    def undone(self, source: Store) -> str:
        """The alias."""
        return f"milvus:{self.place}/{self._alias(source)}"

    def drop(self) -> None:
        """Delete the collection, unless an alias leads to it."""
        aliases = self.client.list_aliases(self.collection)["aliases"]
        asked = sorted(alias for alias in aliases if not alias.startswith("suture_"))
        if asked:
            raise RefusedError(f"{self.name}: the alias {asked[0]} leads here; it is not deleted.")
        for alias in aliases:
            self.client.drop_alias(alias)
        self.client.drop_collection(self.collection)


def claim(owner: str) -> str:
    """The alias that marks a collection as that of a plan."""
    return f"suture_{owner[:16]}"
