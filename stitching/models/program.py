"""Torch programs (`torch.export`, .pt2) read without running anything of the file but tensor operations.

`torch.export.load` is for files that one trusts: it unpickles sample inputs, custom objects and weights that ask for
it, evaluates the expressions of sizes (`sympy.sympify`) and executes the guards (``guards_code``), which are strings in
the file. Here the graph, which is JSON, is walked node by node: operations are looked up in ``torch.ops.aten``, weights
are raw bytes, and all else in the archive stays unread.
"""

from __future__ import annotations

import json
import operator
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from ...aligners.errors import RefusedError, SutureError

__all__ = ["Port", "Program", "read_program"]

MAJOR = 8  # of the schema, torch/_export/serde/schema.py; a minor step adds fields
EXPORT_ANEW = "export it anew with torch.export.save in eval mode, or as ONNX"
DTYPES = {
    **{1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16},
    **{7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16},
}
FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
STRIDED = 7
SYMBOL = re.compile(r"Symbol\('(\w+)'(, \w+=True)*\)|(\w+)")
SIZES = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "mod", "truediv", "neg", "pow")},
    **{name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "getitem")},
}
TORCH = {"sym_max": torch.sym_max, "sym_min": torch.sym_min, "sym_float": torch.sym_float, "sym_not": torch.sym_not}
# They check what was so when the program was exported, and are made anew for the stitched one.
CHECKS = re.compile(r"torch\.ops\.aten\.(_assert\w*|sym_constrain_range\w*)\.\w+")
# All of aten computes on tensors that it is given, but for what opens files.
FORBIDDEN = ("from_file",)


