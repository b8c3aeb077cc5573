"""A stored graph as onnxruntime-web has it when it asks its providers which nodes they take.

Three things happen to a graph before: it is optimised at ONNX Runtime's basic level (constants folded, what computes
nothing gone), which ONNX Runtime here does as well; convolutions and pools on WebGPU are turned to channels-last, with
a ``Transpose`` before and behind; and those are moved along the graph until they meet and vanish. Where one is left
between a ``DequantizeLinear`` and what takes it, or between what makes a value and its ``QuantizeLinear``, the runtime
puts a pair of both beside it. ONNX Runtime here has no provider that wants channels-last, but it moves what Transposes
it finds in the same way: so they are put in, around something that holds them up as a channels-last convolution does.

A graph with float16 in it is taken as it is stored, but for what is computed of constants alone: ONNX Runtime here
would write it anew for its CPU provider, which computes most operators in float32 alone. Those of a bundle are
simplified before they are stored, and never compute in integers.

What is fused later, among the nodes of one provider, is not seen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitexport.errors import LoweringFailed, first_line

if TYPE_CHECKING:
    import onnx

#: What WebGPU computes channels-last.
_CHANNELS_LAST = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")

#: The dimensions of a batch of feature maps: others stay as they are.
_RANK = 4

_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)

#: Names what stands for a channels-last node while the graph is optimised.
_STAND_IN = "_vitexport_"


@dataclass(frozen=True, eq=False)
class Placed:
    """Without weights: those of 1 KiB and more are but names in it."""

    graph: onnx.GraphProto
    opsets: Mapping[str, int]
    types: Mapping[str, str]
    """ONNX's name (``float``, ``int64``) of each value's element type."""
    stored: onnx.GraphProto
    """Before it was turned to channels-last, for the names in it."""


def as_placed(path: Path) -> Placed:
    """Of the ONNX file at ``path``, whose weights may lie beside it.

    Raises ``LoweringFailed`` where ONNX Runtime refuses it.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = _Workshop(Path(folder), path)
        model = made.copied(path)
        halves = _has_float16(model)
        if not halves:
            model = made.optimised(path)
        types, shapes = made.values(model)
        if halves:
            _fold_constants(model.graph)
        stored = model.graph
        if any(node.op_type == "QuantizeLinear" for node in stored.node):
            turned, originals = _channels_last(model, types, shapes)
            model = made.optimised(made.written(turned))
            types = made.values(model)[0] | types
            _restore(model.graph, originals)
        opsets = {entry.domain: entry.version for entry in model.opset_import}
        return Placed(model.graph, opsets, types, stored)


class _Workshop:
    """A folder for the graph's stages: each refers to weights that lie in it."""

    def __init__(self, folder: Path, path: Path) -> None:
        self._folder, self._path, self._count = folder, path, 0

    def copied(self, path: Path) -> onnx.ModelProto:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it ships no types

        written = self._next()
        try:
            onnx.save(onnx.load(path), written, save_as_external_data=True, location=f"{written.stem}.weights")
        except (DecodeError, OSError) as error:
            raise LoweringFailed(
                f"{self._path.name} is no ONNX file ({first_line(error)}). Export it again."
            ) from error
        return onnx.load(written, load_external_data=False)

    def optimised(self, path: Path) -> onnx.ModelProto:
        import onnx
        import onnxruntime

        written, options = self._next(), _options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(written)
        for entry, value in (("file_name", f"{written.stem}.weights"), ("min_size_in_bytes", "1024")):
            options.add_session_config_entry(f"session.optimized_model_external_initializers_{entry}", value)
        self._session(path, options)
        return onnx.load(written, load_external_data=False)

    def written(self, model: onnx.ModelProto) -> Path:
        path = self._next()
        path.write_bytes(model.SerializeToString())
        return path

    def values(self, model: onnx.ModelProto) -> tuple[dict[str, str], dict[str, list[Any]]]:
        """Element types and shapes of all values that it computes, by ONNX Runtime's own inference, since onnx's knows
        none of its operators; types of its inputs and weights."""
        import onnx
        import onnxruntime

        asked = onnx.ModelProto()
        asked.CopyFrom(model)
        answers = {value.name for value in model.graph.output}
        made = [name for node in model.graph.node for name in node.output if name and name not in answers]
        asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
        options = _options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
        session = self._session(self.written(asked), options)
        found = [*session.get_inputs(), *session.get_outputs()]
        types = {value.name: value.type.removeprefix("tensor(").removesuffix(")") for value in found}
        stored = {tensor.name: element_name(tensor.data_type) for tensor in model.graph.initializer}
        return types | stored, {value.name: value.shape for value in found}

    def _next(self) -> Path:
        self._count += 1
        return self._folder / f"{self._count}.onnx"

    def _session(self, path: Path, options: Any) -> Any:
        import onnxruntime

        try:
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no class in common
            raise LoweringFailed(f"ONNX Runtime refuses {self._path.name}: {first_line(error)}.") from error


