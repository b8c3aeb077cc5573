"""What a ``.tflite`` file says, as plain data: its ops in order, its constants as numpy arrays. No torch.

The schema classes are those of PyPI's ``tflite``: Apache-2.0, pure Python, generated from TensorFlow's ``schema.fbs``
and numbered as TensorFlow is. ``ai_edge_litert`` ships the same ones, but as a private module inside an interpreter
that is tens of megabytes and exists for fewer platforms; it serves the tests as the oracle.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from vitexport.errors import BadRequest, LoweringFailed

#: The attributes that are read, by op kind; an op that is not here has none. The schema's others concern quantised
#: tensors (``QuantizedBiasType``, ``PotScaleInt16``), which are refused.
_CONV = ("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "FusedActivationFunction")
_OPTIONS: Mapping[str, tuple[Any, tuple[str, ...]]] = {
    "CONV_2D": (tflite.Conv2DOptions, _CONV),
    "DEPTHWISE_CONV_2D": (tflite.DepthwiseConv2DOptions, _CONV),
    "AVERAGE_POOL_2D": (
        tflite.Pool2DOptions,
        ("Padding", "StrideH", "StrideW", "FilterHeight", "FilterWidth", "FusedActivationFunction"),
    ),
    "ADD": (tflite.AddOptions, ("FusedActivationFunction",)),
    "MUL": (tflite.MulOptions, ("FusedActivationFunction",)),
    "CONCATENATION": (tflite.ConcatenationOptions, ("Axis", "FusedActivationFunction")),
    "MEAN": (tflite.ReducerOptions, ("KeepDims",)),
    "RESIZE_BILINEAR": (tflite.ResizeBilinearOptions, ("AlignCorners", "HalfPixelCenters")),
}

_KINDS = {code: kind for kind, code in vars(tflite.BuiltinOperator).items() if not kind.startswith("_")}
_TYPES = {code: name.lower() for name, code in vars(tflite.TensorType).items() if not name.startswith("_")}
_ABSENT = -1  # the index of an optional operand that is not there
_FLOATS = ("float32", "float16")
_CONSTANTS: Mapping[str, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "int32": np.int32,
    "int64": np.int64,
}

#: What the flatbuffer accessors raise when an offset points outside the file or at bytes of another kind.
_CORRUPT = (struct.error, IndexError, KeyError, TypeError, ValueError, OverflowError, AttributeError)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of the graph. ``data`` is None for what is computed, else a constant in the file's own layout."""

    name: str
    shape: tuple[int, ...]
    """NHWC where the rank is 4."""
    dtype: str
    data: NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class Op:
    """One step. ``kind`` is TensorFlow Lite's own name, such as ``CONV_2D``, or a custom op's."""

    kind: str
    inputs: tuple[Tensor | None, ...]
    """None where an optional operand is absent."""
    output: Tensor
    options: Mapping[str, int]
    """By the schema's accessor names, such as ``StrideH``; enumerations and booleans are numbers."""
    custom_options: bytes = b""


@dataclass(frozen=True, eq=False)
class Graph:
    """A float network with one input and one output; ``DEQUANTIZE`` of float16 weights is already done."""

    file: str
    source: Tensor
    result: Tensor
    ops: tuple[Op, ...]


