"""Which nodes of a web bundle onnxruntime-web would leave to the CPU, told without a browser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vitexport.contract import Bundle, Finding, Lint
from vitexport_targets._onnx_layers import Layers
from vitexport_targets.webgpu import ONLY
from vitexport_targets.webgpu.as_placed import Placed, as_placed, cast_to, element_name
from vitexport_targets.webgpu.kernels import Call, Kernels, kernels

if TYPE_CHECKING:
    import onnx

_PACKED = "Ship w8 or w4, whose weights are packed while activations stay float; integers are for WebAssembly."
_AS_EXPORTED = "Store the graph as it was exported: this is an operator that optimising for the CPU brings."

#: What to do about operators that networks are known to bring.
REWRITES: Mapping[str, str] = {
    "QuantizeLinear": _PACKED,
    "DynamicQuantizeLinear": _PACKED,
    "MatMulInteger": _PACKED,
    "ConvInteger": _PACKED,
    "QLinearConv": _PACKED,
    "QLinearMatMul": _PACKED,
    "FusedMatMul": _AS_EXPORTED,
    "FusedGemm": _AS_EXPORTED,
    "Attention": "Export at opset 20, where attention is spelled out as MatMul and Softmax, which have kernels.",
}

#: Element types that no shader has, and what to compute in instead.
_INSTEAD = {"int64": "int32", "double": "float"}


def lint(bundle: Bundle, precision: str) -> Lint:
    """Raises ``LoweringFailed`` where ONNX Runtime refuses the file."""
    found = examine(bundle.path(bundle.variant(precision).files[0]))
    only = ONLY.get(precision)
    return (
        replace(found, note=f"{precision} is for {' and '.join(only)} alone; WebGPU is not offered it.")
        if only
        else found
    )


def examine(path: Path) -> Lint:
    """Any ONNX file, with its weights inside or beside it."""
    placed, known = as_placed(path), kernels()
    layers = Layers(placed.graph, placed.stored)
    findings = []
    nodes = [node for node in placed.graph.node if node.op_type != "Constant"]  # the runtime takes these for weights
    for node in nodes:
        call = _call(node, placed)
        if why := known.why_not(call):
            named = f"{node.op_type} ({node.name})"
            findings.append(Finding(named, layers.of(node), why, _rewrite(known, call)))
    basis = f"kernels that {known.runtime} says it has, of the nodes that it places; some it fuses later into fewer"
    return Lint("WebGPU", basis, len(nodes), tuple(findings))


def _call(node: onnx.NodeProto, placed: Placed) -> Call:
    domain = "" if node.domain == "ai.onnx" else node.domain
    inputs = tuple(placed.types.get(name, "") for name in node.input)
    to = element_name(cast_to(node)) if node.op_type == "Cast" else ""
    return Call(domain, node.op_type, placed.opsets.get(node.domain, 1), inputs, to)


def _rewrite(known: Kernels, call: Call) -> str:
    if call.operator in REWRITES:
        return REWRITES[call.operator]
    for element, instead in _INSTEAD.items():
        inputs = tuple(instead if given == element else given for given in call.inputs)
        if inputs != call.inputs and not known.why_not(replace(call, inputs=inputs)):
            return f"Compute it in {instead}: shaders have no {element}."
    opset = known.newest_opset_taken(call)
    if opset is not None and opset < call.opset:
        return f"Export at opset {opset}, whose {call.operator} has a kernel."
    return f"Write the layer without {call.operator}, or run it on WebAssembly."
