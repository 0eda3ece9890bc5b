"""One alignment, one `.safetensors` file: self-describing, versioned, byte-equal for equal alignments, never a pickle.

All metadata stands under ONE key as sorted JSON: with several keys safetensors writes them in any order and the bytes
differ from save to save. A digest of everything stands among it: a flipped bit would make plausible nonsense.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .. import __version__
from .alignment import Alignment, Space
from .errors import RefusedError, SutureError
from .maps import Map, build_map

__all__ = ["load", "save_alignment"]

FORMAT = "suture-alignment"
VERSION = 1
KEY = "suture"


def save_alignment(alignment: Alignment, path: str | Path, *, overwrite: bool = False) -> None:
    """Write ``alignment`` to ``path``: aside first, flushed to the disk, then renamed, so that no half file is seen.

    Raises `RefusedError` if the file is there and ``overwrite`` is not set.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise RefusedError(f"{path} exists; choose another name or allow overwriting.")
    data = to_bytes(alignment)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def to_bytes(alignment: Alignment) -> bytes:
    """The content of the file."""
    tensors: dict[str, Tensor] = {}

    def put(prefix: str, values: Mapping[str, Tensor | None]) -> None:
        # safetensors writes a transposed array wrongly and without an error, and refuses shared memory: all are copied.
        tensors.update(
            {f"{prefix}.{k}": v.detach().cpu().contiguous().clone() for k, v in values.items() if v is not None}
        )

    def describe(prefix: str, maps: Mapping[str, Map]) -> dict[str, Any]:
        for name, m in maps.items():
            put(f"{prefix}.{name}", m.tensors())
        return {name: {"kind": m.kind, "settings": m.settings()} for name, m in maps.items()}

    for name, space in alignment.spaces.items():
        put(f"spaces.{name}", {key: getattr(space, key) for key in SPACE_TENSORS})
    put("attached", alignment.attached)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "suture": __version__,
        "maps": describe("maps", alignment.maps),
        "back": describe("back", alignment.back),
        "spaces": {
            name: {"dim": s.dim, "unit": s.unit, "fingerprint": s.fingerprint, "familiarity": s.familiarity}
            for name, s in alignment.spaces.items()
        },
        "provenance": alignment.provenance,
    }
    try:
        header = json.loads(json.dumps(header, allow_nan=False))  # as it will be read: every key a string
    except (TypeError, ValueError) as error:
        raise SutureError(f"provenance must be plain finite JSON values: {error}.") from error
    return save(tensors, metadata={KEY: _text({**header, "digest": _digest(header, tensors)})})


def _text(header: Mapping[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, separators=(",", ":"))


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the header, and of name, dtype, shape and bytes of each tensor."""
    digest = hashlib.sha256(_text(header).encode())
    for name in sorted(tensors):
        t = tensors[name]
        digest.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        digest.update(t.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


SPACE_TENSORS = ("mean", "canaries", "canary_keys")


def load(path: str | Path) -> Alignment:
    """The alignment in the file at ``path``.

    Raises `SutureError` where there is none, where it is damaged, or where a newer suture wrote it.
    """
    path = Path(path)
    if not path.is_file():
        raise SutureError(f"{path}: expected a map file written by suture, but there is no such file.")
    try:
        with safe_open(path, framework="pt") as f:
            text = (f.metadata() or {}).get(KEY)
            if text is None:
                raise SutureError(f"{path}: this safetensors file is not a suture map (no '{KEY}' metadata).")
            header = json.loads(text)
            if header.get("format") != FORMAT or header.get("version", 0) > VERSION:
                raise SutureError(
                    f"{path}: expected format {FORMAT} up to version {VERSION}, got {header.get('format')} version "
                    f"{header.get('version')}; upgrade suture."
                )
            # Copied out of the file: there they start at any byte, and products round otherwise.
            tensors = {name: f.get_tensor(name).clone() for name in f.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, json.JSONDecodeError, TypeError, AttributeError) as error:
        raise SutureError(f"{path}: expected a map file written by suture, but it cannot be read: {error}.") from error
    if header.pop("digest", None) != _digest(header, tensors):
        raise SutureError(f"{path}: this map file is damaged (its digest is wrong); fetch it anew.")
    try:
        return _assemble(header, tensors)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise SutureError(f"{path}: not a map that this suture can read: {error}") from error


def _assemble(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Alignment:
    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix + "."): v for k, v in tensors.items() if k.startswith(prefix + ".")}

    def maps(section: str) -> dict[str, Map]:
        return {
            name: build_map(spec["kind"], under(f"{section}.{name}"), spec["settings"])
            for name, spec in header[section].items()
        }

    def familiarity(value: list[float] | None) -> tuple[float, float] | None:
        return None if value is None else (value[0], value[1])

    spaces = {
        name: Space(
            dim=spec["dim"],
            unit=spec["unit"],
            fingerprint=spec["fingerprint"],
            familiarity=familiarity(spec["familiarity"]),
            **under(f"spaces.{name}"),
        )
        for name, spec in header["spaces"].items()
    }
    return Alignment(maps("maps"), maps("back"), spaces, header["provenance"], under("attached"))


def is_map_file(path: str | Path) -> bool:
    """Whether the file at ``path`` says of itself that it is a suture map."""
    try:
        with safe_open(Path(path), framework="pt") as f:
            return KEY in (f.metadata() or {})
    except (SafetensorError, OSError):
        return False
