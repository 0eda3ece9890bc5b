"""Folding a map into a head that is in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...aligners.alignment import Alignment
from .fold import affine_map
from .headfile import load_head, save_head
from .onnxfile import read_model, write_model
from .onnxfold import fold_onnx

__all__ = ["fold_file"]


def fold_file(
    alignment: Alignment, head: str | Path, out: str | Path, *, input_: str | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Write the head of the new encoder's vectors to ``out``, a file of the same kind, and say what was written.

    ``head``: .safetensors (`load_head`), or .onnx (`fold_onnx`), of which ``input_`` takes the vectors. Raises as these
    do; nothing is written then.
    """
    mapping, target = affine_map(alignment), alignment.spaces.get("target")
    if Path(head).suffix == ".onnx":
        model, difference = fold_onnx(read_model(head), alignment, input_=input_, what=str(head))
        write_model(model, out, overwrite=overwrite)
    else:
        folded, difference = load_head(head).proven_fold(alignment)
        save_head(folded, out, overwrite=overwrite)
    return {
        "head_dim": mapping.target_dim,
        "folded_dim": mapping.source_dim,
        "difference": difference,
        "target_had_unit_rows": target is not None and target.unit,
        "path": str(out),
    }
