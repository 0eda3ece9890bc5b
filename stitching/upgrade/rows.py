"""What becomes of one row: the map of a strategy, as a function of blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...aligners.alignment import Alignment
from ...aligners.arrays import as_tensor, working_dtype
from ...aligners.errors import RefusedError, UsageError
from ...aligners.maps import Affine, Map, Normalize
from ...aligners.recognise import require_norms, require_side
from ..apply import BLOCK, Norm, serving_map, to_dtype
from ..dumps.arrays import Array
from ..dumps.badrows import find_bad
from ..stores.batch import Batch, resized

__all__ = ["STRATEGIES", "RowMap", "bad_rows", "facing", "mapped", "row_map"]

STRATEGIES = ("map", "dual", "expanded", "bridge")


@dataclass(frozen=True, eq=False)
class RowMap:
    """``forward`` of rows of the old space, to rows ``(m, dim)`` of ``dtype``.

    ``beside``: the old row, of length 1, stands before the mapped one (the dual form). ``lossy``: the old rows were
    compressed; where they had length 1, it is given back to them first.
    """

    alignment: Alignment
    mapping: Map
    dtype: np.dtype
    normalize: str
    beside: bool = False
    lossy: bool = False

    @property
    def dim(self) -> int:
        """Width of what is written."""
        return self.mapping.target_dim + (self.mapping.source_dim if self.beside else 0)

    def forward(self, rows: Tensor) -> Tensor:
        """``(m, p)`` in working precision to ``(m, dim)``."""
        mapped = self.mapping.forward(rows)
        return torch.cat([torch.nn.functional.normalize(rows, dim=1), mapped], dim=1) if self.beside else mapped

    def __call__(self, block: Array, what: str) -> Array:
        """Rows ``(m, p)`` to rows ``(m, dim)``; `RefusedError` where these do not fit ``dtype``."""
        rows = self.restored(block, what)
        return to_dtype(self.forward(rows.to(working_dtype(rows.dtype))), self.dtype, what)

    def restored(self, block: Array, what: str) -> Tensor:
        """The rows as a tensor, of length 1 again where compression took it from them."""
        rows = as_tensor(np.ascontiguousarray(block), what)
        space = self.alignment.spaces.get("source")
        return torch.nn.functional.normalize(rows, dim=1) if self.lossy and space is not None and space.unit else rows

    def check(self, block: Array, what: str, *, behaviour: bool) -> None:
        """Refuse rows that are not of the old space: by width and length, and by ``behaviour`` if asked."""
        rows = self.restored(block, what)
        if behaviour:
            require_side(self.alignment, "source", rows, what)
        elif "source" in self.alignment.spaces:
            require_norms(self.alignment.spaces["source"], "source", rows, what)


def row_map(
    alignment: Alignment, strategy: str, dtype: str, normalize: Norm = "auto", *, lossy: bool = False
) -> RowMap:
    """The rows that ``strategy`` writes. Raises `UsageError` or `RefusedError` where the map cannot serve it."""
    if strategy not in STRATEGIES:
        raise UsageError(f"--strategy: expected {', '.join(STRATEGIES)}, got '{strategy}'.")
    if strategy == "bridge":
        mapping, policy = query_map(alignment, normalize)
        return RowMap(alignment, mapping, np.dtype(dtype), policy, lossy=lossy)
    if strategy == "map":
        mapping, policy = serving_map(alignment, "source", normalize)
        return RowMap(alignment, mapping, np.dtype(dtype), policy, lossy=lossy)
    if strategy == "dual":
        mapping, policy = serving_map(alignment, "source", "l2")
        return RowMap(alignment, mapping, np.dtype(dtype), policy, beside=True, lossy=lossy)
    return RowMap(alignment, isometry(alignment), np.dtype(dtype), "none", lossy=lossy)


def query_map(alignment: Alignment, normalize: Norm) -> tuple[Map, str]:
    """The map of new-model queries into the old space, and whether they end "l2" or "none"; affine, or refused."""
    if not alignment.translates("target", "source"):
        dims = [alignment.map_of(name).source_dim for name in ("source", "target")]
        raise RefusedError(
            f"--strategy bridge maps new queries of {dims[1]} dims into the old space of {dims[0]}; this map leads "
            "from old to new and cannot be turned round exactly. Fit one from the new rows to the old ones (suture fit "
            "NEW OLD), or take what `suture gallery estimate --save` wrote, which has both ways."
        )
    mapping = alignment.translate("target", "source")
    if not isinstance(mapping, Affine):
        raise RefusedError(
            f"--strategy bridge needs an affine map, which an index and numpy can serve; this is a {mapping.kind} map "
            f"from {mapping.source_dim} to {mapping.target_dim} dims. Fit an affine method, or use --strategy map."
        )
    unit = "source" in alignment.spaces and alignment.spaces["source"].unit
    policy = "l2" if normalize == "l2" or (normalize == "auto" and unit) else "none"
    return (mapping >> Normalize(mapping.target_dim) if policy == "l2" else mapping), policy


def facing(alignment: Alignment, block: Array, what: str, *, behaviour: bool, lossy: bool) -> Alignment:
    """The alignment with the old space as its source: one that was fitted from new rows to old ones is exchanged.

    ``block`` ``(m, p)``: some of the old gallery, which tell. Raises `RefusedError` where they are of neither side.
    """
    refusals: dict[str, RefusedError] = {}
    for side in ("source", "target"):
        rows = as_tensor(np.ascontiguousarray(block), what)
        if lossy and side in alignment.spaces and alignment.spaces[side].unit:
            rows = torch.nn.functional.normalize(rows, dim=1)
        try:
            require_side(alignment, side, rows, what, behaviour=behaviour)
        except RefusedError as refusal:
            refusals[side] = refusal
        else:
            return alignment if side == "source" else exchanged(alignment)
    fits = alignment.map_of("target").source_dim == block.shape[1]
    raise refusals["target" if fits and alignment.map_of("source").source_dim != block.shape[1] else "source"]


def exchanged(alignment: Alignment) -> Alignment:
    """The same maps with source and target called by each other's name."""
    other = {"source": "target", "target": "source"}
    sections = {
        name: {other[side]: value for side, value in getattr(alignment, name).items() if side in other}
        for name in ("maps", "back", "spaces")
    }
    facts = {"method": alignment.provenance.get("method"), "exchanged": True}
    return replace(alignment, **sections, attached={}, provenance=facts)


