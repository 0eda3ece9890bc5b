"""Stores of galleries: one file a store, found by the scheme of its URI, and imported only when it is asked for."""

from importlib import import_module

from ...aligners.errors import UsageError
from .address import Address
from .batch import Batch
from .store import Facts, Fragment, Spec, Store

__all__ = ["STORES", "Address", "Batch", "Facts", "Fragment", "Spec", "Store", "open_store"]

STORES = {
    "chroma": "chroma:ChromaStore",
    "faiss": "faiss:FaissStore",
    "h5": "plain:H5Store",
    "hnswlib": "hnswlib:HnswlibStore",
    "lancedb": "lancedb:LanceStore",
    "milvus": "milvus:MilvusStore",
    "npy": "plain:NpyStore",
    "parquet": "parquet:ParquetStore",
    "postgresql": "postgres:PostgresStore",
    "qdrant": "qdrant:QdrantStore",
    "sqlite-vec": "sqlitevec:SqliteVecStore",
    "usearch": "usearch:UsearchStore",
}


def open_store(uri: str) -> Store:
    """The store at ``uri``. Raises `UsageError` for a scheme that is not known."""
    address = Address.parse(uri)
    if address.scheme not in STORES:
        raise UsageError(f"'{uri}': there is no store '{address.scheme}'; there are {', '.join(STORES)}.")
    module, _, name = STORES[address.scheme].partition(":")
    kind: type[Store] = getattr(import_module(f".{module}", __name__), name)
    return kind(address)
