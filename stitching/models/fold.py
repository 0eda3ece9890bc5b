"""Folding: an affine map absorbed into the first layer of a head, which then takes the new encoder's vectors itself.

    head(x W + b) = (x W + b) H' + h = x (H W')' + (b H' + h)

so a folded linear head is a head like any other: no layer more, no number more, no time more.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...aligners.alignment import Alignment
from ...aligners.errors import RefusedError, UsageError
from ...aligners.maps import Affine, Identity, Map
from .estimators import decision, fold_estimator, identity, is_estimator
from .layers import CONVOLUTIONS, FOLDABLE, fold_layer, input_dim

__all__ = ["affine_map", "fold", "probe_rows", "require_equal"]

PROBES = 64


def affine_map(alignment: Alignment | Map) -> Affine:
    """The affine map from source to target, in float64. Raises `RefusedError` where it is of another kind."""
    mapping = alignment if isinstance(alignment, Map) else alignment.translate("source", "target")
    if isinstance(mapping, Identity):
        mapping = identity(mapping.dim)
    if not isinstance(mapping, Affine):
        raise RefusedError(
            f"only an affine map can be folded into a head, this one is of kind {mapping.kind}; stitch it in whole "
            "(stitch(...), suture stitch), or fit an affine method (`suture methods` lists them)."
        )
    return mapping.to(torch.float64)


def fold(alignment: Alignment | Map, head: Any, *, layer: str | None = None, probe: Any = None) -> Any:
    """A copy of ``head`` that takes vectors of the source space: ``folded(x) = head(map(x))``.

    ``head`` is a torch module or a fitted scikit-learn estimator. Modules: `nn.Linear`; convolutions without padding
    (the map goes along the channels); `nn.Sequential`, also nested, that begins with one of these, with identities,
    dropout or batch norms (as in eval mode) before it; `nn.LayerNorm` followed by `nn.Linear`, which stays exact but
    needs the length of the mapped row, and so keeps one product more (`layers.NormedLinear`); any other module if
    ``layer`` names the one of its layers, linear or convolution, that takes the head's input. Estimators: linear
    models, linear SVMs and multilayer perceptrons, pipelines that begin with scalers or a PCA, and searches and
    `FrozenEstimator` around these, of which the estimator inside comes back.

    The map alone is folded: rows are not scaled to unit length behind it, as `stitch` may do. The folded head is run
    against map and head on a ``probe``, an array or tensor of source rows as the head takes them (by default the map's
    own canaries, or random rows), and refused where outputs, all tensors of tuples and dicts, differ by more than 1e-5
    of the largest (2e-2 in half precision).
    Raises `RefusedError` where the head cannot be folded, widths do not fit, or the proof fails.
    """
    mapping = affine_map(alignment)
    if is_estimator(head):
        folded = fold_estimator(mapping, head)
        rows = probe_rows(alignment, mapping) if probe is None else given_rows(probe)
        before = decision(head, mapping(rows.double()).numpy())
        require_equal(decision(folded, rows.double().numpy()), before, torch.float64)
        return folded
    if not isinstance(head, nn.Module):
        raise UsageError(
            f"head: expected a torch module or a fitted scikit-learn estimator, got {type(head).__name__}; for bare "
            "arrays there is Head(weight, bias).fold(alignment)."
        )
    folded = fold_inside(head, mapping, layer)
    rows = probe_rows(alignment, mapping) if probe is None else given_rows(probe)
    prove(head, folded, mapping, layer, rows, given=probe is not None)
    return folded


def fold_inside(head: nn.Module, mapping: Affine, layer: str | None) -> nn.Module:
    """The head with the layer of that name folded; without a name, its first."""
    if layer is None:
        return fold_layer(head, mapping)
    layers = dict(head.named_modules())
    if layer not in layers:
        raise UsageError(f"layer: there is no '{layer}' in this head; {takers(head, mapping.target_dim)}.")
    return copy.deepcopy(head, {id(layers[layer]): fold_layer(layers[layer], mapping)})


def takers(head: nn.Module, dim: int) -> str:
    """The layers of a head that could take a row of that width."""
    names = [name for name, part in head.named_modules() if isinstance(part, FOLDABLE) and input_dim(part) == dim]
    return f"layers that take {dim} dims: {', '.join(names) or 'none'}"


def probe_rows(alignment: Alignment | Map, mapping: Map) -> Tensor:
    """Rows ``(64, p)`` of the source space, or as good as: its canaries, or draws from a normal distribution."""
    space = alignment.spaces.get("source") if isinstance(alignment, Alignment) else None
    if space is not None and space.canaries is not None:
        return space.canaries[:PROBES].float()
    return torch.randn(PROBES, mapping.source_dim, generator=torch.Generator().manual_seed(0))


def given_rows(probe: Any) -> Tensor:
    """A probe as a tensor; of arrays a copy, for those of a file that is mapped cannot be written to."""
    return probe if isinstance(probe, Tensor) else torch.from_numpy(np.array(probe))


@torch.no_grad()
def prove(
    head: nn.Module, folded: nn.Module, mapping: Affine, layer: str | None, probe: Tensor, *, given: bool
) -> None:
    """Run both on the probe, in eval mode and the head's own dtype."""
    first = entry(head, layer)
    along = 1 if isinstance(first, CONVOLUTIONS) else -1
    like = next(head.parameters())
    x = probe.to(like)
    if isinstance(first, CONVOLUTIONS) and not given:
        sides = [size + 2 for size in first.kernel_size]
        x = x.reshape(*x.shape, *[1 for _ in sides]).repeat(1, 1, *sides)
    mapped = mapping(x.double().movedim(along, -1)).movedim(-1, along).to(like)
    with in_eval_mode(head), in_eval_mode(folded):
        try:
            outputs = [head(mapped), folded(x)]
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise UsageError(
                f"the head could not be run on a probe of shape {tuple(x.shape)}: {error}. Give probe=, a batch of the "
                f"source space as the head takes it; {takers(head, mapping.target_dim)}."
            ) from error
    expected, came = map(tensors_in, outputs)
    if not came or len(came) != len(expected):
        raise UsageError(
            f"head: expected a module that gives tensors, the same number each time, got {type(outputs[0]).__name__} "
            f"with {len(expected)}, folded {len(came)}; wrap it in one that gives its scores."
        )
    for one, other in zip(came, expected, strict=True):
        require_equal(one.double().numpy(force=True), other.double().numpy(force=True), like.dtype)


