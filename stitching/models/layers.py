"""Folding an affine map into single torch layers, in float64."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from ...aligners.errors import RefusedError
from ...aligners.maps import Affine

__all__ = ["CONVOLUTIONS", "FOLDABLE", "NormedLinear", "fold_layer", "fold_numbers", "input_dim", "stored"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
FOLDABLE = (nn.Linear, *CONVOLUTIONS)
TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
Path = tuple[str, ...]  # names of modules, from the outermost in
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def input_dim(layer: nn.Module) -> int:
    """The width of the vectors that a layer takes."""
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)  # type: ignore[arg-type]


def fold_numbers(mapping: Affine, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """``weight`` ``(c, q, ...)`` and ``bias`` ``(c,)`` of a layer, as ``(c, p, ...)`` and ``(c,)`` behind the map.

    In float64. Raises `RefusedError` where the layer does not take the q dims that the map gives.
    """
    if weight.ndim < 2 or weight.shape[1] != mapping.target_dim:
        raise RefusedError(
            f"the map goes from {mapping.source_dim} to {mapping.target_dim} dims, the head takes "
            f"{weight.shape[1] if weight.ndim > 1 else tuple(weight.shape)}. Is the map the right way round "
            "(new encoder -> the space that the head knows)?"
        )
    w, b = weight.double(), mapping.bias.double().to(weight.device)
    folded = torch.tensordot(mapping.weight.double().to(weight.device), w, dims=([1], [1])).movedim(0, 1)
    shift = torch.tensordot(w, b, dims=([1], [0])).reshape(len(w), -1).sum(1)
    return folded.contiguous(), shift if bias is None else shift + bias.double()


def stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Folded numbers in the dtype of the head. Raises `RefusedError` where one is too large for it."""
    out = value.to(dtype)
    if not torch.isfinite(out).all():
        raise RefusedError(
            f"fold: a number of the folded head is too large for {str(dtype).removeprefix('torch.')}; fold a copy of "
            "the head in float32."
        )
    return out


def fold_layer(head: nn.Module, mapping: Affine) -> nn.Module:
    """A new head of the same kind behind the map. Raises `RefusedError` where its first layer cannot absorb one."""
    if isinstance(head, nn.Linear):
        return linear(*fold_numbers(mapping, head.weight, head.bias), like=head)
    if isinstance(head, CONVOLUTIONS):
        return convolution(head, mapping)
    if plain_sequence(head):
        return sequence(head, mapping)
    raise RefusedError(
        f"fold: expected a head that begins with Linear, a convolution, or LayerNorm and Linear, got "
        f"{type(head).__name__}; name the layer that takes the head's input (layer=NAME), or stitch the map in whole."
    )


def sequence(head: nn.Sequential, mapping: Affine) -> nn.Sequential:
    """A sequence whose first layer with a matrix is folded; what was absorbed becomes an identity: names stay."""
    parts = leaves(head)
    made: dict[Path, nn.Module] = {}
    for i, (path, part) in enumerate(parts):
        if isinstance(part, TRANSPARENT):
            continue
        if isinstance(part, BATCH_NORMS):
            mapping = mapping_of(part, mapping) if part.num_features == mapping.target_dim else _wrong(part, mapping)
            made[path] = nn.Identity()
            continue
        behind, following = next((p for p in parts[i + 1 :] if not isinstance(p[1], TRANSPARENT)), (path, part))
        if isinstance(part, nn.LayerNorm) and isinstance(following, nn.Linear):
            made |= {path: nn.Identity(), behind: NormedLinear.fold(mapping, part, following)}
        else:
            made[path] = fold_layer(part, mapping)
        return rebuilt(head, made, {})
    raise RefusedError("fold: this head has no linear layer or convolution that a map could be folded into.")


def plain_sequence(part: nn.Module | None) -> TypeGuard[nn.Sequential]:
    """Whether a module is a sequence that runs its parts one by one and does nothing else."""
    return isinstance(part, nn.Sequential) and type(part).forward is nn.Sequential.forward


def leaves(head: nn.Sequential, above: Path = ()) -> list[tuple[Path, nn.Module]]:
    """The layers of a sequence, and of those in it, in the order they run."""
    found: list[tuple[Path, nn.Module]] = []
    for name, part in head._modules.items():
        assert part is not None  # a sequence with a part left out does not run
        path = (*above, name)
        found += leaves(part, path) if plain_sequence(part) else [(path, part)]
    return found


def rebuilt(
    head: nn.Sequential, made: Mapping[Path, nn.Module], memo: dict[int, Any], above: Path = ()
) -> nn.Sequential:
    """A copy of a sequence with some layers exchanged; what the rest shares stays shared, by ``memo``."""
    parts: dict[str, nn.Module] = {}
    for name, part in head._modules.items():
        path = (*above, name)
        if path in made:
            parts[name] = made[path]
        elif plain_sequence(part):
            parts[name] = rebuilt(part, made, memo, path)
        else:
            parts[name] = copy.deepcopy(part, memo)
    out = nn.Sequential(OrderedDict(parts))
    out.training = head.training
    return out


