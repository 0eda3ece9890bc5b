"""ONNX models: read with their checks, run through onnxruntime, compared, and written aside before they are renamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...aligners.errors import RefusedError, SutureError, UsageError
from ..dumps.atomic import atomic_write
from ..dumps.extras import need

__all__ = [
    "FLOATS",
    "Session",
    "dims",
    "element",
    "inputs_of",
    "is_half",
    "port",
    "read_model",
    "require_agreement",
    "require_proof",
    "write_model",
]

Array = NDArray[Any]
ROWS, OTHERS = 3, 8  # sizes that a probe gives to an open first axis, and to other open axes
FLOATS = ("float16", "float32", "float64")
TYPES = {
    **{"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(double)": np.float64},
    **{"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_, "tensor(uint8)": np.uint8},
}


def read_model(path: str | Path) -> Any:
    """The model in an .onnx file, checked; weights that lie in files beside it are read as well.

    Raises `SutureError` for a file that is none.
    """
    onnx = need("onnx", "onnx")
    path = Path(path)
    if not path.is_file():
        raise SutureError(f"{path}: expected an ONNX model, but there is no such file.")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(str(path))  # by path: a model above 2 GB can be checked only so
    except Exception as error:  # the parser raises what protobuf raises, which has no common base
        raise SutureError(f"{path}: expected an ONNX model, it cannot be read ({in_short(error)}).") from error
    if not model.graph.output:
        raise SutureError(f"{path}: this ONNX model has no output.")
    return model


def write_model(model: Any, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a model as one file: aside, flushed, renamed. Raises `RefusedError` for one that no file can hold."""
    try:
        data = model.SerializeToString()
    except Exception as error:  # protobuf has an error of its own for this
        raise RefusedError(f"{path}: this model does not fit the 2 GB of one ONNX file ({in_short(error)}).") from error
    with atomic_write(path, overwrite) as file:
        file.write(data)


def in_short(error: Exception) -> str:
    """A message as one line, and no more of it than fits."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def element(value: Any) -> str:
    """The element type of an input or output as numpy names it, or "string"; "?" for one that is no tensor."""
    onnx = need("onnx", "onnx")
    if not value.type.HasField("tensor_type"):
        return "?"
    kind = value.type.tensor_type.elem_type
    if kind == onnx.TensorProto.STRING:
        return "string"  # numpy has none: it would be an object
    known = kind in onnx.helper.get_all_tensor_dtypes()
    return str(onnx.helper.tensor_dtype_to_np_dtype(kind)) if known else "?"


def dims(value: Any) -> list[int | None] | None:
    """The shape of an input or output, None for each open axis; None where even the number of axes is open."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim]


def inputs_of(model: Any) -> list[Any]:
    """The inputs that must be given: old models list their weights among them."""
    weights = {each.name for each in model.graph.initializer}
    return [each for each in model.graph.input if each.name not in weights]


def is_half(model: Any) -> bool:
    """Whether any of its numbers, or what goes in and out, is in half precision."""
    kind = need("onnx", "onnx").TensorProto.FLOAT16
    return any(each.data_type == kind for each in model.graph.initializer) or any(
        element(each) == "float16" for each in (*model.graph.input, *model.graph.output)
    )


def port(values: Sequence[Any], name: str | None, what: str, option: str) -> Any:
    """The one of ``values`` with that name; without a name, the only one that holds floating-point numbers.

    Raises `SutureError` listing them where that is not one, `UsageError` where a name was given.
    """
    listed = ", ".join(f"{v.name} {element(v)} {shown(dims(v))}" for v in values)
    found = [v for v in values if (v.name == name if name else element(v) in FLOATS)]
    if len(found) == 1 and element(found[0]) in FLOATS:
        return found[0]
    problem = f"there is no '{name}'" if name else f"it is not clear which is meant ({option} NAME)"
    if not name and not found:
        problem = "there is none"
    if name and found:
        problem = f"'{name}' holds {element(found[0])}"
    kind = UsageError if name else SutureError
    raise kind(f"{what}: expected one of {', '.join(FLOATS)}, {problem}; there are {listed or 'none'}.")


def shown(shape: list[int | None] | None) -> str:
    """A shape, with ? for open axes."""
    return "(?)" if shape is None else f"({', '.join('?' if d is None else str(d) for d in shape)})"