def tensors_in(output: Any) -> list[Tensor]:
    """The tensors that a module gave: by itself, or in tuples, lists and mappings."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """The module in eval mode, and each part back in its own mode behind."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def entry(head: nn.Module, layer: str | None) -> nn.Module:
    """The layer that takes the map: the one of that name, else the first that can."""
    if layer is not None:
        return head.get_submodule(layer)
    return next((part for part in head.modules() if isinstance(part, FOLDABLE)), head)


def require_equal(came: Any, expected: Any, dtype: torch.dtype) -> float:
    """The largest difference, relative to the largest output. Raises `RefusedError` if it is too large.

    Outputs that are all zero must be equal, but for numbers below the smallest normal one of ``dtype``.
    """
    allowed = 1e-5 if dtype in (torch.float32, torch.float64) else 2e-2
    if came.shape != expected.shape:
        raise RefusedError(f"the folded head gives shape {came.shape}, map and head give {expected.shape}.")
    largest = max(float(np.abs(expected).max(initial=0)), torch.finfo(dtype).tiny)
    worst = float(np.abs(came - expected).max(initial=0)) / largest
    if not worst <= allowed:
        raise RefusedError(
            f"the folded head differs from map and head by {worst:.2e} on the probe. Does the layer take the head's "
            "input as it is, with nothing before it but what `fold` lists? Else stitch the map in whole."
        )
    return worst
