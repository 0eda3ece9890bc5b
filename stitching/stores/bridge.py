"""The way for new-model queries to an old gallery: a map file, or a faiss index that maps its queries itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...aligners.alignment import Alignment
from ...aligners.errors import RefusedError
from ...aligners.file import to_bytes
from ...aligners.maps import Affine
from ..dumps.arrays import Array
from ..dumps.extras import need
from .address import Address
from .batch import Batch
from .disk import aside, checksum, pointed, read_json, write_json
from .faiss import FaissStore, bridged
from .files import FileStore, whose
from .store import Facts, Fragment, Spec, Store

__all__ = ["BridgeStore"]


class BridgeStore(FileStore):
    """``bridge:FILE.safetensors``, for `suture.stitching.serving.Bridge`, or ``faiss:FILE`` for a faiss gallery.

    It holds no rows: those of the old gallery are asked, and stay as they are. ``_FILE.json`` says whose it is.
    """

    options = ()

    def __init__(self, address: Address) -> None:
        if address.scheme not in ("bridge", "faiss"):
            raise RefusedError(
                f"'{address.text}': --strategy bridge writes no rows, it maps the queries. Name --to "
                "bridge:FILE.safetensors, which suture.stitching.serving.Bridge serves beside any store, or --to "
                "faiss:FILE for a faiss gallery."
            )
        super().__init__(address)
        self.inside = address.scheme == "faiss"
        self.described = self.path.with_name(f"_{self.path.name}.json")

    def facts(self) -> Facts:
        """There is nothing to tell."""
        raise NotImplementedError

    def fragments(self, rows: int) -> Iterator[Fragment]:
        """None."""
        return iter(())

    def read(self, fragment: Fragment, size: int, *, vectors: bool = True) -> Iterator[Batch]:
        """Nothing."""
        return iter(())

    def fetch(self, number: int, ids: Array, *, vectors: bool = True) -> Batch:
        """No rows."""
        return Batch(ids[:0], np.empty((0, 0), np.float32))

    def count(self) -> int:
        """No rows."""
        return 0

    def accept(self, source: Store, facts: Facts, dim: int, strategy: str) -> None:
        """Only a faiss index can map its queries itself; a pointer to a gallery is not turned to a map."""
        if self.inside and not isinstance(source, FaissStore):
            raise RefusedError(
                f"{self.name}: only a faiss gallery can map its queries inside, this is {source.address.scheme}. Name "
                "--to bridge:FILE.safetensors."
            )
        self.apart(source)
        served = pointed(self.path.parent)
        if served is not None and not self.inside and not served.endswith(".safetensors"):
            raise RefusedError(
                f"{self.path.parent}/_CURRENT serves the gallery {served}; give the bridge a folder of its own."
            )

    def bytes_for(self, rows: int, dim: int, itemsize: int, old: int | None) -> int:
        """A copy of the index, or little."""
        return int(1.1 * (old or 0)) if self.inside else 1 << 20

    def vacant(self, spec: Spec) -> None:
        """No file, or this plan's."""
        own = read_json(self.described)
        if (own is not None and own["owner"] != spec.owner) or (own is None and self.path.exists()):
            told = f"that of another plan{whose(own)}" if own else "one"
            raise RefusedError(
                f"{self.path}: expected no file here, or this plan's own; there is {told}. Name another."
            )

    def create(self, spec: Spec) -> None:
        """Claim the place."""
        self.vacant(spec)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.described, spec.described())

    def write(self, number: int, batches: Iterable[Batch]) -> dict[str, Any]:
        """No rows are written."""
        raise NotImplementedError

    def put(self, source: Store, alignment: Alignment, turn: Affine, *, unit: bool) -> dict[str, Any]:
        """Write the file; the value is its entry in the ledger."""
        with aside(self.path) as file:
            if isinstance(source, FaissStore) and self.inside:
                index = bridged(source.index, turn.weight.numpy(), turn.bias.numpy(), unit=unit)
                need("faiss", "faiss").write_index(index, str(Path(file.name)))
                file.seek(0, 2)
            else:
                spaces = {"source": alignment.spaces.get("target"), "target": alignment.spaces.get("source")}
                made = Alignment(
                    Alignment.one_sided(turn).maps,
                    spaces={name: space for name, space in spaces.items() if space is not None},
                    provenance={"method": "bridge", "of": alignment.provenance.get("method")},
                )
                file.write(to_bytes(made))
        return {"part": self.path.name, "bytes": self.path.stat().st_size, "sha256": checksum(self.path)}

    def recorded(self, number: int, entry: dict[str, Any], *, deep: bool) -> bool:
        """Whether the file is there in its full size, or, if ``deep``, with its checksum."""
        whole = self.path.is_file() and self.path.stat().st_size == entry["bytes"]
        return whole and (not deep or checksum(self.path) == entry["sha256"])

    def undone(self, source: Store) -> str:
        """How new queries are asked."""
        if self.inside:
            return super().undone(source)
        return f"suture.stitching.serving.Bridge.load('{self.path}', side='source')"

    def drop(self) -> None:
        """The file, unless it is served, and its description."""
        super().drop()
        self.described.unlink(missing_ok=True)
