"""Stitching in Python: new encoder, map, old decoder, in one module or one callable."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...aligners.alignment import Alignment
from ...aligners.errors import SutureError, UsageError
from ...aligners.maps import Map, Normalize

__all__ = ["MappedEncoder", "Stitched", "StitchedCall", "Unit", "model_map", "stitch", "swap_encoder"]

Unit = Literal["auto", "l2", "none"]
Pick = str | int | None
SHARED = "shared"


def model_map(
    alignment: Alignment | Map, *, side: str = "source", into: str = "target", normalize: Unit = "auto"
) -> Map:
    """All that stands between an encoder of space ``side`` and a decoder that knows the space ``into``.

    ``into="shared"`` ends in the shared space, which is what a decoder of relative vectors knows. ``normalize``: "auto"
    scales rows to unit length before the map where the rows that it was fitted on had it, and after it where those of
    ``into`` had it; "l2" scales after the map, "none" nowhere. A bare `Map` is taken as it is under "auto".
    Raises `RefusedError` where there is no way into that space, `UsageError` for a space that is not there, and
    for ``side`` itself, whose rows need no map.
    """
    if normalize not in ("auto", "l2", "none"):
        raise UsageError(f"normalize: expected auto, l2 or none, got '{normalize}'.")
    if isinstance(alignment, Map):
        return alignment >> Normalize(alignment.target_dim) if normalize == "l2" else alignment
    if into == side and into in alignment.maps:
        others = [name for name in (*alignment.maps, SHARED) if name != side]
        raise UsageError(f"into: expected {' or '.join(others)}, got '{into}', the space of the rows themselves.")
    mapping = alignment.map_of(side) if into == SHARED else alignment.translate(side, into)
    starts, ends = alignment.spaces.get(side), alignment.spaces.get(into)
    if normalize == "auto" and starts is not None and starts.unit:
        mapping = Normalize(mapping.source_dim) >> mapping
    if normalize == "l2" or (normalize == "auto" and ends is not None and ends.unit):
        mapping = mapping >> Normalize(mapping.target_dim)
    return mapping


class MappedEncoder(nn.Module):
    """``encoder``, then ``map`` along the axis ``dim`` of what it gives, in the dtype of ``like``.

    That is the dtype of what comes behind; rows of another precision are cast to it. It moves with the module, and a
    map that has no numbers of its own needs it.
    """

    like: Tensor

    def __init__(self, encoder: nn.Module, mapping: Map, *, output: Pick = None, dim: int = -1) -> None:
        super().__init__()
        self.encoder = encoder
        self.map = mapping.module()
        self.source_dim, self.target_dim = mapping.source_dim, mapping.target_dim
        self.register_buffer("like", torch.empty(0), persistent=False)
        self._output, self._dim = output, dim

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """The inputs of the encoder, to vectors of the space that the decoder knows."""
        rows = require_tensor(picked(self.encoder(*inputs, **named), self._output))
        require_width(rows, self.source_dim, self._dim)
        if rows.is_floating_point():
            rows = rows.to(self.like.dtype)
        return self.map(rows) if self._dim == -1 else self.map(rows.movedim(self._dim, -1)).movedim(-1, self._dim)


class Stitched(MappedEncoder):
    """`MappedEncoder`, then ``decoder``. Takes the encoder's inputs and gives the decoder's outputs."""

    def __init__(
        self, encoder: nn.Module, mapping: Map, decoder: nn.Module, *, output: Pick = None, dim: int = -1
    ) -> None:
        super().__init__(encoder, mapping, output=output, dim=dim)
        self.decoder = decoder

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The inputs of the encoder, to the outputs of the decoder."""
        return self.decoder(super().forward(*inputs, **named))