def element_name(element: int) -> str:
    """``float`` of ``TensorProto.FLOAT``."""
    import onnx

    return str(onnx.TensorProto.DataType.Name(element)).lower()


def cast_to(node: onnx.NodeProto) -> int:
    """The element type that a ``Cast`` makes; 0 of other nodes."""
    return next((attribute.i for attribute in node.attribute if attribute.name == "to"), 0)


def _options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings about unused initialisers are not the user's business
    return options


def _has_float16(model: onnx.ModelProto) -> bool:
    from onnx import TensorProto

    stored = {tensor.data_type for tensor in model.graph.initializer}
    return TensorProto.FLOAT16 in stored | {cast_to(node) for node in model.graph.node}


def _fold_constants(graph: onnx.GraphProto) -> None:
    """Take out what ONNX Runtime computes once: weights unpacked by a ``Cast`` and a ``Mul``. Quantised ones stay."""
    constant = {tensor.name for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        given = [name for name in node.input if name]
        if given and constant.issuperset(given) and node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            constant.update(node.output)
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _channels_last(
    model: onnx.ModelProto, types: Mapping[str, str], shapes: Mapping[str, list[Any]]
) -> tuple[onnx.ModelProto, dict[str, onnx.NodeProto]]:
    """With Transposes around each convolution and pool of feature maps, and a stand-in for it; the originals by the
    stand-ins' names.

    The stand-in is a ``ScatterND`` into an input of the result's shape: no Transpose and no quantisation moves past it,
    and its result has the shape that it is told.
    """
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    turned, nodes = onnx.ModelProto(), []
    originals: dict[str, onnx.NodeProto] = {}
    turned.CopyFrom(model)
    at = numpy_helper.from_array(np.zeros((1, 1), np.int64), f"{_STAND_IN}at")
    turned.graph.initializer.append(at)
    for node in model.graph.node:
        shape = shapes.get(node.output[0], [])
        if node.op_type not in _CHANNELS_LAST or len(shape) != _RANK:
            nodes.append(node)
            continue
        name = f"{_STAND_IN}{len(originals)}"
        given, made, base = (f"{name}_{part}" for part in ("given", "made", "base"))
        element = helper.np_dtype_to_tensor_dtype(np.dtype({"float": "float32"}.get(types[node.output[0]], "float16")))
        into = [shape[axis] for axis in _TO_LAST]
        turned.graph.input.append(helper.make_tensor_value_info(base, element, into))
        nodes += [
            helper.make_node("Transpose", [node.input[0]], [given], name=f"{name}_first", perm=_TO_LAST),
            helper.make_node("ScatterND", [base, at.name, given], [made], name=name),
            helper.make_node("Transpose", [made], [node.output[0]], name=f"{name}_last", perm=_TO_FIRST),
        ]
        originals[name] = node
    del turned.graph.node[:], turned.graph.value_info[:]
    turned.graph.node.extend(nodes)
    return turned, originals


def _restore(graph: onnx.GraphProto, originals: Mapping[str, onnx.NodeProto]) -> None:
    for node in graph.node:
        if node.name in originals:
            made, given = node.output[0], node.input[2]
            node.CopyFrom(originals[node.name])
            node.input[0], node.output[0] = given, made
