"""What a ``.tflite`` really holds, read without LiteRT: its constants, and what its signatures take."""

from __future__ import annotations

from vitexport.quantize.layers import LEAST_SIZE
from vitexport_targets.tflite.structure import Tensor, read

#: An input: its name, shape and element type.
Input = tuple[str, tuple[int, ...], str]


def constants(content: bytes) -> list[Tensor]:
    """Those that are in fewer bits where such were asked for, each stored buffer once. Smaller ones are shapes, biases,
    norms, and weights that stay float."""
    found: dict[int, Tensor] = {}
    for graph in read(content).graphs:
        for tensor in graph.tensors:
            if tensor.stored:
                found.setdefault(tensor.buffer, tensor)
    return [tensor for tensor in found.values() if tensor.size >= LEAST_SIZE]


def interfaces(content: bytes) -> dict[str, list[Input]]:
    """The inputs of each signature."""
    return {
        key: [(name, tensor.shape, tensor.dtype) for name, tensor in signature.inputs.items()]
        for key, signature in read(content).signatures.items()
    }
