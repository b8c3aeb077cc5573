"""A float ``.tflite`` network as a PyTorch module.

TensorFlow Lite keeps images as NHWC; here every rank-4 value lives as NCHW, and what has another rank keeps its axes.
An op or attribute that is not known is an error with a sentence, never a guess.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from vitexport.errors import BadRequest, LoweringFailed
from vitexport.models.tflite_file import Graph, Op, parse
from vitexport.models.tflite_ops import layer, nchw


def read(path: Path) -> TFLiteModule:
    """The network in a ``.tflite`` file, in eval mode, with float32 weights (float16 ones are widened).

    Raises ``BadRequest`` (file missing or damaged) or ``LoweringFailed`` (an op or attribute this reader lacks).
    """
    module = TFLiteModule(parse(path))
    module.eval()
    return module


class TFLiteModule(nn.Module):  # type: ignore[misc]  # torch is Any to mypy here
    """Float32 (N, C, H, W) -> one tensor, NCHW where the file's output has rank 4. N is free; C, H and W are not.

    A layer bears the name of the tensor that it computes: ``layers.<tensor>.weight``, or, beside a pad or an
    activation, ``layers.<tensor>.conv.weight``.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.input_shape = nchw(graph.source.shape)
        self.output_shape = nchw(graph.result.shape)
        self.layers = nn.ModuleDict()
        self._wiring: list[tuple[str, tuple[str, ...]]] = []
        names = {graph.source: ""}  # the input, which no layer computes
        for op in graph.ops:
            takes = [t for t in op.inputs if t is not None and t.data is None]
            if any(t not in names for t in takes):
                raise BadRequest(
                    f"'{graph.file}' is damaged: {op.kind} '{op.output.name}' takes what nothing computes."
                )
            name = names[op.output] = _free_name(self.layers, op.output.name)
            self.layers[name] = _checked_layer(op, graph.file)
            self._wiring.append((name, tuple(names[t] for t in takes)))
        if graph.result not in names:
            raise BadRequest(f"'{graph.file}' is damaged: nothing computes its output '{graph.result.name}'.")
        self._result = names[graph.result]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {"": x}
        for name, takes in self._wiring:
            values[name] = self.layers[name](*(values[key] for key in takes))
        return values[self._result]


def _free_name(taken: nn.ModuleDict, tensor: str) -> str:
    """A key for ``nn.ModuleDict``, which allows no dot, no empty key, and none of its own attributes."""
    name = tensor.replace(".", "_") or "unnamed"
    while hasattr(taken, name):
        name += "_"
    return name


def _checked_layer(op: Op, file: str) -> nn.Module:
    """The op's layer, tried without data: the file says what shape each op gives, so a misread one is caught here."""
    takes = [torch.empty(nchw(t.shape), device="meta") for t in op.inputs if t is not None and t.data is None]
    try:
        built = layer(op)
        made = tuple(copy.deepcopy(built).to("meta")(*takes).shape)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:  # what torch says of operands that do not fit
        raise BadRequest(
            f"'{file}' is damaged: {op.kind} '{op.output.name}' does not fit its operands ({error}). Fetch it again."
        ) from error
    if made != nchw(op.output.shape):
        raise LoweringFailed(
            f"'{file}': {op.kind} '{op.output.name}' should give {nchw(op.output.shape)} (NCHW) and gives {made}. "
            "The file is damaged, or uses the op in a way that vitexport's TFLite reader does not know."
        )
    return built
