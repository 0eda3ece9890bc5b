"""Map files in numpy: the affine maps of one, without torch. `suture.aligners.load` reads all kinds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import Floats, refuse, unit

__all__ = ["MapFile", "Turn"]

# As in aligners/file.py, which cannot be imported without torch; a test holds the two together.
KEY, FORMAT, VERSION = "suture", "suture-alignment", 1


@dataclass(frozen=True, eq=False)
class Turn:
    """``x -> x @ weight + bias``, then to length 1 where ``to_unit``."""

    weight: Floats
    bias: Floats
    to_unit: bool = False

    @property
    def dims(self) -> tuple[int, int]:
        """Widths of what goes in and what comes out."""
        return self.weight.shape[0], self.weight.shape[1]

    def __call__(self, rows: Floats) -> Floats:
        """``(m, p)`` to ``(m, q)``."""
        out = rows @ self.weight + self.bias
        return unit(out) if self.to_unit else out


class MapFile:
    """A map file that was read and whose digest is right.

    Raises `SutureError` where it is none, is damaged or of a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = Path(path)
        try:
            with safe_open(self.path, framework="numpy") as file:
                header = json.loads((file.metadata() or {})[KEY])
                self._arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            refuse(f"{path}: expected a map file written by suture, it cannot be read ({error}).")
        if header.get("format") != FORMAT or header.get("version", 0) > VERSION:
            refuse(
                f"{path}: expected {FORMAT} up to version {VERSION}, got {header.get('format')} version "
                f"{header.get('version')}; upgrade suture."
            )
        if header.pop("digest", None) != digest(header, self._arrays):
            refuse(f"{path}: this map file is damaged (its digest is wrong); fetch it anew.")
        self._header = header

    @property
    def upgrade(self) -> Mapping[str, Any]:
        """The estimate in the file. Raises `RefusedError` where there is none."""
        facts = self._header["provenance"].get("upgrade")
        if facts is None:
            refuse(f"{self.path}: expected a file by `suture gallery estimate --save`; this map has no estimate.")
        return facts

    def forward(self) -> Turn:
        """Source rows into the target's space, as they are."""
        if self._header["maps"]["target"]["kind"] != "identity":
            refuse(f"{self.path}: this map has a shared space of its own; serve it with suture.aligners.load.")
        return self._turn("maps.source", self._header["maps"]["source"])

    def back(self) -> Turn:
        """Target rows into the source space: the bridge that an estimate put beside the map."""
        if "source" not in self._header["back"]:
            refuse(
                f"{self.path}: this map has no way from the target to the source space. Take the file of `suture "
                "gallery estimate --save`, or fit the other direction and load that with side='source'."
            )
        return self._turn("back.source", self._header["back"]["source"])

    def tuned(self) -> Floats:
        """What `dual-tuned` multiplies both queries with, ``(p + q, p)``. Raises `RefusedError` where there is none."""
        if "attached.tuned" not in self._arrays:
            refuse(f"{self.path}: its estimate trained nothing on labelled queries; see dual-tuned in its table.")
        return self._arrays["attached.tuned"]

    def _turn(self, prefix: str, spec: Mapping[str, Any]) -> Turn:
        """One affine map, or a chain of them that may end in unit length."""
        parts = spec["settings"]["maps"] if spec["kind"] == "chain" else [spec]
        names = [f"{prefix}.{i}" for i in range(len(parts))] if spec["kind"] == "chain" else [prefix]
        to_unit = parts[-1]["kind"] == "normalize"
        parts = parts[:-1] if to_unit else parts
        if any(part["kind"] != "affine" for part in parts) or not parts:
            kinds = ", ".join(part["kind"] for part in parts)
            refuse(f"{self.path}: expected an affine map to serve in numpy, got {kinds}; see suture.aligners.load.")
        weight: NDArray[np.float64] = np.eye(self._arrays[f"{names[0]}.weight"].shape[0])
        bias: NDArray[np.float64] = np.zeros(len(weight))
        for name in names[: len(parts)]:
            w = self._arrays[f"{name}.weight"].astype(np.float64)
            b = self._arrays[f"{name}.bias"].astype(np.float64)
            weight, bias = weight @ w, bias @ w + b
        return Turn(np.ascontiguousarray(weight, np.float32), bias.astype(np.float32), to_unit)


def digest(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of the header, and of name, dtype (as torch names it), shape and bytes of each array."""
    total = hashlib.sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"{name} torch.{array.dtype.name} {tuple(array.shape)}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
