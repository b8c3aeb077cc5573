"""The constants of a ``.tflite``, read without LiteRT: what a file really holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tflite

#: Smaller constants are shapes, biases and norms.
LEAST_ELEMENTS = 1024

_DTYPES = {value: name.lower() for name, value in vars(tflite.TensorType).items() if isinstance(value, int)}


@dataclass(frozen=True)
class Constant:
    name: str
    dtype: str
    """``float32``, ``float16``, ``int8``, ``int4``, ..."""
    shape: tuple[int, ...]
    bytes: int

    @property
    def size(self) -> int:
        size = 1
        for side in self.shape:
            size *= side
        return size


def constants(content: bytes) -> list[Constant]:
    """Those of at least ``LEAST_ELEMENTS``, each stored buffer once."""
    model = tflite.Model.GetRootAs(content, 0)
    found: dict[int, Constant] = {}
    for number in range(model.SubgraphsLength()):
        graph: Any = model.Subgraphs(number)
        for index in range(graph.TensorsLength()):
            tensor = graph.Tensors(index)
            stored = model.Buffers(tensor.Buffer())
            held = max(stored.DataLength(), stored.Size())
            if held and tensor.Buffer() not in found:
                shape = tuple(int(tensor.Shape(axis)) for axis in range(tensor.ShapeLength()))
                name = tensor.Name().decode("utf-8", "replace")
                found[tensor.Buffer()] = Constant(name, _DTYPES.get(tensor.Type(), "unknown"), shape, held)
    return [constant for constant in found.values() if constant.size >= LEAST_ELEMENTS]
