"""Applying a map to a dump: streamed, checked, and written aside before it is renamed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..aligners.alignment import Alignment
from ..aligners.arrays import working_dtype
from ..aligners.errors import RefusedError, UsageError
from ..aligners.maps import Map, Normalize
from ..aligners.recognise import require_norms, require_side
from .dumps import BadRows, Dump, Screen, find_bad, open_writer

__all__ = ["Applied", "apply", "serving_map"]

Norm = Literal["auto", "l2", "none"]
BLOCK = 8192


@dataclass(frozen=True)
class Applied:
    """What was written: ``rows`` of ``dim`` to ``path``, ids beside them in ``ids_path`` where the format has none."""

    rows: int
    dim: int
    dtype: str
    path: str
    ids_path: str | None
    normalize: str
    dropped: dict[str, Any]


def serving_map(
    alignment: Alignment, side: str = "source", normalize: Norm = "auto", *, into: str = "target"
) -> tuple[Map, str]:
    """The map of rows of ``side`` into the space where both sides meet, and whether rows end "l2" or "none".

    That is the target's own space where the alignment can translate into it, else the shared one. Normalisation is no
    part of the map itself: "auto" is l2 where the target's rows had unit length. ``into`` "shared": the shared space,
    even where a translation could be had.
    """
    if into not in ("target", "shared"):
        raise UsageError(f"expected to map into target or shared, got '{into}'.")
    ends_in_target = into == "target" and "target" in alignment.maps and alignment.translates("source", "target")
    mapping = alignment.translate(side, "target") if ends_in_target else alignment.map_of(side)
    target = alignment.spaces.get("target")
    unit = target is not None and target.unit and ends_in_target
    policy = normalize if normalize != "auto" else ("l2" if unit else "none")
    return (mapping >> Normalize(mapping.target_dim) if policy == "l2" else mapping), policy


def mapped_blocks(
    alignment: Alignment, mapping: Map, side: str, dump: Dump, screen: Screen, *, familiar: bool
) -> Iterator[tuple[Tensor, Any]]:
    """Mapped rows in working precision, and their ids (None where the dump has none); bad rows are left out."""
    space = alignment.spaces.get(side)
    ids = repeat(None) if dump.ids is None else dump.ids.blocks(BLOCK)
    start, first = 0, True
    for block, names in zip(dump.blocks(BLOCK), ids, strict=False):
        mask = screen.keep((block,), (np.arange(start, start + len(block)),))
        start += len(block)
        if screen.refusing:
            continue
        rows = torch.from_numpy(block if mask is None else block[mask])
        if first and len(rows):
            require_side(alignment, side, rows, dump.name, behaviour=familiar)
            first = False
        elif space is not None and space.unit:
            require_norms(space, side, rows, dump.name)
        yield (
            mapping.forward(rows.to(working_dtype(rows.dtype))),
            names if mask is None or names is None else names[mask],
        )


def apply(
    alignment: Alignment,
    dump: Dump,
    path: str | Path,
    *,
    side: str = "source",
    dtype: str | None = None,
    normalize: Norm = "auto",
    into: str = "target",
    bad_rows: BadRows,
    familiar: bool = True,
    overwrite: bool = False,
    advance: Callable[[int], None] = lambda rows: None,
) -> Applied:
    """Map every row of ``dump`` and write the result to ``path``, in the dump's dtype unless another is named.

    ``familiar``: check that the rows behave like those the map was fitted on. ``advance`` is told of rows done.
    Raises `RefusedError` on rows that are bad, of the wrong side, width or norm policy, or that overflow ``dtype``;
    nothing is left at ``path`` then.
    """
    if Path(path).exists() and dump.path.exists() and Path(path).samefile(dump.path):
        raise RefusedError(f"{path}: this is the dump itself; the only copy is never overwritten. Name another file.")
    mapping, policy = serving_map(alignment, side, normalize, into=into)
    out = np.dtype(dump.dtype if dtype is None else dtype)
    kind = None if dump.ids is None else dump.ids.kind
    with open_writer(path, mapping.target_dim, out, id_kind=kind, overwrite=overwrite) as writer:
        with Screen(bad_rows, dump) as screen:
            for rows, ids in mapped_blocks(alignment, mapping, side, dump, screen, familiar=familiar):
                writer.write(to_dtype(rows, out, dump.name), ids)
                advance(len(rows))
        if not writer.rows:
            raise RefusedError(f"{dump.name}: no good row is left to map; nothing is written.")
    return Applied(
        rows=writer.rows,
        dim=mapping.target_dim,
        dtype=str(out),
        path=str(path),
        ids_path=None if writer.ids_path is None else str(writer.ids_path),
        normalize=policy,
        dropped=dict(screen.counts[0]),
    )


def to_dtype(rows: Tensor, dtype: np.dtype[Any], what: str) -> Any:
    """``rows`` as a numpy array of ``dtype``. Raises `RefusedError` where a finite value would become infinite."""
    out = rows.to(torch.from_numpy(np.empty(0, dtype)).dtype).numpy()
    if not find_bad(out).keys().isdisjoint(("nan", "infinite")):
        raise RefusedError(
            f"{what}: mapped rows do not fit {dtype} (largest value {float(rows.abs().max()):.3g}); ask for float32 "
            "(--dtype float32), or normalise the output (--normalize l2)."
        )
    return out
