"""What a ``.tflite`` really holds, read without LiteRT: its constants, and what its signatures take."""

from __future__ import annotations

from vitexport_targets.tflite.structure import Tensor, read

#: Smaller constants are shapes, biases and norms.
LEAST_ELEMENTS = 1024

#: An input: its name, shape and element type.
Input = tuple[str, tuple[int, ...], str]


def constants(content: bytes) -> list[Tensor]:
    """Those of at least ``LEAST_ELEMENTS``, each stored buffer once."""
    found: dict[int, Tensor] = {}
    for graph in read(content).graphs:
        for tensor in graph.tensors:
            if tensor.stored:
                found.setdefault(tensor.buffer, tensor)
    return [tensor for tensor in found.values() if tensor.size >= LEAST_ELEMENTS]


def interfaces(content: bytes) -> dict[str, list[Input]]:
    """The inputs of each signature."""
    return {
        key: [(name, tensor.shape, tensor.dtype) for name, tensor in signature.inputs.items()]
        for key, signature in read(content).signatures.items()
    }
