"""A linear head, and the file that holds one: ``weight`` (c, q) and ``bias`` (c,) in safetensors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ...aligners.alignment import Alignment
from ...aligners.arrays import A, Array, as_tensor, through
from ...aligners.errors import SutureError, UsageError
from ...aligners.file import is_map_file
from ...aligners.maps import Map
from ..dumps.atomic import atomic_write
from .estimators import is_estimator, linear_numbers
from .fold import affine_map, probe_rows, require_equal
from .layers import fold_numbers, stored

__all__ = ["Head", "load_head", "save_head"]

CLASSES = "classes"


@dataclass(frozen=True, eq=False)
class Head:
    """``scores = x @ weight.T + bias`` with ``weight`` ``(c, q)`` and ``bias`` ``(c,)``.

    ``classes``: the c names or numbers that the rows of ``weight`` stand for; the row numbers where there are none.
    Names are strings or integers (floats and booleans become integers) and differ as text, for so labels name them.
    ``name``, ``rest`` and ``metadata`` are what else a file held, and is kept: the prefix of the two tensors' names,
    other tensors, other metadata.
    """

    weight: Tensor
    bias: Tensor
    classes: tuple[str | int, ...] | None = None
    name: str = ""
    rest: Mapping[str, Tensor] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        came = (tuple(self.weight.shape), tuple(self.bias.shape))
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise SutureError(f"head: expected weight (classes, q) and bias (classes,), got {came[0]} and {came[1]}.")
        if not (self.weight.is_floating_point() and self.bias.is_floating_point()):
            raise SutureError(f"head: expected floating-point numbers, got {self.weight.dtype} and {self.bias.dtype}.")
        if self.classes is not None:
            object.__setattr__(self, "classes", plain_names(self.classes))
            if len(self.classes) != max(2, len(self.weight)):
                raise SutureError(f"head: expected {max(2, len(self.weight))} classes, got {len(self.classes)}.")
        if not all(bool(torch.isfinite(t).all()) for t in (self.weight, self.bias)):
            raise SutureError("head: expected finite numbers, got NaN or infinity.")

    @classmethod
    def of(cls, head: Any, bias: Array | None = None) -> Head:
        """The head that is in an `nn.Linear`, a fitted linear estimator, or two arrays ``weight`` and ``bias``.

        An estimator of two classes has one row of weights; here it gets two, the first of zeros, so that scores are
        log-odds and their softmax the estimator's probabilities. Scores and choices of the head are compared with the
        estimator's own on a probe. Raises `UsageError` for anything else.
        """
        if isinstance(head, nn.Linear):
            own = head.weight.new_zeros(len(head.weight)) if head.bias is None else head.bias
            return cls(head.weight.detach().cpu().clone(), own.detach().cpu().clone())
        if is_estimator(head):
            coefficients, shift, known = linear_numbers(head)
            named = None if known is None else tuple(known.tolist())
            return cls(torch.from_numpy(coefficients), torch.from_numpy(shift), named)
        if not isinstance(head, np.ndarray | Tensor):
            raise UsageError(
                f"head: expected nn.Linear, a fitted linear estimator or weight and bias, got {type(head).__name__}."
            )
        weight = as_tensor(head, "weight")
        return cls(weight, weight.new_zeros(len(weight)) if bias is None else as_tensor(bias, "bias"))

    @property
    def dim(self) -> int:
        """``q``, the width of the vectors that it takes."""
        return self.weight.shape[1]

    @property
    def labels(self) -> tuple[str | int, ...]:
        """What it can answer."""
        return tuple(range(max(2, len(self.weight)))) if self.classes is None else self.classes

    def scores(self, x: A) -> A:
        """``(n, q)`` to ``(n, c)``; one row of weights gives ``(n, 1)``, a score for the second of two classes."""
        return through(lambda t: t @ self.weight.to(t).T + self.bias.to(t), x, self.dim, "head")

    def choices(self, x: Array) -> Tensor:
        """The number ``(n,)`` of the class with the highest score, the first of equals."""
        scores = self.scores(as_tensor(x))
        return scores.argmax(-1) if len(self.weight) > 1 else (scores[..., 0] > 0).long()

    def log_probabilities(self, x: Tensor) -> Tensor:
        """``(n, q)`` to ``(n, c)``: the log-softmax of the scores; one row of weights is the log-odds of the second."""
        scores = self.scores(x).double()
        return (scores if len(self.weight) > 1 else torch.cat([0 * scores, scores], 1)).log_softmax(1)

    def fold(self, alignment: Alignment | Map) -> Head:
        """The head of the new encoder's vectors: ``(c, p)``, in the dtype of this one, proven on a probe.

        Raises `RefusedError` for a map that is not affine, or does not end in this head's space.
        """
        return self.proven_fold(alignment)[0]

    def proven_fold(self, alignment: Alignment | Map) -> tuple[Head, float]:
        """`fold`, and how far it is from map and head on the probe, relative to the largest score.

        Raises `RefusedError` for a map that is not affine, or does not end in this head's space.
        """
        mapping = affine_map(alignment)
        weight, bias = fold_numbers(mapping, self.weight, self.bias)
        folded = replace(self, weight=stored(weight, self.weight.dtype), bias=stored(bias, self.bias.dtype))
        rows = probe_rows(alignment, mapping).double()
        expected = self.scores(mapping(rows)).numpy()
        return folded, require_equal(folded.scores(rows).numpy(), expected, self.weight.dtype)


def save_head(head: Head, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a head to a .safetensors file: aside, flushed, renamed.

    Raises `RefusedError` if it is there, `UsageError` for another suffix.
    """
    if Path(path).suffix != ".safetensors":
        raise UsageError(f"{path}: expected a name that ends in .safetensors, the one format of head files.")
    prefix = f"{head.name}." if head.name else ""
    tensors = {**head.rest, f"{prefix}weight": head.weight, f"{prefix}bias": head.bias}
    metadata = dict(head.metadata)
    if head.classes is not None:
        metadata[CLASSES] = json.dumps(list(head.classes))
    data = save({k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}, metadata or None)
    with atomic_write(path, overwrite) as file:
        file.write(data)


