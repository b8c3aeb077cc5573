"""What a ``.tflite`` really holds, read without LiteRT: its constants, and what its signatures take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tflite

#: Smaller constants are shapes, biases and norms.
LEAST_ELEMENTS = 1024

_DTYPES = {value: name.lower() for name, value in vars(tflite.TensorType).items() if isinstance(value, int)}


#: An input: its name, shape and element type.
Input = tuple[str, tuple[int, ...], str]


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
                shape, dtype = _described(tensor)
                name = tensor.Name().decode("utf-8", "replace")
                found[tensor.Buffer()] = Constant(name, dtype, shape, held)
    return [constant for constant in found.values() if constant.size >= LEAST_ELEMENTS]


def interfaces(content: bytes) -> dict[str, list[Input]]:
    """The inputs of each signature."""
    model = tflite.Model.GetRootAs(content, 0)
    found: dict[str, list[Input]] = {}
    for number in range(model.SignatureDefsLength()):
        signature: Any = model.SignatureDefs(number)
        graph: Any = model.Subgraphs(signature.SubgraphIndex())
        found[signature.SignatureKey().decode("utf-8", "replace")] = [
            (entry.Name().decode("utf-8", "replace"), *_described(graph.Tensors(entry.TensorIndex())))
            for entry in map(signature.Inputs, range(signature.InputsLength()))
        ]
    return found


def _described(tensor: Any) -> tuple[tuple[int, ...], str]:
    shape = tuple(int(tensor.Shape(axis)) for axis in range(tensor.ShapeLength()))
    return shape, _DTYPES.get(tensor.Type(), "unknown")
