"""Means over a whole picture, axis by axis, for float16.

ONNX Runtime's WebGPU kernel of ``ReduceMean`` adds in the type of its input (1.27). Over the 16,384 pixels of 128x128 a
float16 sum ends at a mean of 4: MediaPipe's selfie network answered 0.5 everywhere, without a NaN, and where nothing
overflowed its gates were off by 3 %. The mean over columns of the means over rows is the same number, from sums of 128.
To be deleted when the kernel adds in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def in_steps(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` in which each ``ReduceMean`` over several axes that keeps them is one for each axis, the last
    first; others are left alone."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    made = onnx.ModelProto()
    made.CopyFrom(model)
    integers = [tensor for tensor in made.graph.initializer if tensor.data_type == tensor.INT64]
    axes: dict[str, list[int]] = {tensor.name: numpy_helper.to_array(tensor).ravel().tolist() for tensor in integers}
    nodes: list[onnx.NodeProto] = []
    for node in made.graph.node:
        several = axes.get(node.input[1], []) if node.op_type == "ReduceMean" and len(node.input) == 2 else []
        dropped = any(a.name == "keepdims" and not a.i for a in node.attribute)
        if len(several) < 2 or dropped:
            nodes.append(node)
            continue
        value = node.input[0]
        for step, axis in enumerate(reversed(several)):
            last = step == len(several) - 1
            name, output = f"{node.name}_axis{axis}", node.output[0] if last else f"{node.output[0]}_axis{axis}"
            over = numpy_helper.from_array(np.array([axis], np.int64), f"{name}_axes")
            made.graph.initializer.append(over)
            mean = helper.make_node("ReduceMean", [value, over.name], [output], name=name, keepdims=1)
            mean.metadata_props.extend(node.metadata_props)
            nodes.append(mean)
            value = output
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made