@dataclass(frozen=True, eq=False)
class StitchedCall:
    """The same for any callables: ``encoder`` gives numpy arrays or tensors, and ``decoder`` is given the same kind."""

    encoder: Callable[..., Any]
    map: Map
    decoder: Callable[[Any], Any]
    output: Pick = None
    dim: int = -1

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The inputs of the encoder, to the outputs of the decoder. Raises `SutureError` on another width."""
        rows = picked(self.encoder(*inputs, **named), self.output)
        if isinstance(rows, np.ndarray):
            require_width(rows, self.map.source_dim, self.dim)
            return self.decoder(np.moveaxis(self.map(np.moveaxis(rows, self.dim, -1)), -1, self.dim))
        rows = require_tensor(rows)
        require_width(rows, self.map.source_dim, self.dim)
        return self.decoder(self.map(rows.movedim(self.dim, -1)).movedim(-1, self.dim))


@overload
def stitch(
    encoder: nn.Module,
    alignment: Alignment | Map,
    decoder: nn.Module,
    *,
    side: str = ...,
    into: str = ...,
    normalize: Unit = ...,
    output: Pick = ...,
    dim: int = ...,
) -> Stitched: ...
@overload
def stitch(
    encoder: Callable[..., Any],
    alignment: Alignment | Map,
    decoder: Callable[..., Any],
    *,
    side: str = ...,
    into: str = ...,
    normalize: Unit = ...,
    output: Pick = ...,
    dim: int = ...,
) -> Stitched | StitchedCall: ...
def stitch(
    encoder: Any,
    alignment: Alignment | Map,
    decoder: Any,
    *,
    side: str = "source",
    into: str = "target",
    normalize: Unit = "auto",
    output: Pick = None,
    dim: int = -1,
) -> Stitched | StitchedCall:
    """``encoder`` (new), the map, ``decoder`` (old): an `nn.Module` where both are modules, else a callable.

    The map goes from the new encoder's space ``side`` into the space ``into`` that the decoder was trained in, see
    `model_map`. ``output`` names which of several outputs of the encoder is meant (a key, attribute or position);
    ``dim`` is the axis of the vectors, 1 for feature maps ``(n, p, h, w)``. Encoder and decoder are neither copied nor
    changed; the map takes the decoder's dtype and device, rows between modules are cast to that dtype, and the map's
    numbers are not trained. Raises `UsageError` for a decoder that cannot be called, `SutureError`, once it runs, where
    the encoder gives another width or no such axis.
    """
    mapping = model_map(alignment, side=side, into=into, normalize=normalize)
    for part, name in ((encoder, "encoder"), (decoder, "decoder")):
        if not callable(part):
            raise UsageError(
                f"{name}: expected a module or a function, got {type(part).__name__}; give a method of it, such as "
                "head.predict."
            )
    if isinstance(encoder, nn.Module) and isinstance(decoder, nn.Module):
        made = Stitched(encoder, mapping, decoder, output=output, dim=dim)
        like_neighbour(made, decoder, encoder)
        return made
    return StitchedCall(encoder, mapping, decoder, output, dim)


def swap_encoder(
    model: nn.Module,
    name: str,
    encoder: nn.Module,
    alignment: Alignment | Map,
    *,
    side: str = "source",
    into: str = "target",
    normalize: Unit = "auto",
    output: Pick = None,
    dim: int = -1,
) -> nn.Module:
    """A copy of ``model`` whose submodule ``name`` (dotted) is the new ``encoder`` and the map behind it.

    Everything else is copied, so ``model`` is left as it was; the new encoder is not copied. See `stitch` for the rest.
    Raises `UsageError` where there is no such submodule, and for an encoder that is no module.
    """
    if not isinstance(encoder, nn.Module):
        raise UsageError(f"encoder: expected a module, got {type(encoder).__name__}; for functions there is stitch.")
    parts = dict(model.named_modules())
    if not name or name not in parts:
        raise UsageError(
            f"swap_encoder: expected the name of a submodule, got '{name}'; there are "
            f"{', '.join(n for n, _ in model.named_children()) or 'none'}, and what is inside them."
        )
    mapping = model_map(alignment, side=side, into=into, normalize=normalize)
    made = MappedEncoder(encoder, mapping, output=output, dim=dim)
    like_neighbour(made, parts[name], encoder)
    # The copy takes what the memo says for the old encoder, wherever it is used, and never copies its weights.
    return copy.deepcopy(model, {id(parts[name]): made})


def like_neighbour(made: MappedEncoder, *neighbours: nn.Module) -> None:
    """Give the map the dtype and device of the first neighbour that has floating-point numbers."""
    numbers = chain.from_iterable(chain(n.parameters(), n.buffers()) for n in neighbours)
    first = next((t for t in numbers if t.is_floating_point()), None)
    if first is not None:
        made.map.to(device=first.device, dtype=first.dtype)
        made.like = made.like.to(device=first.device, dtype=first.dtype)


def picked(result: Any, output: Pick) -> Any:
    """The output of that name or position. Raises `SutureError` naming what there is."""
    if output is None:
        return result
    if isinstance(output, int) and isinstance(result, tuple | list) and -len(result) <= output < len(result):
        return result[output]
    if isinstance(result, Mapping) and output in result:
        return result[output]
    if isinstance(output, str) and hasattr(result, output):
        return getattr(result, output)
    raise SutureError(f"the encoder gives no output {output!r}; it gives {described(result)}.")


def require_tensor(rows: Any) -> Tensor:
    """Raises `SutureError` where an encoder gives something else."""
    if not isinstance(rows, Tensor):
        raise SutureError(
            f"expected the encoder to give one array of vectors, it gives {described(rows)}; say which is meant: "
            "output=NAME."
        )
    return rows


def described(result: Any) -> str:
    """What an encoder gave, in words."""
    if isinstance(result, Mapping):
        return f"{type(result).__name__} with {', '.join(map(str, result))}"
    return f"{type(result).__name__} of {len(result)}" if isinstance(result, tuple | list) else type(result).__name__


def require_width(rows: Tensor | NDArray[Any], dim: int, axis: int) -> None:
    """Raises `SutureError` where the encoder gives vectors of another width than the map takes."""
    if not -rows.ndim <= axis < rows.ndim or rows.shape[axis] != dim:
        raise SutureError(
            f"the map takes vectors of {dim} dims along axis {axis}, the encoder gives shape {tuple(rows.shape)}. Is "
            "this the encoder that the map was fitted on, and the map the right way round?"
        )
