"""What LiteRT's GPU delegate makes of integers, as the pinned LiteRT.js did it with small networks.

Which operators it takes (:mod:`.gpu_operators`) does not tell: what it takes one by one it may refuse once it is put
together, or compute wrongly. The rules are what was seen; tests/test_tflite_litertjs.py sees it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vitexport_targets.tflite.structure import Graph, Tensor

#: Of LiteRT.js, with which all of this was seen.
VERSION = "2.5.3"

#: Operators that it takes and computes rightly in int8: with packed weights alone, or with activations as well.
INT8 = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "DEQUANTIZE", "FULLY_CONNECTED", "QUANTIZE", "TRANSPOSE_CONV"})

#: Activations of a layer that it takes; what has others is refused by itself, and traps nothing.
_TAKEN = ("float32", "int8")

UNPACKS = "DEQUANTIZE"
_LINEAR = "FULLY_CONNECTED"
_BETWEEN_TWO = ("ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "POW", "SQUARED_DIFFERENCE", "SUB")


@dataclass(frozen=True)
class Trap:
    """What one operation does to the whole file."""

    outcome: str
    """``refuses the file (why, in LiteRT.js's words)``, or ``answers wrongly``."""
    why: str
    rewrite: str


_FLOAT = "Ship fp16 to GPUs"
UNPACKED = Trap(
    "refuses the file (Shape mismatch)",
    "has weights that are unpacked from integers",
    f"{_FLOAT}. Of convolutions it takes such weights.",
)
BLOCKS = Trap("refuses the file (memory access out of bounds)", "has int4 weights in blocks", f"{_FLOAT}.")
FLATTENED = Trap(
    "refuses the file (Unable to parse bc coord for BATCH axis)",
    "is int8, drops a dimension, and meets a tensor that has it",
    f"{_FLOAT}. A residual of a linear layer's is such a meeting.",
)
SPREAD = Trap(
    "answers wrongly, and does not say so",
    "is int8, and meets a constant of another number of dimensions",
    f"{_FLOAT}, or fold the constant into the layer.",
)


def traps(graph: Graph) -> Iterator[tuple[int, Trap]]:
    """Positions of the operations that are one, in order."""
    made_by = {tensor: number for number, made in enumerate(graph.makes) for tensor in made}
    for number, (kind, reads) in enumerate(zip(graph.operations, graph.reads, strict=True)):
        if kind != _LINEAR or len(reads) < 2 or graph.tensors[reads[0]].dtype not in _TAKEN:
            continue
        weights, maker = graph.tensors[reads[1]], made_by.get(reads[1])
        if maker is not None and graph.operations[maker] == UNPACKS and _packed(graph, maker):
            yield number, UNPACKED
        elif weights.stored and weights.dtype == "int4":
            yield number, BLOCKS
        elif weights.stored and weights.dtype == "int8" and (trap := _met(graph, number)):
            yield number, trap


def _packed(graph: Graph, unpacks: int) -> bool:
    return all(graph.tensors[index].dtype.startswith("int") for index in graph.reads[unpacks])


def _met(graph: Graph, number: int) -> Trap | None:
    """What the answer of a linear layer in int8 meets next."""
    (answer,) = graph.makes[number]
    taken, made = graph.tensors[graph.reads[number][0]], graph.tensors[answer]
    for other in _others(graph, answer):
        if len(other.shape) == len(made.shape):
            continue
        if len(taken.shape) != len(made.shape):
            return FLATTENED
        if other.stored:
            return SPREAD
    return None


def _others(graph: Graph, answer: int) -> Iterator[Tensor]:
    """What is added to it, multiplied with it, ...: in floats again, where it is int8."""
    for kind, reads, makes in zip(graph.operations, graph.reads, graph.makes, strict=True):
        if answer in reads and kind == UNPACKS:
            yield from _others(graph, makes[0])
        elif answer in reads and kind in _BETWEEN_TWO:
            yield from (graph.tensors[index] for index in reads if index != answer)
