"""Folding an affine map into the first layer of an ONNX head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...aligners.alignment import Alignment
from ...aligners.errors import RefusedError
from ...aligners.maps import Affine, Map
from ..dumps.extras import need
from .fold import affine_map, probe_rows
from .layers import fold_numbers, stored
from .onnxfile import Session, dims, inputs_of, is_half, port, require_agreement, shown

__all__ = ["fold_onnx"]

Numbers = NDArray[Any]
TRANSPARENT = ("Identity", "Dropout")


class Editor:
    """A head whose constants and nodes are replaced."""

    def __init__(self, model: Any, mapping: Affine) -> None:
        self._numpy, self._helper = need("onnx.numpy_helper", "onnx"), need("onnx.helper", "onnx")
        self.model, self.mapping = model, mapping
        self._constants = {each.name: each for each in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].HasField("t"):
                self._constants[node.output[0]] = node.attribute[0].t

    def constant(self, name: str, node: Any) -> Numbers:
        """The numbers of that name. Raises `RefusedError` for weights that are computed."""
        if name not in self._constants:
            raise RefusedError(f"the head: '{name}' of {node.op_type} is computed by the model, not stored in it.")
        return np.asarray(self._numpy.to_array(self._constants[name]))

    def known(self, name: str) -> bool:
        """Whether these are numbers stored in the model."""
        return name in self._constants

    def store(self, value: Numbers, like: Numbers, what: str) -> str:
        """A new constant in the dtype of another; its name. The old one stays for whoever else needs it."""
        name = next(n for i in range(1000) if (n := f"folded/{what}_{i}") not in self._constants)
        kind = torch.from_numpy(np.empty(0, like.dtype)).dtype
        numbers = stored(torch.from_numpy(np.ascontiguousarray(value, np.float64)), kind).numpy()
        tensor = self._numpy.from_array(numbers, name)
        self.model.graph.initializer.append(tensor)
        self._constants[name] = tensor
        return name

    def consumers(self, name: str) -> list[Any]:
        """The nodes that take that value."""
        return [node for node in self.model.graph.node if name in node.input]

    def folded(self, weight: Numbers, bias: Numbers | None) -> tuple[Numbers, Numbers]:
        """`fold_numbers` for numpy, float64."""
        w = torch.from_numpy(weight.astype(np.float64))
        b = None if bias is None else torch.from_numpy(np.ascontiguousarray(bias.astype(np.float64)))
        new, shift = fold_numbers(self.mapping, w, b)
        return new.numpy(), shift.numpy()

    def insert_after(self, node: Any, made: Any) -> None:
        """Put a node behind another."""
        at = list(self.model.graph.node).index(node)
        self.model.graph.node.insert(at + 1, made)


def fold_onnx(
    model: Any, alignment: Alignment | Map, *, input_: str | None = None, what: str = "the head"
) -> tuple[Any, float]:
    """A copy of an ONNX head that takes vectors of the source space, and how far it is from map and head.

    They are run through onnxruntime; outputs must be equal to 1e-5 of the largest, to 2e-2 in half precision.
    What takes the head's input may be Gemm, MatMul (and Add), Conv without padding, or the linear classifier and
    regressor of scikit-learn models. Raises `RefusedError` for other operators and other widths.
    """
    onnx = need("onnx", "onnx")
    mapping = affine_map(alignment)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    taken = port(inputs_of(made), input_, f"{what}: inputs", "--head-input")
    editor = Editor(made, mapping)
    axis = fold_consumers(editor, taken.name, what)
    came = dims(taken) or []
    if len(came) >= abs(axis) and came[axis] not in (None, mapping.target_dim):
        raise RefusedError(
            f"{what}: its input has shape {shown(came)}, the map gives {mapping.target_dim} dims. Is the map the right "
            "way round?"
        )
    shape = taken.type.tensor_type.shape
    if len(shape.dim) > abs(axis):
        shape.dim[axis].Clear()
        shape.dim[axis].dim_value = mapping.source_dim
    del made.graph.value_info[:]  # shapes of what stands between may have changed
    drop_unused(made)
    return made, verify(model, made, alignment, mapping, taken.name, axis, what)


def fold_consumers(editor: Editor, name: str, what: str) -> int:
    """Fold into all that takes the value ``name``; the axis of its vectors."""
    axes = set()
    nodes = editor.consumers(name)
    if not nodes or name in [each.name for each in editor.model.graph.output]:
        raise RefusedError(f"{what}: its input goes straight to an output; there is nothing to fold a map into.")
    for node in nodes:
        if node.op_type in TRANSPARENT:
            axes.add(fold_consumers(editor, node.output[0], what))
            continue
        if node.op_type not in FOLDS or list(node.input).count(name) > 1 or node.input[0] != name:
            raise RefusedError(
                f"{what}: its input goes to {node.op_type}, a map can be folded only into {', '.join(FOLDS)}; put the "
                "map between as a model of its own (suture stitch)."
            )
        axes.add(FOLDS[node.op_type](editor, node))
    if len(axes) > 1:
        raise RefusedError(f"{what}: its input is taken as vectors along different axes.")
    return axes.pop()


def attributes(node: Any) -> dict[str, Any]:
    """The attributes of a node by name."""
    helper = need("onnx.helper", "onnx")
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def gemm(editor: Editor, node: Any) -> int:
    """``alpha x B + beta C``."""
    at = attributes(node)
    alpha, beta, turned = at.get("alpha", 1.0), at.get("beta", 1.0), at.get("transB", 0)
    if at.get("transA", 0):
        raise RefusedError("the head: a Gemm that transposes its input cannot absorb a map.")
    b = editor.constant(node.input[1], node)
    weight = alpha * (b if turned else b.T).astype(np.float64)
    bias = None
    if len(node.input) > 2 and node.input[2]:
        c = editor.constant(node.input[2], node)
        if not same_for_rows(c, len(weight)):
            raise RefusedError(
                f"the head: its Gemm adds numbers of shape {c.shape}, which differ from row to row; a map can be "
                f"folded only where they are the same {len(weight)} for each."
            )
        bias = beta * np.broadcast_to(c.reshape(-1), (len(weight),))
    new, shift = editor.folded(weight, bias)
    node.input[1] = editor.store(new if turned else new.T, b, "weight")
    name = editor.store(shift, b, "bias")
    if len(node.input) > 2:
        node.input[2] = name
    else:
        node.input.append(name)
    for each in node.attribute:
        if each.name in ("alpha", "beta"):
            each.f = 1.0
    return -1


def same_for_rows(bias: Numbers, width: int) -> bool:
    """Whether these numbers, added to ``(rows, width)``, are the same for each row."""
    return bias.size == 1 or (bias.size == width and bias.shape[-1] == width)


def matmul(editor: Editor, node: Any) -> int:
    """``x B``, and the Add behind it where there is one."""
    b = editor.constant(node.input[1], node)
    if b.ndim != 2:
        raise RefusedError(f"the head: expected a matrix in MatMul, got shape {b.shape}.")
    after = editor.consumers(node.output[0])
    add = after[0] if len(after) == 1 and after[0].op_type == "Add" else None
    other = None if add is None else next((n for n in add.input if n != node.output[0]), None)
    bias = editor.constant(other, add) if other is not None and editor.known(other) else None
    if bias is not None and not same_for_rows(bias, b.shape[1]):
        bias = None
    plain = None if bias is None else np.broadcast_to(bias.reshape(-1), (b.shape[1],))
    new, shift = editor.folded(b.T, plain)
    node.input[1] = editor.store(new.T, b, "weight")
    name = editor.store(shift, b, "bias")
    if bias is not None and add is not None:
        add.input[list(add.input).index(other)] = name
    elif shift.any():
        out, inner = node.output[0], f"folded/{node.output[0]}"
        node.output[0] = inner
        editor.insert_after(node, editor._helper.make_node("Add", [inner, name], [out], name=f"folded/add_{out}"))
    return -1


def conv(editor: Editor, node: Any) -> int:
    """A convolution without padding."""
    at = attributes(node)
    padded = any(at.get("pads", [])) or at.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    if padded or at.get("group", 1) != 1:
        raise RefusedError("the head: only convolutions in one group and without padding can be folded exactly.")
    weight = editor.constant(node.input[1], node)
    bias = editor.constant(node.input[2], node) if len(node.input) > 2 and node.input[2] else None
    new, shift = editor.folded(weight, bias)
    node.input[1] = editor.store(new, weight, "weight")
    name = editor.store(shift, weight, "bias")
    if len(node.input) > 2:
        node.input[2] = name
    else:
        node.input.append(name)
    return 1


def linear_model(editor: Editor, node: Any) -> int:
    """The linear classifier and regressor of ai.onnx.ml, whose numbers are attributes."""
    at = attributes(node)
    coefficients, dim = np.asarray(at.get("coefficients", []), np.float64), editor.mapping.target_dim
    bias = np.asarray(at["intercepts"], np.float64) if at.get("intercepts") else None
    rows = at.get("targets", 1) if bias is None else len(bias)  # a classifier without intercepts cannot be run
    if len(coefficients) != rows * dim:
        raise RefusedError(
            f"the head: {node.op_type} has {len(coefficients)} coefficients for {rows} outputs, not of the {dim} dims "
            "that the map gives. Is the map the right way round?"
        )
    weight = coefficients.reshape(-1, dim)
    new, shift = editor.folded(weight, bias)
    kept = [each for each in node.attribute if each.name not in ("coefficients", "intercepts")]
    del node.attribute[:]
    node.attribute.extend(kept)
    for key, value in (("coefficients", new.ravel()), ("intercepts", shift)):
        node.attribute.append(editor._helper.make_attribute(key, value.astype(np.float32).tolist()))
    return -1


FOLDS: dict[str, Callable[[Editor, Any], int]] = {
    "Gemm": gemm,
    "MatMul": matmul,
    "Conv": conv,
    "LinearClassifier": linear_model,
    "LinearRegressor": linear_model,
}


def drop_unused(model: Any) -> None:
    """Remove the numbers that were replaced, so that the head is not larger than it must be."""
    used = {name for node in model.graph.node for name in node.input} | {each.name for each in model.graph.output}
    inner = any(a.HasField("g") or a.graphs for node in model.graph.node for a in node.attribute)
    if inner:
        return  # a branch may refer to them
    kept = [each for each in model.graph.initializer if each.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    names = {each.name for each in kept}
    ports = [each for each in model.graph.input if each.name in used or each.name in names]
    del model.graph.input[:]
    model.graph.input.extend(ports)
    nodes = [each for each in model.graph.node if each.op_type != "Constant" or each.output[0] in used]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def verify(
    model: Any, made: Any, alignment: Alignment | Map, mapping: Affine, name: str, axis: int, what: str
) -> float:
    """Run both: the new head on rows, the old one on mapped rows."""
    old, new = Session(model, what), Session(made, "the folded head")
    rows = probe_rows(alignment, mapping).double()
    fixed = next(each.shape for each in new.inputs if each.name == name)
    rows = rows[: fixed[0] if isinstance(fixed[0], int) else len(rows)]
    feeds, mapped = new.probe(len(rows)), old.probe(len(rows))
    sides = feeds[name].shape[2:] if axis == 1 else feeds[name].shape[1:-1]
    place = (slice(None), slice(None), *[None] * len(sides)) if axis == 1 else (slice(None), *[None] * len(sides))
    x = rows.numpy()[place] + np.zeros(feeds[name].shape)
    y = np.moveaxis(mapping(np.ascontiguousarray(np.moveaxis(x, axis, -1))), -1, axis)
    feeds[name], mapped[name] = x.astype(feeds[name].dtype), y.astype(mapped[name].dtype)
    mapped |= {k: v for k, v in feeds.items() if k != name}
    return require_agreement(new.run(feeds), old.run(mapped), not is_half(model), "the folded head", exact=1e-5)
