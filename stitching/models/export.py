"""A map for programs without suture: ONNX, a torch program, or plain arrays."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...aligners.alignment import Alignment
from ...aligners.errors import RefusedError, UsageError
from ...aligners.maps import Affine, Chain, Map, Normalize
from ..dumps.atomic import atomic_write
from .fold import probe_rows
from .graph import OPSET, map_model
from .onnxfile import Session, require_agreement
from .stitch import Unit, model_map

__all__ = ["FORMATS", "export"]

FORMATS = (".onnx", ".pt2", ".npz")


def export(
    alignment: Alignment | Map,
    path: str | Path,
    *,
    side: str = "source",
    into: str | None = None,
    normalize: Unit = "auto",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the map from ``side`` into the space ``into``, scaling included (`model_map`), and say what was written.

    Without ``into`` it is the other side: "source" for the target's rows, "target" for all others.
    By suffix: .onnx, input ``vectors`` ``(rows, p)`` and output ``mapped`` ``(rows, q)`` in float32; .pt2, a
    `torch.export` program of the same; .npz, ``weight`` ``(p, q)``, ``bias`` ``(q,)``, ``unit_in`` and ``unit_out`` of
    an affine map. Each is run against the map on a probe before it is renamed into place.
    Raises `UsageError` for another suffix and where ``into`` is the side itself, `RefusedError` for a map that .npz
    cannot hold.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise UsageError(f"expected a file to export to with one of {', '.join(FORMATS)}, got {path}.")
    into = ("source" if side == "target" else "target") if into is None else into
    mapping = model_map(alignment, side=side, into=into, normalize=normalize)
    own = isinstance(alignment, Map) or side == "source"
    probe = probe_rows(alignment, mapping) if own else probe_rows(mapping, mapping)
    data, came = WRITERS[path.suffix](mapping, probe)
    difference = require_agreement([came], [mapping(probe).numpy()], True, f"{path}")
    with atomic_write(path, overwrite) as file:
        file.write(data)
    return {
        "kind": mapping.kind,
        "source_dim": mapping.source_dim,
        "target_dim": mapping.target_dim,
        "difference": difference,
        "path": str(path),
    }


def as_onnx(mapping: Map, probe: torch.Tensor) -> tuple[bytes, Any]:
    """The bytes of the file, and what it makes of the probe."""
    model = map_model(mapping, OPSET)
    return model.SerializeToString(), Session(model, "the exported map").run({"vectors": probe.numpy()})[0]


def as_program(mapping: Map, probe: torch.Tensor) -> tuple[bytes, Any]:
    """The same for `torch.export`."""
    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(mapping.module().eval(), (probe,), dynamic_shapes=({0: rows},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    data = buffer.getvalue()
    return data, torch.export.load(io.BytesIO(data)).module()(probe).detach().numpy()


def as_arrays(mapping: Map, probe: torch.Tensor) -> tuple[bytes, Any]:
    """The same for numpy; scaling to unit length before and behind an affine map are two flags."""
    parts = list(mapping.maps) if isinstance(mapping, Chain) else [mapping]
    before = isinstance(parts[0], Normalize) and len(parts) > 1
    behind = isinstance(parts[-1], Normalize) and len(parts) > 1
    inner = parts[before : len(parts) - behind]
    if len(inner) != 1 or not isinstance(inner[0], Affine):
        raise RefusedError(
            f".npz holds an affine map, this one is of kind {mapping.kind} with {', '.join(p.kind for p in parts)}; "
            "export it as .onnx or .pt2."
        )
    weight, bias = (t.float().numpy() for t in (inner[0].weight, inner[0].bias))
    about = {"format": "suture-map", "version": 1, "apply": "unit(x) if unit_in; x @ weight + bias; unit if unit_out"}
    buffer = io.BytesIO()
    np.savez(buffer, weight=weight, bias=bias, unit_in=before, unit_out=behind, about=np.array(json.dumps(about)))
    x = probe.numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True) if before else x
    x = x @ weight + bias
    return buffer.getvalue(), x / np.linalg.norm(x, axis=1, keepdims=True) if behind else x


WRITERS = {".onnx": as_onnx, ".pt2": as_program, ".npz": as_arrays}