def parse(path: Path) -> Graph:
    """Read a ``.tflite`` file.

    Raises ``BadRequest`` where the file is missing or damaged, ``LoweringFailed`` where it is sound but holds what this
    reader does not do (several inputs, quantised tensors).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadRequest(f"'{path}' cannot be read ({error.strerror}). Name a .tflite file.") from error
    if content[4:8] != b"TFL3":
        raise BadRequest(f"'{path}' is not a TensorFlow Lite model: it does not bear the mark TFL3. Name another file.")
    try:
        return _graph(tflite.Model.GetRootAs(content), path.name)
    except _CORRUPT as error:
        raise BadRequest(
            f"'{path}' is damaged or cut short: its contents point outside the file ({error}). Fetch it again."
        ) from error


def _graph(model: Any, file: str) -> Graph:
    if model.SubgraphsLength() != 1:
        raise LoweringFailed(
            f"'{file}' holds {model.SubgraphsLength()} graphs; the TFLite reader takes one (no control flow)."
        )
    stored = model.Subgraphs(0)
    tensors = [_tensor(model, stored.Tensors(i)) for i in range(stored.TensorsLength())]
    source, result = _only(stored.InputsAsNumpy(), "inputs", file), _only(stored.OutputsAsNumpy(), "outputs", file)
    ops = []
    for position in range(stored.OperatorsLength()):
        entry = stored.Operators(position)
        kind = _kind(model.OperatorCodes(entry.OpcodeIndex()))
        output = _only(entry.OutputsAsNumpy(), "outputs", f"{file}: {kind}")
        inputs = tuple(None if i == _ABSENT else tensors[i] for i in entry.InputsAsNumpy())
        if kind == "DEQUANTIZE":
            tensors[output] = _dequantized(inputs[0], file)
        else:
            ops.append(Op(kind, inputs, tensors[output], _options(kind, entry), _custom_options(entry)))
    return Graph(file, tensors[source], tensors[result], tuple(ops))


def _only(indices: NDArray[np.int32], what: str, whose: str) -> int:
    if len(indices) != 1:
        raise LoweringFailed(f"'{whose}' has {len(indices)} {what}; the TFLite reader knows networks and ops with one.")
    return int(indices[0])


def _kind(code: Any) -> str:
    # Codes above 127 do not fit the older field, and files older than the newer field have a 0 there.
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    if number == tflite.BuiltinOperator.CUSTOM:
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in code.CustomCode().decode())
    return str(_KINDS.get(number, f"number {number}"))


def _tensor(model: Any, stored: Any) -> Tensor:
    name, dtype = stored.Name().decode(), _TYPES[stored.Type()]
    shape = () if stored.ShapeIsNone() else tuple(int(n) for n in stored.ShapeAsNumpy())
    if any(n < 1 for n in shape):
        raise ValueError(f"tensor '{name}' has the shape {shape}")
    buffer = model.Buffers(stored.Buffer())
    if buffer.DataIsNone() or dtype not in _CONSTANTS:
        return Tensor(name, shape, dtype)
    raw = buffer.DataAsNumpy().view(_CONSTANTS[dtype])
    if raw.size != math.prod(shape):
        raise ValueError(f"tensor '{name}' has the shape {shape} and {raw.size} values")
    return Tensor(name, shape, dtype, raw.reshape(shape))


def _dequantized(stored: Tensor | None, file: str) -> Tensor:
    """float16 weights as float32, under their own name."""
    if stored is None or stored.data is None or stored.dtype not in _FLOATS:
        what = "an absent tensor" if stored is None else f"'{stored.name}' ({stored.dtype})"
        raise LoweringFailed(
            f"'{file}' is quantised: DEQUANTIZE of {what}. The TFLite reader takes float32 or float16 weights; "
            "export the model without integer quantisation."
        )
    return Tensor(stored.name, stored.shape, "float32", stored.data.astype(np.float32))


def _options(kind: str, entry: Any) -> dict[str, int]:
    if kind not in _OPTIONS:
        return {}
    table, names = _OPTIONS[kind]
    if entry.BuiltinOptionsType() != getattr(tflite.BuiltinOptions, table.__name__):
        raise ValueError(f"{kind} has options of type {entry.BuiltinOptionsType()}")
    options, stored = table(), entry.BuiltinOptions()
    options.Init(stored.Bytes, stored.Pos)
    return {name: int(getattr(options, name)()) for name in names}


def _custom_options(entry: Any) -> bytes:
    return b"" if entry.CustomOptionsIsNone() else bytes(entry.CustomOptionsAsNumpy())