class Session:
    """A model in onnxruntime."""

    def __init__(self, model: Any, what: str) -> None:
        runtime = need("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised; the rest is not for our users
        options.intra_op_num_threads = 1
        self._what = what
        try:
            self._session = runtime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a class of error for each status, and no base
            raise SutureError(f"{what}: onnxruntime cannot load this model ({in_short(error)}).") from error

    @property
    def inputs(self) -> list[Any]:
        """What must be given: name, type and shape."""
        return list(self._session.get_inputs())

    def run(self, feeds: Mapping[str, Array], *names: str) -> list[Any]:
        """The named outputs, or all. Raises `SutureError` with what onnxruntime says."""
        wanted = {each.name for each in self.inputs}
        try:
            return list(self._session.run(list(names) or None, {k: v for k, v in feeds.items() if k in wanted}))
        except Exception as error:  # see above
            raise SutureError(f"{self._what}: onnxruntime cannot run this model ({in_short(error)}).") from error

    def probe(self, rows: int = ROWS, seed: int = 0) -> dict[str, Array]:
        """Inputs that a model of images, vectors or tokens can take: the first open axis has ``rows``."""
        rng = np.random.default_rng(seed)
        open_axes: dict[Any, int] = {}
        feeds = {}
        for each in self.inputs:
            if each.type not in TYPES:
                raise SutureError(
                    f"{self._what}: input '{each.name}' is {each.type}; no probe can be made of it. Give one: --probe."
                )
            shape = []
            for axis, size in enumerate(each.shape):
                if isinstance(size, int) and size > 0:
                    shape.append(size)
                else:
                    key = size if isinstance(size, str) else (each.name, axis)
                    shape.append(open_axes.setdefault(key, rows if axis == 0 else OTHERS))
            feeds[each.name] = values_like(each.name, np.dtype(TYPES[each.type]), shape, rng)
        return feeds


def values_like(name: str, dtype: np.dtype[Any], shape: list[int], rng: np.random.Generator) -> Array:
    """Plausible values of an input."""
    if dtype.kind == "f":
        return rng.normal(size=shape).astype(dtype)
    if "mask" in name:
        mask = np.ones(shape, dtype)
        if mask.ndim == 2 and min(mask.shape) > 1:
            mask[0, -(shape[1] // 3) :] = 0  # a row with padding
        return mask
    if "type" in name or dtype.kind == "b":
        return np.zeros(shape, dtype)
    # Ids of tokens: every vocabulary has the first two. Bytes are pixels.
    return rng.integers(0, 2 if dtype.kind == "i" else 100, shape).astype(dtype)


def require_agreement(
    came: Sequence[Any], expected: Sequence[Any], precise: bool, what: str, exact: float = 1e-4
) -> float:
    """The largest difference of outputs that must agree, each relative to the largest value of that output.

    To ``exact``, to 2e-2 where half precision is involved; labels must be the same, and zeros where all are zero.
    Below the smallest normal number of its dtype, where rounding is absolute, an output is compared with that number.
    Raises `RefusedError` where they differ, and where there is nothing to compare (`require_proof`).
    """
    worst = 0.0
    allowed = exact if precise else 2e-2
    require_proof(expected, what)
    for a, b in zip(map(as_array, came), map(as_array, expected), strict=True):
        if a.shape != b.shape:
            raise RefusedError(f"{what}: expected outputs of shape {b.shape}, as the parts give, got {a.shape}.")
        if b.dtype.kind == "f":
            largest = float(np.abs(b[np.isfinite(b)]).max(initial=0))
            other = a != b  # infinities may be the same
            gap = float(np.abs(a[other].astype(np.float64) - b[other]).max(initial=0))
            if not largest and gap:
                raise RefusedError(f"{what}: gives up to {gap:.1e} on a probe where its parts give only zeros.")
            gap /= max(largest, float(np.finfo(b.dtype).tiny))
            if not gap <= allowed:
                raise RefusedError(f"{what}: differs from its parts by {gap:.1e} (allowed {allowed:.0e}) on a probe.")
            worst = max(worst, gap)
        elif precise and not np.array_equal(a, b):
            raise RefusedError(f"{what}: gives other labels than its parts on a probe.")
    return worst


def require_proof(expected: Sequence[Any], what: str) -> None:
    """Raises `RefusedError` where there is nothing to compare with: no rows, or NaN from the parts themselves."""
    for each in map(as_array, expected):
        if not each.size or (each.dtype.kind == "f" and np.isnan(each).any()):
            gave = "NaN" if each.size else "no rows"
            raise RefusedError(f"{what}: its parts give {gave} on the probe, which proves nothing; give another.")


def as_array(output: Any) -> Array:
    """An output as an array: classifiers of scikit-learn give a list of {class: probability} for each row."""
    if isinstance(output, list) and output and isinstance(output[0], dict):
        return np.array([list(row.values()) for row in output], np.float64)
    return np.asarray(output)
