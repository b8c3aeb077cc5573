"""Weights that float16 has infinity for, which ai-edge-quantizer casts without a word: every answer is NaN.

A float16 file is float16 in its weights alone. LiteRT computes with them in float32 on a CPU, and on a GPU in float16
where it is let, whatever the file is in: what :mod:`vitexport.quantize.half` finds of the values on the way is said of
that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from vitexport.contract import SourceModel
from vitexport.quantize import half


def readers(whole: bytes) -> list[str]:
    """Patterns of ai-edge-quantizer's scopes: the operations of a float32 file that read a weight beyond float16."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as reading

    model = reading.read_model(whole)
    too_large = {i for i, buffer in enumerate(model.buffers) if _largest(buffer.data) > half.END}
    found = []
    for graph in model.subgraphs:
        # Integers read as floats may be of any size, so types are asked first.
        wide = {i for i, t in enumerate(graph.tensors) if t.buffer in too_large and t.type == FLOAT32}
        reading_it = (op for op in graph.operators if not wide.isdisjoint(op.inputs))
        found += [f"^{re.escape(reading.get_op_scope(op, graph.tensors))}$" for op in reading_it]
    return found


#: ``TensorType.FLOAT32`` of the schema.
FLOAT32 = 0


def _largest(data: bytes | None) -> float:
    if data is None or len(data) % 4:
        return 0.0
    values = np.abs(np.frombuffer(data, "<f4"))
    return float(np.max(values, where=np.isfinite(values), initial=0.0))


def notes(sources: Sequence[SourceModel]) -> tuple[str, ...]:
    """What stays float32, and what to tell a GPU, for the user to read."""
    dangers = half.worst(sources)
    computed = list(dict.fromkeys(danger.layer for danger in dangers if not danger.stored))
    stored = tuple(str(danger) for danger in dangers if danger.stored)
    if not computed:
        return stored
    named = ", ".join(computed[:_NAMED]) + (f" and {len(computed) - _NAMED} more" if len(computed) > _NAMED else "")
    return (
        *stored,
        f"fp16: a .tflite computes {named} in float32 on a CPU, and must on a GPU, in whatever precision it is: give "
        "LiteRT.js gpuOptions {precision: 'fp32'}, and the GPU delegate no leave to lose precision "
        "(setPrecisionLossAllowed(false))",
    )


_NAMED = 3
