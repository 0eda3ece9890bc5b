"""One torch program of three parts: new encoder, map, old decoder."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...aligners.alignment import Alignment
from ...aligners.errors import RefusedError, SutureError, UsageError
from ...aligners.maps import Map
from ..dumps.atomic import atomic_write
from .onnxfile import in_short, require_agreement, require_proof, values_like
from .parts import Pool, pooled_by_hand, require_inputs, require_shapes
from .program import Port, Program, read_program
from .stitch import Unit, model_map

__all__ = ["stitch_programs"]

Array = NDArray[Any]
HALVES = (torch.float16, torch.bfloat16)


class Whole(nn.Module):
    """Encoder, map in float32, decoder; ``mask`` is the place of that input among the encoder's, for the mean.

    All inputs are given by position: torch.export has no open sizes for inputs that are known by name only.
    """

    def __init__(self, encoder: Program, output: int, pool: Pool, mask: int, mapping: Map, decoder: Program) -> None:
        super().__init__()
        self.encoder, self.map, self.decoder = encoder, mapping.module(), decoder
        self._output, self._pool, self._mask = output, pool, mask
        self._dtype = decoder.inputs[0].dtype

    def forward(self, *given: Tensor) -> Any:
        """The inputs of the encoder, to the outputs of the decoder."""
        inputs = {port.name: value for port, value in zip(self.encoder.inputs, given, strict=True)}
        rows = run(self.encoder, inputs)[self._output].float()
        if self._pool == "first":
            rows = rows[:, 0]
        elif self._pool == "mean":
            mask = given[self._mask].unsqueeze(-1).float()
            rows = (rows * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return self.decoder(self.map(rows).to(self._dtype))


def stitch_programs(
    encoder: str | Path,
    alignment: Alignment | Map,
    decoder: str | Path,
    out: str | Path,
    *,
    output: str | None = None,
    pool: Pool = "none",
    mask: str = "attention_mask",
    side: str = "source",
    into: str = "target",
    normalize: Unit = "auto",
    probe: Mapping[str, Array] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the program that runs ``encoder``, the map and ``decoder`` to ``out``: `stitch_onnx` for .pt2 files.

    They are read by `read_program`, so nothing of them is unpickled or executed, and exported anew, on the CPU, with
    the open sizes of the encoder, whose inputs are given by position. Raises as `stitch_onnx`; nothing is written
    then.
    """
    mapping = model_map(alignment, side=side, into=into, normalize=normalize)
    first, last = read_program(encoder), read_program(decoder)
    number = chosen(first, output, str(encoder))
    if len(last.inputs) != 1 or not last.inputs[0].dtype.is_floating_point:
        listed = ", ".join(f"{p.name} {words(p)['type']}" for p in last.inputs)
        raise RefusedError(f"{decoder}: expected a program of one input of floating-point numbers, it takes {listed}.")
    ends = [
        (n, [None if isinstance(d, str) else d for d in p.shape])
        for n, p in ((first.names[number], first.outputs[number]), (last.inputs[0].name, last.inputs[0]))
    ]
    require_shapes(str(encoder), ends[0], pool, mapping, str(decoder), ends[1])
    names = [each.name for each in first.inputs]
    if pool == "mean" and mask not in names:
        raise UsageError(
            f"{encoder}: --pool mean needs the input that marks the tokens, there is no '{mask}'; name it with --mask. "
            f"It has {', '.join(names)}."
        )
    whole = Whole(first, number, pool, names.index(mask) if pool == "mean" else 0, mapping, last).eval()
    inputs = inputs_for(first, sizes(first), probe, str(encoder))
    by_hand = partial(by_parts, first, number, pool, mask, mapping, last)
    told = (probe is None, str(encoder), str(decoder))
    expected = by_hand(inputs, *told)
    require_proof(expected, str(out))
    data = exported(whole, first, inputs, str(encoder), str(decoder))
    made = torch.export.load(io.BytesIO(data)).module()  # our own bytes
    half = any(t.dtype in HALVES for part in (first, last) for t in part.buffers())
    worst, seen = 0.0, 0
    for other in (None, *([] if probe is not None else ["more", "one"])):
        feeds = inputs
        if other is not None:
            feeds = inputs_for(first, sizes(first, other), None, str(encoder))
            expected = by_hand(feeds, *told)
        came = made(*feeds.values())
        results = [came] if isinstance(came, Tensor) else list(came.values() if isinstance(came, dict) else came)
        worst = max(worst, require_agreement([as_numpy(r) for r in results], expected, not half, str(out)))
        seen += len(expected[0]) if expected[0].ndim else 1
    with atomic_write(out, overwrite) as file:
        file.write(data)
    again = read_program(io.BytesIO(data), str(out))
    return {
        "inputs": [words(each, name) for each, name in zip(again.inputs, names, strict=True)],
        "outputs": [words(each, name) for each, name in zip(again.outputs, again.names, strict=True)],
        "map": {"kind": mapping.kind, "source_dim": mapping.source_dim, "target_dim": mapping.target_dim},
        "probe_rows": seen,
        "difference": worst,
        "opset": None,
        "path": str(out),
    }


