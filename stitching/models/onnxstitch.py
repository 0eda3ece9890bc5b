"""One ONNX model of three parts: new encoder, map, old decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...aligners.alignment import Alignment
from ...aligners.errors import RefusedError, SutureError, UsageError
from ...aligners.maps import Map
from ..dumps.extras import need
from .graph import OLDEST, Graph
from .onnxfile import (
    ROWS,
    Session,
    dims,
    element,
    in_short,
    inputs_of,
    is_half,
    port,
    read_model,
    require_agreement,
    write_model,
)
from .parts import Pool, pooled_by_hand, require_inputs, require_shapes
from .stitch import Unit, model_map

__all__ = ["stitch_onnx"]

Array = NDArray[Any]
PARTS = ("map/", "decoder/")


def stitch_onnx(
    encoder: str | Path,
    alignment: Alignment | Map,
    decoder: str | Path,
    out: str | Path,
    *,
    output: str | None = None,
    input_: str | None = None,
    pool: Pool = "none",
    mask: str = "attention_mask",
    side: str = "source",
    into: str = "target",
    normalize: Unit = "auto",
    probe: Mapping[str, Array] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the model that runs ``encoder``, the map and ``decoder`` to ``out``, and say what it takes and gives.

    ``output`` of the encoder goes to ``input_`` of the decoder, if there are several of floating-point numbers.
    ``pool`` makes one vector of a sequence ``(rows, tokens, p)``: their "mean" where the encoder's input ``mask`` is
    not 0, or the "first". The map works in float32; half-precision parts are met by casts. Lower opsets are converted
    to the highest of them. The result is run through onnxruntime against the three parts, on ``probe`` (inputs of the
    encoder) or generated inputs, with several rows and with one.
    Raises `SutureError` for models that cannot be read or run, `RefusedError` for parts that do not fit together;
    nothing is written then.
    """
    mapping = model_map(alignment, side=side, into=into, normalize=normalize)
    first, last = read_model(encoder), read_model(decoder)
    given = port(first.graph.output, output, f"{encoder}: outputs", "--encoder-output")
    taken = port(inputs_of(last), input_, f"{decoder}: inputs", "--decoder-input")
    ends = (given.name, dims(given)), (taken.name, dims(taken))
    require_shapes(str(encoder), ends[0], pool, mapping, str(decoder), ends[1])
    fix_rows(first, given, taken)
    whole = joined(first, last, given, taken, mapping, pool, mask, str(encoder), str(decoder))
    facts = verified(whole, first, last, given.name, taken.name, mapping, pool, mask, probe, str(encoder), str(decoder))
    write_model(whole, out, overwrite=overwrite)
    return {**facts, "opset": opset_of(whole), "path": str(out)}


def fix_rows(first: Any, given: Any, taken: Any) -> None:
    """Let an encoder of any number of rows take as many as the decoder does, where that is a fixed number."""
    came, wanted = given.type.tensor_type.shape.dim, dims(taken)
    if not wanted or len(wanted) < 2 or wanted[0] is None or not came or came[0].dim_value:
        return
    for each in inputs_of(first):
        axes = each.type.tensor_type.shape.dim
        if axes and not axes[0].dim_value and axes[0].dim_param == came[0].dim_param:
            axes[0].dim_value = wanted[0]


def joined(
    first: Any, last: Any, given: Any, taken: Any, mapping: Map, pool: Pool, mask: str, encoder: str, decoder: str
) -> Any:
    """The three parts as one model."""
    compose, helper, onnx = need("onnx.compose", "onnx"), need("onnx.helper", "onnx"), need("onnx", "onnx")
    opset = max(OLDEST, opset_of(first), opset_of(last))
    first, last = converted(first, opset, encoder), converted(last, opset, decoder)
    own = {n for each in first.graph.node for n in (*each.input, *each.output)} | {i.name for i in first.graph.input}
    outputs = [each.name for each in last.graph.output]
    own |= {each.name for each in first.graph.initializer}
    # A stitched model may be an encoder itself: then its names begin like ours.
    start = next(s for s in ("", *(f"{i}/" for i in range(2, 1000))) if not any(n.startswith(s or PARTS) for n in own))
    last = compose.add_prefix(last, f"{start}decoder/", rename_inputs=True, rename_outputs=bool(own & set(outputs)))
    between = Graph(f"{start}map/")
    x = between.op("Cast", given.name, to=onnx.TensorProto.FLOAT) if element(given) != "float32" else given.name
    if pool != "none":
        x = pooled(between, x, pool, mask, first, encoder)
    mapped = between.map(x, mapping)
    entry = f"{start}decoder/{taken.name}"
    kind = taken.type.tensor_type.elem_type
    between.nodes.append(helper.make_node("Cast", [mapped], [entry], name=f"{start}map/to_decoder", to=kind))
    rest = [each for each in last.graph.input if each.name != entry]
    graph = helper.make_graph(
        [*first.graph.node, *between.nodes, *last.graph.node],
        "stitched",
        [*first.graph.input, *rest],
        last.graph.output,
        [*first.graph.initializer, *between.constants, *last.graph.initializer],
        sparse_initializer=[*first.graph.sparse_initializer, *last.graph.sparse_initializer],
    )
    functions = {(f.domain, f.name): f for f in (*first.functions, *last.functions)}
    if len(functions) < len(first.functions) + len(last.functions):
        raise RefusedError(f"{encoder} and {decoder} define functions of the same name; export one without functions.")
    versions: dict[str, int] = {}
    for each in (*first.opset_import, *last.opset_import):
        name = "" if each.domain == "ai.onnx" else each.domain
        versions[name] = max(versions.get(name, 0), each.version)
    made = helper.make_model(
        graph,
        producer_name="suture",
        ir_version=max(first.ir_version, last.ir_version, 8),
        opset_imports=[helper.make_opsetid(name, version) for name, version in versions.items()],
        functions=list(functions.values()),
    )
    return without_idle_parts(made)