@dataclass(frozen=True)
class Port:
    """An input or output: its ``name``, its ``dtype``, and a size or the name of an open one for each axis.

    ``example``: sizes that it had when it was exported; ``keyword``: whether the program takes it by name.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]
    example: tuple[int, ...]
    keyword: bool = False


class Program(nn.Module):
    """The graph of a torch program as a module: takes its inputs, gives a tensor, a tuple or a dict of them.

    ``ranges``: least and most of each open size.
    """

    def __init__(
        self,
        nodes: list[dict[str, Any]],
        held: Mapping[str, Tensor],
        inputs: tuple[Port, ...],
        outputs: tuple[Port, ...],
        shape: str,
        ranges: Mapping[str, tuple[int, int | None]],
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.ranges = inputs, outputs, dict(ranges)
        self._nodes = [(n, operation(n["target"])) for n in nodes if not CHECKS.fullmatch(n["target"])]
        self._shape = shape
        self._held = list(held)
        for i, value in enumerate(held.values()):
            self.register_buffer(f"held_{i}", value)

    def forward(self, *given: Tensor, **named: Tensor) -> Any:
        """Run it. Inputs as they were exported: by position, or by name."""
        results = self.results(*given, **named)
        if self._shape == "one":
            return results[0]
        return tuple(results) if self._shape == "tuple" else dict(zip(self._shape.split("\n"), results, strict=True))

    @property
    def names(self) -> tuple[str, ...]:
        """What its outputs are called: the keys where it gives a dict, else the names that they have in the graph."""
        inner = tuple(port.name for port in self.outputs)
        return inner if self._shape in ("one", "tuple") else tuple(self._shape.split("\n"))

    def results(self, *given: Tensor, **named: Tensor) -> list[Tensor]:
        """All outputs in order."""
        own = [port.name for port in self.inputs if not port.keyword]
        values: dict[str, Any] = {name: getattr(self, f"held_{i}") for i, name in enumerate(self._held)}
        values |= dict(zip(own, given, strict=True)) | named
        for node, run in self._nodes:
            arguments = {each["name"]: value_of(each["arg"], values) for each in node["inputs"]}
            aten = node["target"].startswith("torch.ops")
            store(node["outputs"], run(**arguments) if aten else run(*arguments.values()), values)
        return [values[port.name] for port in self.outputs]


def operation(target: str) -> Any:
    """What a node calls. Raises `RefusedError` for anything but operations of aten and arithmetic on sizes."""
    kind, _, name = target.rpartition(".")
    if kind == "_operator" and name in SIZES:
        return SIZES[name]
    if kind == "torch" and name in TORCH:
        return TORCH[name]
    found = re.fullmatch(r"torch\.ops\.aten\.(\w+)\.(\w+)", target)
    if found and found[1] not in FORBIDDEN:
        overload = getattr(getattr(torch.ops.aten, found[1], None), found[2], None)
        if isinstance(overload, torch._ops.OpOverload):
            return overload
    raise RefusedError(f"it calls {target[:80]}, which is no operation of torch's own (aten); {EXPORT_ANEW}.")


def value_of(argument: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """An argument of a node: a value that was computed, or a constant."""
    ((kind, value),) = argument.items()
    one = kind.removesuffix("s")
    if kind == "as_none":
        return None
    if kind in ("as_int", "as_ints", "as_bool", "as_bools", "as_string", "as_strings", "as_int_lists"):
        return value
    if kind in ("as_tensor", "as_sym_int", "as_sym_bool", "as_sym_float", "as_optional_tensor"):
        return named_value(value, values)
    if kind == "as_nested_tensors":
        return [[values[each["name"]] for each in row] for row in value]
    if one in ("as_tensor", "as_sym_int", "as_sym_bool", "as_sym_float", "as_optional_tensor"):
        return [named_value(each, values) for each in value]
    if one == "as_float":
        return float(value) if kind == one else [float(each) for each in value]
    if kind == "as_scalar_type" and value in DTYPES:
        return DTYPES[value]
    if kind == "as_memory_format" and value in FORMATS:
        return FORMATS[value]
    if kind == "as_layout" and value == STRIDED:
        return torch.strided
    if kind == "as_device":
        return torch.device("cpu")
    raise RefusedError(f"it has an argument of kind {kind}, which is not read here; {EXPORT_ANEW}.")


def named_value(value: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """What a name stands for, or the number beside it."""
    if "name" in value:
        return values[value["name"]]
    ((kind, inner),) = value.items()
    if kind == "as_none":
        return None
    if kind == "as_name":
        return values[inner]
    return named_value(inner, values) if kind == "as_tensor" else inner


def store(outputs: list[Mapping[str, Any]], result: Any, values: dict[str, Any]) -> None:
    """Keep what a node gave under its names."""
    if len(outputs) == 1 and "as_tensors" in outputs[0]:
        outputs = [{"as_tensor": each} for each in outputs[0]["as_tensors"]]
        results = list(result)
    else:
        results = list(result) if len(outputs) > 1 else [result]
    for each, value in zip(outputs, results, strict=False):
        ((kind, inner),) = each.items()
        if kind != "as_none":
            values[inner["name"] if "name" in inner else inner["as_name"]] = value


def read_program(path: str | Path | BinaryIO, what: str | None = None) -> Program:
    """The program in a .pt2 file, by PyTorch 2.8 or later, on the CPU. Nothing is unpickled, evaluated or executed.

    Raises `SutureError` for a file that is none, `RefusedError` for a program that needs more than tensors and aten.
    """
    what = str(path) if what is None else what
    if isinstance(path, str | Path) and not Path(path).is_file():
        raise SutureError(f"{what}: expected a torch program (.pt2), but there is no such file.")
    try:
        with zipfile.ZipFile(path) as archive:
            return program_in(archive)
    except SutureError as error:
        raise type(error)(f"{what}: {error}") from error
    except (
        zipfile.BadZipFile,
        OSError,
        KeyError,
        ValueError,
        TypeError,
        IndexError,
        AttributeError,
        RuntimeError,
    ) as e:
        raise SutureError(
            f"{what}: expected a torch program of torch.export.save (.pt2), it cannot be read ({type(e).__name__}: "
            f"{str(e).splitlines()[0][:120] if str(e) else ''})."
        ) from e


def program_in(archive: zipfile.ZipFile) -> Program:
    """The same from the opened archive."""
    root = archive.namelist()[0].partition("/")[0]

    def record(name: str) -> bytes:
        return archive.read(f"{root}/{name}")

    if record("archive_format") != b"pt2" or record("byteorder") != b"little":
        raise SutureError("expected a little-endian archive of the format pt2.")
    names = [n for n in archive.namelist() if n.startswith(f"{root}/models/")]
    if names != [f"{root}/models/model.json"]:
        raise RefusedError(f"expected one program called model, found {', '.join(names)[:200] or 'none'}.")
    about = json.loads(record("models/model.json"))
    version = about["schema_version"]
    if version["major"] != MAJOR:
        raise RefusedError(f"expected schema version {MAJOR}, got {version['major']}; {EXPORT_ANEW}.")
    module = about["graph_module"]
    graph, signature = module["graph"], module["signature"]
    weights = tensors(record, "weights", json.loads(record("data/weights/model_weights_config.json"))["config"])
    weights |= tensors(record, "constants", json.loads(record("data/constants/model_constants_config.json"))["config"])

    held: dict[str, Tensor] = {}
    taken: list[str] = []
    for spec in signature["input_specs"]:
        ((kind, value),) = spec.items()
        if kind == "user_input" and "as_tensor" in value["arg"]:
            taken.append(value["arg"]["as_tensor"]["name"])
        elif kind in ("parameter", "buffer", "tensor_constant"):
            held[value["arg"]["name"]] = weights[value[f"{kind}_name"]]
        elif kind != "constant_input":
            raise RefusedError(f"expected inputs that are tensors, it takes {kind} {str(value)[:60]}; {EXPORT_ANEW}.")
    given = []
    for spec in signature["output_specs"]:
        ((kind, value),) = spec.items()
        if kind != "user_output" or "as_tensor" not in value["arg"]:
            raise RefusedError(f"expected outputs that are tensors, it has a {kind}; {EXPORT_ANEW}.")
        given.append(value["arg"]["as_tensor"]["name"])
    entry = next(each["signature"] for each in module["module_call_graph"] if each["fqn"] == "")
    places, by_name = (child["children_spec"] for child in json.loads(entry["in_spec"])[1]["children_spec"])
    if any(each["children_spec"] for each in (*places, *by_name)):
        raise RefusedError(f"expected inputs that are tensors, it takes lists or dicts of them; {EXPORT_ANEW}.")
    ports = [port(name, graph, i >= len(taken) - len(by_name)) for i, name in enumerate(taken)]
    ranges = {
        name: (max(int(each["min_val"] or 0), 0), None if each["max_val"] is None else int(each["max_val"]))
        for name, each in about["range_constraints"].items()
    }
    outputs = tuple(port(name, graph) for name in given)
    return Program(graph["nodes"], held, tuple(ports), outputs, outer_shape(entry["out_spec"], len(given)), ranges)


def tensors(record: Any, folder: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights or constants by name, from raw bytes. Raises `RefusedError` where one is pickled."""
    found = {}
    for name, about in config.items():
        path = about["path_name"]
        if about["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", path):
            raise RefusedError(f"'{name}' is kept as a pickle, and nothing is unpickled; {EXPORT_ANEW}.")
        meta = about["tensor_meta"]
        if meta["dtype"] not in DTYPES or meta["layout"] != STRIDED:
            raise RefusedError(f"'{name}' is of a type that is not read here (dtype {meta['dtype']}); {EXPORT_ANEW}.")
        sizes, strides = ([each["as_int"] for each in meta[key]] for key in ("sizes", "strides"))
        data = bytearray(record(f"data/{folder}/{path}"))
        flat = (
            torch.frombuffer(data, dtype=DTYPES[meta["dtype"]]) if data else torch.empty(0, dtype=DTYPES[meta["dtype"]])
        )
        # as_strided checks that it stays within the bytes; the copy leaves overlapping views behind.
        found[name] = torch.as_strided(flat, sizes, strides, meta["storage_offset"]["as_int"]).clone()
    return found


def port(name: str, graph: Mapping[str, Any], keyword: bool = False) -> Port:
    """What the graph says of one of its tensors."""
    meta = graph["tensor_values"][name]
    shape: list[int | str] = []
    example = []
    for size in meta["sizes"]:
        if "as_int" in size:
            shape.append(int(size["as_int"]))
            example.append(int(size["as_int"]))
            continue
        text = size["as_expr"]["expr_str"]
        found = SYMBOL.fullmatch(text)
        shape.append((found[1] or found[3]) if found else f"? {text}")
        example.append(int((size["as_expr"].get("hint") or {"as_int": 2})["as_int"]))
    return Port(name, DTYPES[meta["dtype"]], tuple(shape), tuple(example), keyword)


def outer_shape(text: str, count: int) -> str:
    """How the outputs are given: "one", "tuple", or the keys of a dict, a line each."""
    spec = json.loads(text)[1]
    if spec["type"] is None:
        return "one"
    keys = json.loads(spec["context"]) if spec["context"] else None
    flat = all(child["type"] is None for child in spec["children_spec"])
    if flat and isinstance(keys, list) and len(keys) == count and all(isinstance(k, str) for k in keys):
        return "\n".join(keys)
    return "tuple"
