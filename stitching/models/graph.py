"""A map as an ONNX graph, from operators that every opset from 13 on has: no tracing, one node an operation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...aligners.errors import SutureError
from ...aligners.maps import Affine, Chain, Identity, Map, Normalize
from ...aligners.multiway.fused import Fused
from ...aligners.named.sparse_code import SparseCode
from ...aligners.nonlinear.kinds import Landmark, Mixture, Residual
from ...aligners.relative.map import Product, Relative
from ..dumps.extras import need

__all__ = ["OPSET", "Graph", "map_model"]

OPSET = 17  # of what we write alone: old enough for the runtimes in use, and as much as any map needs
OLDEST = 13  # the first in which ReduceSum and Unsqueeze take their axes as inputs
IR = 8
Name = str


class Graph:
    """Nodes and constants on their way to a graph."""

    def __init__(self, prefix: str = "map/") -> None:
        self._helper, self._numpy = need("onnx.helper", "onnx"), need("onnx.numpy_helper", "onnx")
        self._prefix, self._count = prefix, 0
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def _fresh(self, what: str) -> Name:
        self._count += 1
        return f"{self._prefix}{what}_{self._count}"

    def op(self, kind: str, *inputs: Name, **attributes: Any) -> Name:
        """One node with one output; the output's name."""
        out = self._fresh(kind.lower())
        self.nodes.append(self._helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def const(self, value: Tensor | float | int | list[int], what: str = "constant") -> Name:
        """Floating-point numbers in float32, integers in int64; the name."""
        t = torch.as_tensor(value)
        t = t.to(torch.float32 if t.is_floating_point() else torch.int64)
        name = self._fresh(what)
        self.constants.append(self._numpy.from_array(t.detach().cpu().contiguous().numpy(), name))
        return name

    def sum_last(self, x: Name, *, keep: bool = True) -> Name:
        """The sum over the last axis."""
        return self.op("ReduceSum", x, self.const([-1]), keepdims=int(keep))

    def affine(self, x: Name, weight: Tensor, bias: Tensor) -> Name:
        """``x @ weight + bias``, for any number of axes before the last."""
        return self.op("Add", self.op("MatMul", x, self.const(weight, "weight")), self.const(bias, "bias"))

    def unit(self, x: Name) -> Name:
        """Rows of length 1; zero rows stay zero."""
        norm = self.op("Sqrt", self.sum_last(self.op("Mul", x, x)))
        return self.op("Div", x, self.op("Max", norm, self.const(torch.finfo(torch.float32).tiny ** 0.5)))

    def squared_distances(self, x: Name, points: Tensor) -> Name:
        """``||x_i - points_j||^2``, not below 0."""
        squares = self.op("Add", self.sum_last(self.op("Mul", x, x)), self.const(points.square().sum(1)))
        twice = self.op("MatMul", x, self.const(2 * points.T))
        return self.op("Max", self.op("Sub", squares, twice), self.const(0.0))

    def distances(self, x: Name, points: Tensor, p: float) -> Name:
        """``||x_i - points_j||_p`` by differences."""
        away = self.op("Sub", self.op("Unsqueeze", x, self.const([-2])), self.const(points))
        if p == 2:
            return self.op("Sqrt", self.sum_last(self.op("Mul", away, away), keep=False))
        away = self.op("Abs", away)
        # ReduceMax changes its signature at opset 18; the first of a sorted axis does not.
        return self.sum_last(away, keep=False) if p == 1 else self.first(away, largest=True)

    def first(self, x: Name, *, largest: bool) -> Name:
        """The largest or smallest along the last axis, which goes."""
        values, indices = self._fresh("topk"), self._fresh("entry")
        one = self.const([1])
        self.nodes.append(
            self._helper.make_node("TopK", [x, one], [values, indices], name=values, axis=-1, largest=int(largest))
        )
        return self.op("Squeeze", values, self.const([-1]))

    def nearest(self, x: Name, k: int) -> tuple[Name, Name]:
        """The k smallest along the last axis, and where they stand."""
        values, indices = self._fresh("topk"), self._fresh("entry")
        self.nodes.append(
            self._helper.make_node("TopK", [x, self.const([k])], [values, indices], name=values, axis=-1, largest=0)
        )
        return values, indices

    def map(self, x: Name, mapping: Map) -> Name:
        """The map of ``x`` ``(..., p)``."""
        for kind, build in BUILDERS.items():
            if isinstance(mapping, kind):
                return build(self, x, mapping)
        raise SutureError(f"a map of kind {mapping.kind} cannot be written as ONNX; export it as .pt2.")

    def round_to(self, x: Name, step: float) -> Name:
        """Multiples of ``step``."""
        return self.op("Mul", self.op("Round", self.op("Div", x, self.const(step))), self.const(step))


def map_model(mapping: Map, opset: int = OPSET, *, x: Name = "vectors", out: Name = "mapped") -> Any:
    """The model of one map: input ``(rows, p)`` and output ``(rows, q)``, float32. Needs the extra ``onnx``."""
    onnx, helper = need("onnx", "onnx"), need("onnx.helper", "onnx")
    graph = Graph()
    last = graph.map(x, mapping)
    graph.nodes.append(helper.make_node("Identity", [last], [out], name=f"map/{out}"))

    def port(name: Name, dim: int) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", dim])

    made = helper.make_graph(
        graph.nodes, "map", [port(x, mapping.source_dim)], [port(out, mapping.target_dim)], graph.constants
    )
    return helper.make_model(
        made, producer_name="suture", ir_version=IR, opset_imports=[helper.make_opsetid("", max(opset, OLDEST))]
    )


def _chain(g: Graph, x: Name, m: Chain) -> Name:
    for part in m.maps:
        x = g.map(x, part)
    return x


def _residual(g: Graph, x: Name, m: Residual) -> Name:
    hidden = g.affine(x, m.inner, m.inner_bias)
    phi = g.op("Add", g.op("Erf", g.op("Mul", hidden, g.const(0.5**0.5))), g.const(1.0))
    gelu = g.op("Mul", g.op("Mul", hidden, phi), g.const(0.5))
    return g.op("Add", g.affine(x, m.weight, m.bias), g.op("MatMul", gelu, g.const(m.outer)))


def _landmark(g: Graph, x: Name, m: Landmark) -> Name:
    away = g.squared_distances(g.op("Sub", x, g.const(m.centre)), m.landmarks)
    features = g.op("Exp", g.op("Mul", away, g.const(-float(m.gamma))))
    return g.op("Add", g.affine(x, m.weight, m.bias), g.op("MatMul", features, g.const(m.outer)))


def _mixture(g: Graph, x: Name, m: Mixture) -> Name:
    middle = m.centres.mean(0)
    centres = m.centres - middle
    scores = g.affine(g.op("Sub", x, g.const(middle)), 2 * centres.T, -centres.square().sum(1))
    gates = g.op("Softmax", g.op("Mul", scores, g.const(float(m.sharpness))), axis=-1)
    out = g.op("MatMul", gates, g.const(m.bias))
    for k, weight in enumerate(m.weight):
        gate = g.op("Gather", gates, g.const([k]), axis=-1)
        out = g.op("Add", out, g.op("Mul", gate, g.op("MatMul", x, g.const(weight))))
    return out


def _relative(g: Graph, x: Name, m: Relative) -> Name:
    if m.quantised == "coordinates":
        x = g.round_to(x, m.step)
    s = _similarities(g, g.op("Sub", x, g.const(m.centre)), m)
    if m.quantised == "similarities":
        s = g.round_to(s, m.step)
    elif m.quantised == "smooth":
        wave = g.op("Sin", g.op("Mul", s, g.const(2 * math.pi / m.step)))
        s = g.op("Sub", s, g.op("Mul", wave, g.const(m.step / (2 * math.pi))))
    s = g.op("Mul", g.op("Sub", s, g.const(m.shift)), g.const(m.gain))
    return g.op("Mul", g.unit(s) if m.unit else s, g.const(float(m.weight)))


def _similarities(g: Graph, z: Name, m: Relative) -> Name:
    if m.readout == "linear":
        return g.op("MatMul", z, g.const(m.anchors.T))
    if m.readout in ("cosine", "angular"):
        cosine = g.op("MatMul", g.unit(z), g.const(torch.nn.functional.normalize(m.anchors, dim=-1).T))
        if m.readout == "cosine":
            return cosine
        inside = g.op("Max", g.op("Min", cosine, g.const(1.0)), g.const(-1.0))
        return g.op("Div", g.op("Acos", inside), g.const(math.pi))
    if m.readout == "geodesic":
        assert m.nodes is not None  # a geodesic map has its graph
        assert m.paths is not None
        away, entry = g.nearest(g.distances(z, m.nodes, 2.0), m.neighbours)
        through = g.op("Add", g.op("Unsqueeze", away, g.const([-1])), g.op("Gather", g.const(m.paths), entry, axis=0))
        last_two = g.op("Transpose", through, perm=[0, 2, 1])  # of rows, anchors, neighbours
        return g.first(last_two, largest=False)
    return g.distances(z, m.anchors, {"euclidean": 2.0, "l1": 1.0, "linf": math.inf}[m.readout])


def _product(g: Graph, x: Name, m: Product) -> Name:
    parts = [g.map(x, part) for part in m.parts]
    if not m.average:
        return g.op("Concat", *parts, axis=-1)
    return g.op("Div", g.op("Sum", *parts), g.const(float(len(parts))))


def _sparse_code(g: Graph, x: Name, m: SparseCode) -> Name:
    gram, zero = g.const(m.step * (m.concepts @ m.concepts.T)), g.const(0.0)
    u = g.unit(g.op("Sub", x, g.const(m.centre)))
    pull = g.affine(u, m.step * m.concepts.T, m.concepts.new_full((len(m.concepts),), -m.step * m.penalty))
    code = ahead = g.op("Mul", pull, zero)
    for momentum in m.momenta():
        found = g.op("Max", g.op("Add", g.op("Sub", ahead, g.op("MatMul", ahead, gram)), pull), zero)
        ahead = g.op("Add", found, g.op("Mul", g.op("Sub", found, code), g.const(momentum)))
        code = found
    return code


def _fused(g: Graph, x: Name, m: Fused) -> Name:
    parts, start = [], 0
    for dim, weight, bias in zip(m.dims, torch.split(m.weight, list(m.dims)), m.bias - m.centre, strict=True):
        own = g.op("Slice", x, g.const([start]), g.const([start + dim]), g.const([-1]))
        parts.append(g.unit(g.affine(own, weight, bias)))
        start += dim
    gates = g.const(m.gate.softmax(-1))
    if m.router is not None:
        gates = g.op("Softmax", g.affine(g.op("Concat", *parts, axis=-1), m.router, m.gate), axis=-1)
    weighted = [g.op("Mul", part, g.op("Gather", gates, g.const([k]), axis=-1)) for k, part in enumerate(parts)]
    long = g.op("Mul", g.unit(g.op("Sum", *weighted)), g.const(float(m.length)))
    return g.op("Add", long, g.const(m.centre))


BUILDERS: dict[type[Map], Callable[[Graph, Name, Any], Name]] = {
    Affine: lambda g, x, m: g.affine(x, m.weight, m.bias),
    Identity: lambda g, x, m: g.op("Identity", x),
    Normalize: lambda g, x, m: g.unit(x),
    Chain: _chain,
    Residual: _residual,
    Landmark: _landmark,
    Mixture: _mixture,
    Relative: _relative,
    Product: _product,
    SparseCode: _sparse_code,
    Fused: _fused,
}