def chosen(encoder: Program, output: str | None, what: str) -> int:
    """The place of the output of that name; without one, of the only one that holds floating-point numbers."""
    listed = ", ".join(f"{name} {words(p)['type']}" for name, p in zip(encoder.names, encoder.outputs, strict=True))
    found = [
        i
        for i, (name, each) in enumerate(zip(encoder.names, encoder.outputs, strict=True))
        if each.dtype.is_floating_point and (output is None or output in (name, each.name))
    ]
    if len(found) != 1:
        problem = f"there is no '{output}'" if output else "it is not clear which is meant (--encoder-output NAME)"
        kind = UsageError if output else SutureError
        raise kind(f"{what}: outputs: expected one of floating-point numbers, {problem}; there are {listed}.")
    return found[0]


def words(port: Port, name: str | None = None) -> dict[str, Any]:
    """An input or output as plain JSON values."""
    shape = [None if isinstance(size, str) else size for size in port.shape]
    return {"name": name or port.name, "type": str(port.dtype).removeprefix("torch."), "shape": shape}


def sizes(program: Program, which: str = "as exported") -> dict[str, int]:
    """A number for each open size, within its range: as it was exported (2 at least), one more, or as few as may be."""
    found = {}
    for port in program.inputs:
        for name, example in zip(port.shape, port.example, strict=True):
            if isinstance(name, str) and name in program.ranges:
                low, high = program.ranges[name]
                wanted = {"more": max(example, 2) + 1, "one": 1}.get(which, max(example, 2))
                found[name] = max(low, wanted if high is None else min(wanted, high))
    return found


def inputs_for(
    program: Program, size: Mapping[str, int], probe: Mapping[str, Array] | None, what: str
) -> dict[str, Tensor]:
    """What to run the program on: the ``probe``, or generated values.

    Raises `UsageError` for a probe that lacks an input, `SutureError` for one of anything but numbers.
    """
    if probe is not None:
        require_inputs(probe, [each.name for each in program.inputs], what)
    rng = np.random.default_rng(0)
    found = {}
    for port in program.inputs:
        shape = [s if isinstance(s, int) else size.get(s, e) for s, e in zip(port.shape, port.example, strict=True)]
        dtype = torch.empty(0, dtype=torch.float32 if port.dtype in HALVES else port.dtype).numpy().dtype
        values = values_like(port.name, dtype, shape, rng) if probe is None else probe[port.name]
        if values.dtype.kind not in "biuf":
            raise SutureError(f"{what}: input '{port.name}' takes numbers, the probe has {values.dtype} for it.")
        found[port.name] = torch.from_numpy(np.ascontiguousarray(values).astype(dtype)).to(port.dtype)
    return found


def run(program: Program, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """All outputs of a program for its inputs by name, whichever way it takes them."""
    by_name = {each.name: inputs[each.name] for each in program.inputs if each.keyword}
    return program.results(*(inputs[each.name] for each in program.inputs if not each.keyword), **by_name)


@torch.no_grad()
def by_parts(
    first: Program,
    number: int,
    pool: Pool,
    mask: str,
    mapping: Map,
    last: Program,
    inputs: Mapping[str, Tensor],
    generated: bool,
    encoder: str,
    decoder: str,
) -> list[Array]:
    """What encoder, map and decoder give one after the other. Raises where one does not fit the next."""
    try:
        vectors = run(first, inputs)[number].float().numpy()
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        hint = " On generated inputs; give real ones with --probe FILE.npz." if generated else ""
        raise SutureError(f"{encoder}: cannot be run ({in_short(error)}).{hint}") from error
    if pool != "none":
        vectors = pooled_by_hand(vectors, pool, inputs[mask].numpy() if pool == "mean" else None)
    if vectors.ndim == 0 or vectors.shape[-1] != mapping.source_dim:
        raise RefusedError(
            f"{encoder}: the output has shape {vectors.shape} on a probe, the map takes {mapping.source_dim} dims."
        )
    rows = torch.from_numpy(np.ascontiguousarray(mapping(vectors))).to(last.inputs[0].dtype)
    try:
        results = last.results(rows)
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        fixed = last.inputs[0].shape[0]
        takes = f" It takes {fixed} rows; export it anew with an open first axis." if isinstance(fixed, int) else ""
        raise RefusedError(
            f"{decoder}: cannot be run on mapped rows {tuple(rows.shape)} ({in_short(error)}).{takes}"
        ) from error
    return [as_numpy(each) for each in results]


def as_numpy(values: Tensor) -> Array:
    """In numpy, which has no bfloat16. Labels stay whole numbers, so that they are compared as such."""
    values = values.detach()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def exported(whole: Whole, first: Program, inputs: Mapping[str, Tensor], encoder: str, decoder: str) -> bytes:
    """The bytes of the file. Raises `RefusedError` where the parts cannot be joined with the encoder's open sizes."""
    opened = {name: torch.export.Dim(name, min=low, max=high) for name, (low, high) in first.ranges.items()}
    shapes = tuple(
        {a: opened.get(size, torch.export.Dim.AUTO) for a, size in enumerate(each.shape) if isinstance(size, str)}
        for each in first.inputs
    )
    try:
        program = torch.export.export(whole, tuple(inputs.values()), dynamic_shapes={"given": shapes})
    except Exception as error:  # torch raises errors of its own for each way in which a graph may not be traced
        raise RefusedError(
            f"{encoder} and {decoder} cannot be joined ({in_short(error)}); does one of them take a fixed number of "
            "rows, and the other any? Export both with an open first axis (dynamic_shapes)."
        ) from error
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()