def isometry(alignment: Alignment) -> Map:
    """The nearest map without shrinking: new-model queries and new-model rows stay as they are beside mapped ones.

    With ``U S V'`` the weight of the affine map, this is ``x -> normalize(x) U V'``: the expanded orthogonal form, up
    to a rotation that changes no score, so that raw new-model queries can be asked. Raises `RefusedError` where the new
    space is narrower, or the map is not affine.
    """
    mapping = alignment.translate("source", "target")
    if not isinstance(mapping, Affine) or mapping.source_dim > mapping.target_dim:
        raise RefusedError(
            f"--strategy expanded needs an affine map into a space that is no narrower; this is a {mapping.kind} map "
            f"from {mapping.source_dim} to {mapping.target_dim} dims. Use --strategy map."
        )
    u, _, vt = torch.linalg.svd(mapping.weight.double(), full_matrices=False)
    rotation = Affine((u @ vt).to(mapping.weight.dtype), torch.zeros(mapping.target_dim, dtype=mapping.weight.dtype))
    return Normalize(mapping.source_dim) >> rotation


def bad_rows(batch: Batch) -> dict[str, Array]:
    """Positions of rows that are no direction, by reason; denormal numbers have too few digits to give one."""
    if not len(batch):
        return {}
    found, tiny = find_bad(batch.vectors), np.finfo(batch.vectors.dtype).tiny
    sums = torch.from_numpy(batch.vectors).sum(1).abs()  # of a denormal row it is small; of few others
    suspects = (sums < float(tiny) * batch.vectors.shape[1]).numpy()
    suspects[found.get("zero", [])] = False
    at = np.flatnonzero(suspects)
    denormal = at[np.abs(batch.vectors[at]).max(1, initial=0) < tiny]
    return {**found, "denormal": denormal} if len(denormal) else found


def mapped(row: RowMap, batches: Iterable[Batch], stamp: str, what: str, *, familiar: bool = True) -> Iterator[Batch]:
    """Batches of mapped rows, cut so that what is multiplied does not depend on how they were read."""
    for first, batch in enumerate(resized(batches, BLOCK)):
        row.check(batch.vectors, what, behaviour=familiar and first == 0)
        yield batch.with_vectors(row(batch.vectors, what), [stamp] * len(batch))
