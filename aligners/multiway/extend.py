"""A space added to an alignment whose other maps stay as they are."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..aligner import LinearAligner
from ..alignment import Alignment
from ..arrays import Array
from ..errors import RefusedError, UsageError
from ..linear.procrustes import Procrustes
from ..maps import Affine
from ..moments import Moments
from .base import Sample, any_to_any
from .many import Gathered, Many, ManyBlock

__all__ = ["add_space", "add_stream"]


def add_space(
    alignment: Alignment,
    name: str,
    rows: Array,
    known: Mapping[str, Array],
    *,
    keys: Array | None = None,
    known_keys: Mapping[str, Array] | None = None,
    aligner: LinearAligner | None = None,
    seed: int = 0,
) -> Alignment:
    """``alignment`` with one space more, ``rows`` ``(n, p)``, fitted to where the ``known`` spaces put the same items.

    ``known`` holds rows of one or more of its spaces; an item's place is the mean of where their maps send it. Without
    ``keys`` rows correspond by position. By ``aligner``, `Procrustes` with a scale if none. No other map changes.
    """
    if (keys is None) != (known_keys is None):
        raise UsageError("add_space: give keys for the new space and for the known ones, or for none.")
    both = None if keys is None or known_keys is None else {name: keys, **known_keys}
    return add_stream(
        alignment, name, Gathered.of({name: rows, **known}, both), aligner or Procrustes(scale=True), seed=seed
    )


def add_stream(alignment: Alignment, name: str, many: Many, aligner: LinearAligner, *, seed: int = 0) -> Alignment:
    """`add_space` for a stream of items of the new space ``name`` and of known ones."""
    if name in alignment.maps:
        raise UsageError(f"there is a space '{name}' already; name the new one otherwise.")
    for other in many.dims:
        if other != name:
            alignment.map_of(other)
    total: Moments | None = None
    for block in many.blocks():
        total = joined(total, alignment, name, block)
    if total is None or total.n < 2:
        others = ", ".join(other for other in many.dims if other != name)
        raise RefusedError(f"'{name}' shares no items with {others}. Are the ids written the same way?")
    sample = Sample.of(many, None, seed=seed)
    held, table = sample.held_out(), None
    if held is not None:
        out: Moments | None = None
        for block in held[1].blocks():
            out = joined(out, alignment, name, block)
        kept = total if out is None else total - out
        table = any_to_any(widened(alignment, name, fitted(aligner, kept)), held[1])
        table = {way: found for way, found in table.items() if name in way.split(" -> ")}
    wider = widened(alignment, name, fitted(aligner, total))
    added = {"space": name, "method": aligner.name, "items": int(total.n), "any_to_any": table}
    spaces = {**alignment.spaces, name: sample.spaces(canaries=True)[name]}
    facts = {**alignment.provenance, "added": [*alignment.provenance.get("added", []), added]}
    return Alignment(wider.maps, wider.back, spaces, facts)


def joined(total: Moments | None, alignment: Alignment, name: str, block: ManyBlock) -> Moments | None:
    """``total`` and the moments of the block's new rows with the mean place of their items."""
    place = torch.zeros(len(block.keys), alignment.shared_dim, dtype=torch.float64)
    count = torch.zeros(len(block.keys), dtype=torch.float64)
    for other, rows in block.rows.items():
        if other != name and len(rows):
            place[block.present[other]] += alignment.map_of(other)(rows.double())
            count += block.present[other]
    shared = block.present[name] & (count > 0)
    if not bool(shared.any()):
        return total
    part = Moments.of(block.rows[name][shared[block.present[name]]].double(), place[shared] / count[shared, None])
    return part if total is None else total + part


def fitted(aligner: LinearAligner, moments: Moments) -> Affine:
    """The map of the new space into the shared one."""
    found = aligner.align_moments(moments).translate()
    assert isinstance(found, Affine)  # a linear method makes no other
    return found


def widened(alignment: Alignment, name: str, mapping: Affine) -> Alignment:
    """``alignment`` with ``mapping`` added, and the least-squares way back."""
    kept = mapping.to(torch.float32)
    return Alignment({**alignment.maps, name: kept}, {**alignment.back, name: kept.pinv()})
