"""A classifier that is an ONNX model, for judging: scores by onnxruntime, the highest one chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...aligners.arrays import Array
from ...aligners.errors import SutureError
from .headfile import CLASSES, Head, classes_of, load_head
from .onnxfile import FLOATS, Session, dims, element, inputs_of, read_model, shown

__all__ = ["Chooser", "OnnxHead", "load_chooser"]

PROBES = 3


class Chooser(Protocol):
    """What chooses a class for each row: `Head` and `OnnxHead`."""

    @property
    def dim(self) -> int:
        """``q``, the width of the vectors that it takes."""

    @property
    def classes(self) -> tuple[str | int, ...] | None:
        """The names of its classes; None where it has none."""

    @property
    def labels(self) -> tuple[str | int, ...]:
        """What it can answer: names, or numbers from 0."""

    def choices(self, x: Array) -> Tensor:
        """``(n, q)`` to the number ``(n,)`` of the class of each row."""


class OnnxHead:
    """A model of one floating-point input ``(n, q)``, n open, and one floating-point output ``(n, c)``, the scores.

    Its classes are named in its metadata (``classes``, a JSON list). An output of labels ``(n,)`` is compared with what
    the highest score chooses, so that classes in another order cannot go unseen. Raises `SutureError` for models of
    other inputs and outputs.
    """

    def __init__(self, model: Any, what: str) -> None:
        self._what = what
        inputs, outputs = inputs_of(model), list(model.graph.output)
        scores = [each for each in outputs if element(each) in FLOATS]
        labels = [each for each in outputs if each not in scores and each.type.HasField("tensor_type")]
        shape = dims(inputs[0]) if len(inputs) == 1 else None
        if shape is None or element(inputs[0]) not in FLOATS or len(shape) != 2 or shape[0] or not shape[1]:
            raise SutureError(f"{what}: expected one input of floating-point rows (?, q), got {described(inputs)}.")
        if len(scores) != 1 or len(labels) > 1:
            raise SutureError(
                f"{what}: expected one output of floating-point scores (n, c), and at most one of labels, got "
                f"{described(outputs)}. Leave the others out (of scikit-learn models the ZipMap: zipmap=False)."
            )
        self.dim = int(shape[1])
        self._input, self._dtype = inputs[0].name, np.dtype(element(inputs[0]))
        self._outputs = [each.name for each in (*scores, *labels)]
        self._session = Session(model, what)
        (values, *_) = self._run(np.random.default_rng(0).normal(size=(PROBES, self.dim)))
        if values.ndim != 2 or len(values) != PROBES or values.shape[1] < 2:
            raise SutureError(
                f"{what}: expected scores (n, c) of at least two classes, got {values.shape} for {PROBES} rows."
            )
        named = {each.key: each.value for each in model.metadata_props}
        self.classes = classes_of(named.get(CLASSES))
        self.labels = tuple(range(values.shape[1])) if self.classes is None else self.classes
        if len(self.labels) != values.shape[1]:
            raise SutureError(f"{what}: its metadata names {len(self.labels)} classes, it has {values.shape[1]}.")

    def choices(self, x: Array) -> Tensor:
        """The number ``(n,)`` of the class with the highest score, the first of equals. Raises `SutureError` on NaN."""
        scores, *own = self._run(np.asarray(x))
        if not np.isfinite(scores).all():
            raise SutureError(f"{self._what}: expected finite scores, got NaN or infinity.")
        chosen = scores.argmax(1)
        for answers in own:
            wanted = np.array([str(label) for label in self.labels], object)[chosen]
            came = np.array([text(answer) for answer in answers.reshape(-1).tolist()], object)
            if came.shape != wanted.shape or (came != wanted).any():
                at = int((came != wanted).argmax()) if came.shape == wanted.shape else 0
                raise SutureError(
                    f"{self._what}: its output of labels says {came[at]!r} where the highest score is that of class "
                    f"{wanted[at]!r}. Name its classes in its metadata ('{CLASSES}', a JSON list in the order of the "
                    "scores), or leave that output out."
                )
        return torch.from_numpy(chosen)

    def _run(self, rows: Any) -> list[Any]:
        return [np.asarray(out) for out in self._session.run({self._input: rows.astype(self._dtype)}, *self._outputs)]


def text(answer: Any) -> str:
    """A label as text: some models give strings as bytes."""
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)


def described(values: list[Any]) -> str:
    """Inputs or outputs, with types and shapes."""
    return ", ".join(f"{v.name} {element(v)} {shown(dims(v))}" for v in values) or "none"


def load_chooser(path: str | Path) -> Head | OnnxHead:
    """The head in a file to be judged: .onnx (`OnnxHead`), else .safetensors (`load_head`). Raises as these do."""
    return OnnxHead(read_model(path), str(path)) if Path(path).suffix == ".onnx" else load_head(path)