def without_idle_parts(model: Any) -> Any:
    """The model without nodes and weights that none of its outputs depends on: other outputs of the encoder's."""
    needed = {each.name for each in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= (set(node.input) | outer_names(node)) - {""}  # an input that is left out has no name
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    weights = [each for each in model.graph.initializer if each.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    ports = [each for each in model.graph.input if each.name in needed]
    del model.graph.input[:]
    model.graph.input.extend(ports)
    return model


def outer_names(node: Any) -> set[str]:
    """The names that the branches and bodies of a node refer to."""
    graphs = [g for a in node.attribute for g in ([a.g] if a.HasField("g") else []) + list(a.graphs)]
    inner = [each for g in graphs for each in g.node]
    ends = {each.name for g in graphs for each in g.output}
    return ends.union(*(set(each.input) | outer_names(each) for each in inner))


def pooled(graph: Graph, x: str, pool: Pool, mask: str, encoder: Any, what: str) -> str:
    """One vector of each sequence ``(rows, tokens, p)``."""
    if pool == "first":
        return graph.op("Gather", x, graph.const(0), axis=1)
    if mask not in [each.name for each in inputs_of(encoder)]:
        raise UsageError(
            f"{what}: --pool mean needs the input that marks the tokens, there is no '{mask}'; name it with --mask. It "
            f"has {', '.join(each.name for each in inputs_of(encoder))}."
        )
    onnx = need("onnx", "onnx")
    weights = graph.op("Unsqueeze", graph.op("Cast", mask, to=onnx.TensorProto.FLOAT), graph.const([-1]))
    total = graph.op("ReduceSum", graph.op("Mul", x, weights), graph.const([1]), keepdims=0)
    count = graph.op("ReduceSum", weights, graph.const([1]), keepdims=0)
    return graph.op("Div", total, graph.op("Max", count, graph.const(1e-9)))


def opset_of(model: Any) -> int:
    """The version of the standard operators that a model uses."""
    return max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=OLDEST)


def converted(model: Any, opset: int, what: str) -> Any:
    """The model in that opset. Raises `RefusedError` where it cannot be brought there."""
    if opset_of(model) == opset:
        return model
    try:
        return need("onnx.version_converter", "onnx").convert_version(model, opset)
    except Exception as error:  # the converter, written in C++, raises RuntimeError and others
        raise RefusedError(
            f"{what}: has opset {opset_of(model)}, the other part {opset}, and cannot be converted "
            f"({in_short(error)}); export it anew with opset {opset}."
        ) from error


def verified(
    whole: Any,
    first: Any,
    last: Any,
    output: str,
    entry: str,
    mapping: Map,
    pool: Pool,
    mask: str,
    probe: Mapping[str, Array] | None,
    encoder: str,
    decoder: str,
) -> dict[str, Any]:
    """What the model takes and gives, and how far it is from its parts on probes. Raises where it is too far."""
    one, two = Session(first, encoder), Session(last, decoder)
    half = is_half(first) or is_half(last)
    ports = [each.name for each in inputs_of(whole)]
    rename = {n: each.name for n in ports for each in two.inputs if n.endswith(f"decoder/{each.name}")}
    three: Session | None = None  # made once the encoder is known to give what the map takes
    worst, seen = 0.0, 0
    if probe is not None:
        require_inputs(probe, [each.name for each in one.inputs], encoder)
    for rows in (ROWS, 1) if probe is None else (None,):
        feeds = dict(one.probe(rows) if rows is not None else probe or {})
        try:
            vectors = np.asarray(one.run(feeds, output)[0], np.float32)
        except SutureError as error:
            if probe is not None:
                raise
            raise SutureError(f"{error} On generated inputs; give real ones with --probe FILE.npz.") from error
        if pool != "none":
            vectors = pooled_by_hand(vectors, pool, feeds.get(mask))
        if vectors.ndim == 0 or vectors.shape[-1] != mapping.source_dim:
            raise RefusedError(
                f"{encoder}: output '{output}' has shape {vectors.shape} on a probe, the map takes "
                f"{mapping.source_dim} dims."
            )
        inner = dict(two.probe(len(vectors)))
        inner[entry] = mapping(vectors).astype(inner[entry].dtype)
        feeds |= {name: inner[own] for name, own in rename.items() if own != entry}
        three = three or Session(whole, "the stitched model")
        worst = max(worst, require_agreement(three.run(feeds), two.run(inner), not half, "the stitched model"))
        seen += len(vectors)
    return {
        "inputs": [{"name": each.name, "type": element(each), "shape": dims(each)} for each in inputs_of(whole)],
        "outputs": [{"name": each.name, "type": element(each), "shape": dims(each)} for each in whole.graph.output],
        "map": {"kind": mapping.kind, "source_dim": mapping.source_dim, "target_dim": mapping.target_dim},
        "probe_rows": seen,
        "difference": worst,
    }
