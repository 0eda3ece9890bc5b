"""What stitching files needs whatever their kind: shapes that fit, pooling, and inputs to check with."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...aligners.errors import RefusedError, SutureError, UsageError
from ...aligners.maps import Map
from .onnxfile import in_short, shown

__all__ = ["Pool", "pooled_by_hand", "read_probe", "require_inputs", "require_shapes"]

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
    """One vector of each sequence, in numpy: the check must not share the code that it checks.

    Raises `RefusedError` for anything but ``(rows, tokens, p)``, and for a mask that is not ``(rows, tokens)``.
    """
    if vectors.ndim != 3 or not vectors.shape[1]:
        raise RefusedError(f"--pool needs a sequence (rows, tokens, p), the encoder gives {vectors.shape} on a probe.")
    if pool == "mean" and mask is not None and mask.shape != vectors.shape[:2]:
        raise RefusedError(f"--pool mean needs a mask of shape {vectors.shape[:2]}, got {mask.shape} on a probe.")
    if pool == "first" or mask is None:
        return vectors[:, 0]
    weights = mask[..., None].astype(np.float32)
    return (vectors * weights).sum(1) / np.maximum(weights.sum(1), 1e-9)


def read_probe(path: str | Path) -> dict[str, Array]:
    """Inputs of a model by name, from an .npz file. Raises `SutureError` for any other."""
    expected = f"{path}: expected an .npz file with one array an input"
    try:
        with Path(path).open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if not isinstance(found, np.lib.npyio.NpzFile):
                raise SutureError(f"{expected}, got an array without a name (np.savez(path, NAME=array) makes one).")
            arrays = {name: found[name] for name in found.files}
    except SutureError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise SutureError(f"{expected} ({in_short(error)}).") from error
    for name, values in arrays.items():
        if not isinstance(values, np.ndarray):
            raise SutureError(f"{expected}, '{name}' is none.")
    return arrays


def require_inputs(probe: Mapping[str, Array], names: Sequence[str], what: str) -> None:
    """Raises `UsageError` where the probe lacks an input of the encoder."""
    if missing := [name for name in names if name not in probe]:
        raise UsageError(
            f"--probe: expected one array for each input of {what}, there is none for {', '.join(missing)}; it has "
            f"{', '.join(probe) or 'none'}."
        )
