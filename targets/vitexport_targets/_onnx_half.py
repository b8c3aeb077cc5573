"""float16 for ONNX graphs: all of it, but for what would leave float16's range.

Native ``LayerNormalization`` stays one operator in either type: spelt out, its squares would be float16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vitexport.contract import INPUT_NAME, SourceModel
from vitexport.progress import step
from vitexport.quantize import half
from vitexport_targets._onnx_means import in_steps
from vitexport_targets._onnx_weights import named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx


def to_fp16(model: onnx.ModelProto, source: SourceModel) -> onnx.ModelProto:
    """Weights and activations in float16; inputs and outputs stay float32, as transformers.js expects. Where the
    network is in danger (:func:`vitexport.quantize.half.dangers`), so do the operators that are."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = in_steps(model)
    in_danger = half.dangers(source) or _too_large(model)  # a folded BatchNorm may make weights that PyTorch has not
    with step("optimise", "fp16"):
        if in_danger:
            copy = named(model)
            made = convert_float_to_float16(copy, keep_io_types=True, node_block_list=kept(copy, source))
            return _joined(made)
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        converted: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True)
        return converted


def kept(model: onnx.ModelProto, source: SourceModel) -> list[str]:
    """Names of the nodes that make or read what float16 may not hold, or whose own sums it may not."""
    wide, inside = _too_large(model), set[str]()
    for values in _runs(model, source):
        wide |= {name for name, value in values.items() if half.beyond(half.magnitude(value))}
        for node in model.graph.node:
            if node.op_type == "LayerNormalization" and half.beyond(_squares(node, values)):
                inside.add(node.name)
    return [n.name for n in model.graph.node if n.name in inside or not wide.isdisjoint((*n.input, *n.output))]


def _too_large(model: onnx.ModelProto) -> set[str]:
    """Weights; the converter would cut them off at float16's end without a word."""
    import torch
    from onnx import numpy_helper

    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {name for name, value in held.items() if half.magnitude(torch.from_numpy(value.copy())) > half.END}


def _runs(model: onnx.ModelProto, source: SourceModel) -> Any:
    """Every value of the graph, by name, picture by picture."""
    import onnx
    import onnxruntime
    import torch

    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    made = [name for node in model.graph.node for name in node.output if name]
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(tapped.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for picture in half.pictures(source):
        values = session.run(made, {INPUT_NAME: picture})
        yield {name: torch.from_numpy(value) for name, value in zip(made, values, strict=True)}


def _squares(node: onnx.NodeProto, values: Mapping[str, Any]) -> float:
    x = values.get(node.input[0])
    if x is None:  # the picture itself
        return 0.0
    axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
    return half.squares(x, range(axis % x.ndim, x.ndim))


def _joined(model: onnx.ModelProto) -> onnx.ModelProto:
    """``convert_float_to_float16`` leads what goes from one float32 node to the next through float16, where it is
    infinite, and names a value's way back once for each node that reads it, which ONNX forbids (onnxruntime 1.31).
    Here it goes straight, and values are called what the float32 file calls them."""
    from onnxruntime.transformers.onnx_model import OnnxModel

    graph = model.graph
    nodes = list({(node.op_type, *node.output): node for node in graph.node}.values())
    down = {n.output[0]: n.input[0] for n in nodes if _is_cast(n, "_cast_to_fp16_node", "graph_input_cast")}
    up = {n.output[0]: n.input[0] for n in nodes if _is_cast(n, "_cast_to_fp32_node", "graph_output_cast")}
    straight = {above: down[below] for above, below in up.items() if below in down}
    answers = {straight[o.name]: o.name for o in graph.output if o.name in straight}
    nodes = [node for node in nodes if node.output[0] not in straight]
    _rename(nodes, straight)
    _rename(nodes, answers)
    read = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    unread = {name for name in down if name not in read}
    _set(graph.node, [node for node in nodes if node.output[0] not in unread])
    _rename(graph.node, {down[name]: name for name in unread if down[name] not in {i.name for i in graph.input}})
    there = {name for node in graph.node for name in node.output} - unread  # which were float16 under these names
    _set(graph.value_info, [value for value in graph.value_info if value.name in there])
    OnnxModel(model).topological_sort(is_deterministic=True)
    return model


def _rename(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _is_cast(node: onnx.NodeProto, ending: str, beginning: str) -> bool:
    """One that the converter put in."""
    return bool(node.op_type == "Cast") and (node.name.endswith(ending) or node.name.startswith(beginning))


def _set(field: Any, values: list[Any]) -> None:
    del field[:]
    field.extend(values)
