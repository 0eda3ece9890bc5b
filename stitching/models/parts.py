"""What stitching files needs whatever their kind: shapes that fit, pooling, and inputs to check with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...aligners.errors import RefusedError, SutureError
from ...aligners.maps import Map
from .onnxfile import in_short, shown

__all__ = ["Pool", "pooled_by_hand", "read_probe", "require_shapes"]

Pool = Literal["none", "mean", "first"]
Array = NDArray[Any]
End = tuple[str, Sequence[int | None] | None]


def require_shapes(encoder: str, given: End, pool: Pool, mapping: Map, decoder: str, taken: End) -> None:
    """Raises `RefusedError` where the output ``given`` of the encoder, the map and the input ``taken`` do not fit.

    Each end is a name and a shape, None for open axes, which are found out by running, or for an unknown shape.
    """
    (name, came), (entry, wanted) = ((n, None if shape is None else list(shape)) for n, shape in (given, taken))
    p, q = mapping.source_dim, mapping.target_dim
    turned = came is not None and wanted is not None and (came[-1:], wanted[-1:]) == ([q], [p]) and p != q
    hint = " Is the map the wrong way round (new encoder -> the space that the decoder knows)?" if turned else ""
    if came is not None and came[-1:] not in ([p], [None]):
        raise RefusedError(f"{encoder}: output '{name}' has shape {shown(came)}, the map takes {p} dims.{hint}")
    if wanted is not None and wanted[-1:] not in ([q], [None]):
        raise RefusedError(f"{decoder}: input '{entry}' has shape {shown(wanted)}, the map gives {q} dims.{hint}")
    if came is None:
        return
    if pool != "none" and len(came) != 3:
        raise RefusedError(f"{encoder}: --pool needs a sequence (rows, tokens, {p}), '{name}' is {shown(came)}.")
    axes = len(came) - (pool != "none")
    if wanted is not None and axes > 1 and None not in (came[0], wanted[0]) and came[0] != wanted[0]:
        raise RefusedError(
            f"{encoder} gives {came[0]} rows at a time, {decoder} takes {wanted[0]}; export one of them anew with an "
            "open first axis."
        )
    if wanted is not None and axes != len(wanted):
        hint = " Are these token vectors, to be pooled (--pool mean)?" if axes == 3 and len(wanted) == 2 else ""
        raise RefusedError(
            f"{encoder} gives '{name}' {shown(came)}, {decoder} takes '{entry}' {shown(wanted)}: another number of "
            f"axes.{hint}"
        )


def pooled_by_hand(vectors: Array, pool: Pool, mask: Array | None) -> Array:
    """One vector of each sequence, in numpy: the check must not share the code that it checks."""
    if pool == "first" or mask is None:
        return vectors[:, 0]
    weights = mask[..., None].astype(np.float32)
    return (vectors * weights).sum(1) / np.maximum(weights.sum(1), 1e-9)


def read_probe(path: str | Path) -> dict[str, Array]:
    """Inputs of a model by name, from an .npz file. Raises `SutureError` for any other."""
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, AttributeError) as error:
        raise SutureError(f"{path}: expected an .npz file with one array an input ({in_short(error)}).") from error