def load_head(path: str | Path) -> Head:
    """The head in a .safetensors file: the one tensor called ``weight`` (or ``NAME.weight``), and its ``bias``.

    A second one, that of a norm before it, would make another head, and so would statistics of a batch norm or another
    tensor as wide as the rows; such files are refused. The metadata key ``classes`` may hold their names
    as a JSON list. Raises `UsageError` for ONNX models, `SutureError` for any other file.
    """
    path = Path(path)
    if not path.is_file():
        raise SutureError(f"{path}: expected a head file (.safetensors), but there is no such file.")
    if path.suffix == ".onnx":
        raise UsageError(
            f"{path}: expected weight (classes, q) and bias (classes,) in .safetensors, got an ONNX model; these "
            "are for `suture fold`, `stitch` and `evaluate-head`. Save its last layer: "
            "suture.stitching.models.save_head."
        )
    if is_map_file(path):
        raise SutureError(f"{path}: expected a head, weight (classes, q) and bias (classes,), this is a suture map.")
    try:
        with safe_open(path, framework="pt") as f:
            metadata = dict(f.metadata() or {})
            tensors = {name: f.get_tensor(name).clone() for name in f.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise SutureError(f"{path}: expected a head file (.safetensors), but it cannot be read: {error}.") from error
    found = [n for n in tensors if n.rpartition(".")[2] == "weight"]
    shapes = ", ".join(f"{n} {tuple(t.shape)}" for n, t in tensors.items()) or "nothing"
    if len(found) != 1 or tensors[found[0]].ndim != 2 or not tensors[found[0]].is_floating_point():
        raise SutureError(
            f"{path}: expected one linear layer, a floating-point matrix called weight (classes, q), found {shapes}. "
            "Heads of several layers: suture.stitching.models.fold, or .onnx files."
        )
    name = found[0].rpartition(".")[0]
    weight = tensors.pop(found[0])
    bias = tensors.pop(f"{name}.bias" if name else "bias", None)
    try:
        require_bare(tensors, weight.shape[1])
        classes = classes_of(metadata.pop(CLASSES, None))
        return Head(weight, weight.new_zeros(len(weight)) if bias is None else bias, classes, name, tensors, metadata)
    except SutureError as error:
        raise SutureError(f"{path}: {error}") from error


def require_bare(tensors: Mapping[str, Tensor], dim: int) -> None:
    """Raises `SutureError` where tensors beside weight and bias say that more is done with rows of that width."""
    for name, tensor in tensors.items():
        statistics = name.rpartition(".")[2] in ("running_mean", "running_var")
        if statistics or (tensor.is_floating_point() and dim in tensor.shape):
            raise SutureError(
                f"expected weight and bias alone, found {name} {tuple(tensor.shape)} beside them: something is done "
                f"with the {dim} dims before the linear layer. In Python fold(alignment, module) takes batch norms, "
                "LayerNorm and scalers in; a tensor that has no part in the scores may be left out of the file."
            )


def classes_of(text: str | None) -> tuple[str | int, ...] | None:
    """The names of the classes, from a JSON list. Raises `SutureError` for anything else."""
    if text is None:
        return None
    try:
        names = json.loads(text)
    except json.JSONDecodeError as error:
        raise SutureError(f"metadata '{CLASSES}': expected a JSON list, it cannot be read ({error}).") from error
    if not isinstance(names, list):
        raise SutureError(f"metadata '{CLASSES}': expected a JSON list of strings or integers, got {text[:60]}.")
    return plain_names(names)


def plain_names(names: Iterable[Any]) -> tuple[str | int, ...]:
    """Names of classes as strings and Python integers. Raises `SutureError` for others, and for two that are alike."""
    plain: list[str | int] = []
    for name in names:
        whole = isinstance(name, float | np.floating) and float(name).is_integer()
        if isinstance(name, str):
            plain.append(str(name))
        elif whole or isinstance(name, int | np.integer | np.bool_):
            plain.append(int(name))
        else:
            raise SutureError(f"{CLASSES}: expected strings or whole numbers, got {name!r} ({type(name).__name__}).")
    text, times = Counter(map(str, plain)).most_common(1)[0] if plain else ("", 0)
    if times > 1:
        raise SutureError(f"{CLASSES}: expected names that differ as text, {text!r} stands there {times} times.")
    return tuple(plain)