def _wrong(part: nn.Module, mapping: Affine) -> Affine:
    raise RefusedError(f"the map gives {mapping.target_dim} dims, the head begins with {part}.")


def mapping_of(norm: nn.Module, mapping: Affine) -> Affine:
    """The map and a batch norm in eval mode behind it."""
    if norm.running_mean is None or norm.running_var is None:
        raise RefusedError("fold: a batch norm without running statistics depends on its batch; it cannot be folded.")
    gain = (norm.running_var.double() + norm.eps).rsqrt()  # type: ignore[operator]
    shift = -norm.running_mean.double() * gain  # type: ignore[operator]
    if norm.affine:
        gain, shift = gain * norm.weight.detach().double(), shift * norm.weight.double() + norm.bias.double()  # type: ignore[operator]
    return Affine(mapping.weight * gain.cpu(), mapping.bias * gain.cpu() + shift.detach().cpu())


def linear(weight: Tensor, bias: Tensor | None, like: nn.Linear) -> nn.Linear:
    """`nn.Linear` with these numbers, and dtype, device and training of another."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta", dtype=like.weight.dtype)
    made.weight = parameter(weight, like.weight)
    if bias is not None:
        made.bias = parameter(bias, like.weight)
    made.training = like.training
    return made


def parameter(value: Tensor, like: Tensor) -> nn.Parameter:
    """A parameter in the dtype, on the device of another, trained if that is."""
    return nn.Parameter(stored(value.detach(), like.dtype).to(like), requires_grad=like.requires_grad)


def convolution(head: nn.Module, mapping: Affine) -> nn.Module:
    """A convolution over the channels of the source space."""
    if head.groups != 1:
        raise RefusedError(f"fold: a convolution in {head.groups} groups sees a part of its channels only.")
    if head.padding_mode == "zeros" and any(head._reversed_padding_repeated_twice):  # type: ignore[arg-type]
        raise RefusedError(
            "fold: a convolution that pads with zeros sees zeros where the map would put its bias; only convolutions "
            "without padding, 1x1 among them, can be folded exactly. Stitch the map in whole (stitch(..., dim=1))."
        )
    weight, bias = fold_numbers(mapping, head.weight, head.bias)  # type: ignore[arg-type]
    made = copy.deepcopy(head)
    made.in_channels = weight.shape[1]  # type: ignore[assignment]
    made.weight = parameter(weight, head.weight)  # type: ignore[arg-type]
    made.bias = parameter(bias, head.weight)  # type: ignore[arg-type]
    return made


class NormedLinear(nn.Module):
    """`nn.LayerNorm` and `nn.Linear` behind an affine map, exactly: ``scores(x) / sqrt(||length(x)||^2 + eps) + bias``.

    With C = I - 11'/q the map centred is ``x A + a = x W C + b C``; the norm divides it by ``sqrt(||x A + a||^2 / q +
    eps)``, and its gain and bias belong to the linear layer behind. The length needs no q numbers: a triangular factor
    of ``[A; a]`` has min(p + 1, q) columns and gives the same. It is the one product that cannot be saved.
    """

    def __init__(self, scores: nn.Linear, length: nn.Linear, bias: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.scores, self.length, self.bias, self.eps = scores, length, bias, eps

    @classmethod
    def fold(cls, mapping: Affine, norm: nn.LayerNorm, head: nn.Linear) -> NormedLinear:
        """The two layers behind the map. Raises `RefusedError` on widths that do not fit."""
        q = mapping.target_dim
        if tuple(norm.normalized_shape) != (q,) or head.in_features != q:
            raise RefusedError(
                f"the map gives {q} dims, the head begins with LayerNorm{tuple(norm.normalized_shape)} and takes "
                f"{head.in_features}. Is the map the right way round?"
            )
        device = head.weight.device
        whole = torch.cat([mapping.weight, mapping.bias[None]]).double().to(device)
        centred = whole - whole.mean(1, keepdim=True)
        gain = torch.ones(q, dtype=torch.float64, device=device) if norm.weight is None else norm.weight.double()
        shift = torch.zeros_like(gain) if norm.bias is None else norm.bias.double()
        weight = head.weight.double()
        scores = (centred * gain) @ weight.T
        factor = torch.linalg.qr(centred.T, mode="r").R.T / q**0.5
        constant = weight @ shift + (0 if head.bias is None else head.bias.double())
        return cls(
            linear(scores[:-1].T, scores[-1], head),
            linear(factor[:-1].T, factor[-1], head),
            parameter(constant, head.weight),
            norm.eps,
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(..., p)`` to ``(..., c)``."""
        square = self.length(x).square().sum(-1, keepdim=True)
        return self.scores(x) * torch.rsqrt(square + self.eps) + self.bias
