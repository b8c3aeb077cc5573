"""The weights of an ONNX graph: which there are, products for all layers that are products, int8 for storage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from vitexport.quantize.layers import LEAST_SIZE, Fingerprint, fingerprint

if TYPE_CHECKING:
    import onnx

    from vitexport.contract import Tensor


@dataclass(frozen=True)
class Weight:
    """What a layer multiplies by, or a table that is added or looked up."""

    name: str
    nodes: tuple[str, ...]
    """The layers that read it; none of a table."""
    size: int
    shared: tuple[int, ...]
    """Axes along which values have one scale: all but the output channels'; of a table, its rows."""
    fingerprint: Fingerprint


def weights(model: onnx.ModelProto) -> tuple[Weight, ...]:
    """Every float32 constant that is worth packing, in the order of the graph's constants."""
    from onnx import TensorProto, numpy_helper

    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type in _CHANNELS:
            readers.setdefault(node.input[1], []).append(node)
    found = []
    for tensor in model.graph.initializer:
        layers, rank = readers.get(tensor.name, []), len(tensor.dims)
        a_table = not layers and sum(side > 1 for side in tensor.dims) > 1
        if tensor.data_type == TensorProto.FLOAT and prod(tensor.dims) >= LEAST_SIZE and (layers or a_table):
            channels = _CHANNELS[layers[0].op_type](layers[0]) % rank if layers else None
            shared = (rank - 1,) if channels is None else tuple(axis for axis in range(rank) if axis != channels)
            names = tuple(node.name for node in layers)
            values = numpy_helper.to_array(tensor)
            found.append(Weight(tensor.name, names, values.size, shared, fingerprint(values)))
    return tuple(found)


def fingerprints(model: onnx.ModelProto) -> frozenset[Fingerprint]:
    """Of every float32 constant, however small."""
    from onnx import TensorProto, numpy_helper

    floats = (tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT)
    return frozenset(fingerprint(numpy_helper.to_array(tensor)) for tensor in floats)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    from onnx.helper import get_attribute_value

    return next((get_attribute_value(a) for a in node.attribute if a.name == name), default)


#: Of a layer's weight, the axis of its output channels.
_CHANNELS: dict[str, Callable[[onnx.NodeProto], int]] = {
    "MatMul": lambda node: -1,
    "Gemm": lambda node: 0 if _attribute(node, "transB", 0) else 1,
    "Conv": lambda node: 0,
    "ConvTranspose": lambda node: 1,
}


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose nodes are called as what they make, which no two have in common."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.name = node.output[0]
    return copy


def with_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each ``Gemm`` as ``MatMul`` and ``Add``, in place: ONNX Runtime's quantisers pass over a ``Gemm`` without a word
    when they are asked for blocks, and so does its kernel for activations that are quantised on the fly."""
    from onnx import helper, numpy_helper

    held = {tensor.name: tensor for tensor in model.graph.initializer}

    def product(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        factor, bias = node.input[1], node.input[2:]
        if _attribute(node, "transB", 0):
            turned = f"{factor}.T"
            if turned not in held:
                values = np.ascontiguousarray(numpy_helper.to_array(held[factor]).T)
                held[turned] = numpy_helper.from_array(values, turned)
                model.graph.initializer.append(held[turned])
            factor = turned
        made = f"{node.output[0]}.product" if bias else node.output[0]
        yield helper.make_node("MatMul", [node.input[0], factor], [made], name=made)
        if bias:
            yield helper.make_node("Add", [made, *bias], node.output, name=node.output[0])

    def plain(node: onnx.NodeProto) -> bool:
        scaled = (_attribute(node, "alpha", 1.0), _attribute(node, "beta", 1.0)) != (1.0, 1.0)
        return node.op_type == "Gemm" and node.input[1] in held and not scaled and not _attribute(node, "transA", 0)

    _replace(model, [made for node in model.graph.node for made in (product(node) if plain(node) else (node,))])
    return model


def packed(model: onnx.ModelProto, keep_float: Collection[Fingerprint]) -> onnx.ModelProto:
    """What is still float32 as int8 and a scale, in place, unpacked by a ``Cast`` and a ``Mul``.

    ONNX Runtime computes these two once, when it loads the file, and has the float network before it: in each of its
    providers, at its speed. A ``DequantizeLinear`` would stay: it is computed anew for each picture, and what it feeds
    is no constant, which a convolution's fast layout needs (selfie: 4.6 -> 19 ms).
    """
    from onnx import TensorProto, helper, numpy_helper

    held = {tensor.name: tensor for tensor in model.graph.initializer}
    unpacking = []
    for weight in weights(model):
        if weight.fingerprint in keep_float:
            continue
        tensor = held[weight.name]
        values, scale = _int8(numpy_helper.to_array(tensor), weight.shared)
        bits, unscaled, step = (f"{weight.name}.{part}" for part in ("int8", "unscaled", "scale"))
        tensor.CopyFrom(numpy_helper.from_array(values, bits))
        model.graph.initializer.append(numpy_helper.from_array(scale, step))
        unpacking += [
            helper.make_node("Cast", [bits], [unscaled], name=unscaled, to=TensorProto.FLOAT),
            helper.make_node("Mul", [unscaled, step], [weight.name], name=weight.name),
        ]
    _replace(model, [*unpacking, *model.graph.node])
    return model


def _int8(values: Tensor, shared: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Symmetric; ``values`` is the first, as float, times the second."""
    largest = np.abs(values).max(axis=shared, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale


def _replace(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Constants that nobody reads any more go as well."""
    made = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(made)
    read = {name for node in made for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
