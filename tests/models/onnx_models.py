"""Small ONNX models: encoders of vectors, images and tokens, and heads, at any opset and precision."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

P, Q, C = 6, 4, 3
FLOAT, HALF, INT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
Array = NDArray[Any]


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def port(name: str, kind: int, *shape: Any) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def build(
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    constants: dict[str, Array],
    opset: int = 17,
    ml: bool = False,
) -> Path:
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "model", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid("ai.onnx.ml", 3)] if ml else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, [output], **attributes)


def vectors_encoder(
    folder: Path, *, p: int = P, rows: Any = "n", opset: int = 17, half: bool = False, width: Any = None
) -> Path:
    """``x (n, 5)`` to ``tanh(x W)`` ``(n, p)``."""
    weight = numbers(1, 5, p)
    kind = HALF if half else FLOAT
    return build(
        folder / "encoder.onnx",
        [node("MatMul", ["x", "weight"], "inner"), node("Tanh", ["inner"], "vectors")],
        [port("x", kind, rows, 5)],
        [port("vectors", kind, rows, p if width is None else width)],
        {"weight": weight.astype(np.float16) if half else weight},
        opset,
    )


def tokens_encoder(folder: Path) -> Path:
    """``input_ids``, ``attention_mask`` ``(n, t)`` to ``tokens`` ``(n, t, p)``; and a count that nobody needs."""
    return build(
        folder / "tokens.onnx",
        [
            node("Gather", ["table", "input_ids"], "tokens"),
            node("ReduceSum", ["attention_mask", "last"], "count", keepdims=0),
        ],
        [port("input_ids", INT, "n", "t"), port("attention_mask", INT, "n", "t")],
        [port("tokens", FLOAT, "n", "t", P), port("count", INT, "n")],
        {"table": numbers(2, 100, P), "last": np.array([1])},
    )


def head(folder: Path, kind: str = "Gemm", *, q: int = Q, opset: int = 17, half: bool = False, rows: Any = "n") -> Path:
    """``vectors (n, q)`` to ``scores (n, C)``, the first layer being of that ``kind``."""
    w, b = numbers(3, C, q), numbers(4, C)
    if half:
        w, b = w.astype(np.float16), b.astype(np.float16)
    nodes = {
        "Gemm": [node("Gemm", ["vectors", "w", "b"], "scores", transB=1)],
        "Gemm alpha": [node("Gemm", ["vectors", "wt", "b"], "scores", alpha=0.5, beta=2.0)],
        "Gemm no bias": [node("Gemm", ["vectors", "w"], "scores", transB=1)],
        "MatMul": [node("MatMul", ["vectors", "wt"], "scores")],
        "MatMul Add": [
            node("Identity", ["vectors"], "same"),
            node("MatMul", ["same", "wt"], "inner"),
            node("Add", ["inner", "b"], "scores"),
        ],
        "Gemm rows": [node("Gemm", ["vectors", "w", "c"], "scores", transB=1)],
        "Gemm square": [node("Gemm", ["vectors", "w", "column"], "scores", transB=1)],
        "doubled": [node("MatMul", ["vectors", "wt"], "inner"), node("Add", ["inner", "inner"], "scores")],
        "two": [
            node("Gemm", ["vectors", "w", "b"], "one", transB=1),
            node("MatMul", ["vectors", "wt"], "other"),
            node("Mul", ["one", "other"], "scores"),
        ],
        "Relu": [node("Relu", ["vectors"], "positive"), node("MatMul", ["positive", "wt"], "scores")],
    }[kind]
    used = {name for each in nodes for name in each.input}
    more = {"c": numbers(5, 2, C), "column": numbers(6, C, 1)}
    constants = {k: v for k, v in {"w": w, "wt": np.ascontiguousarray(w.T), "b": b, **more}.items() if k in used}
    element = HALF if half else FLOAT
    ports = [port("vectors", element, rows, q)], [port("scores", element, rows, C)]
    return build(folder / "head.onnx", nodes, *ports, constants, opset)


def conv_head(folder: Path, size: int = 1, pads: int = 0) -> Path:
    return build(
        folder / "head.onnx",
        [node("Conv", ["features", "w"], "scores", pads=[pads] * 4)],
        [port("features", FLOAT, "n", Q, "h", "w")],
        [port("scores", FLOAT, "n", C, None, None)],
        {"w": numbers(5, C, Q, size, size)},
    )


def classifier_head(folder: Path, *, q: int = Q, classes: int = C, width: Any = None) -> Path:
    """As scikit-learn's logistic regression is written: labels and scores."""
    made = helper.make_node(
        "LinearClassifier",
        ["vectors"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        coefficients=numbers(3, classes * q).tolist(),
        intercepts=numbers(4, classes).tolist(),
        classlabels_ints=list(range(7, 7 + classes)),
        post_transform="SOFTMAX",
    )
    ports = [port("vectors", FLOAT, "n", width or q)], [port("label", INT, "n"), port("scores", FLOAT, "n", classes)]
    return build(folder / "head.onnx", [made], *ports, {}, ml=True)


def run(path: Path, **feeds: Array) -> list[Any]:
    """What onnxruntime gives, by itself."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))
