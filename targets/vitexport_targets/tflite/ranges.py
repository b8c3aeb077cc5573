"""The ranges that a file's activations take on real pictures, as ai-edge-quantizer reads them.

Its own calibration keeps a moving average of each picture's least and largest value, a fifth of which is the first of
32 pictures alone, and shows no value. So it is asked of one picture, which tells what it would know ranges of, and the
values are looked at here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vitexport.quantize.observers import Grid, Histogram, observed

if TYPE_CHECKING:
    from vitexport.contract import Observer, Tensor

Samples = Mapping[str, Sequence[Mapping[str, "Tensor"]]]
"""Inputs by name, for each signature."""


def measured(quantizer: Any, whole: bytes, samples: Samples, observer: Observer | None, grid: Grid) -> dict[str, Any]:
    """What ``Quantizer.quantize`` takes, by tensor."""
    found = quantizer.calibrate({signature: given[:1] for signature, given in samples.items()}, num_threads=1)
    wanted = {name: Histogram() for name, each in found.items() if "min" in each}
    _look(whole, samples, wanted)
    for name, each in observed(wanted, observer, grid).items():
        found[name] |= {"min": np.full_like(found[name]["min"], each.least)}
        found[name] |= {"max": np.full_like(found[name]["max"], each.largest)}
    return dict(found)


def _look(whole: bytes, samples: Samples, wanted: Mapping[str, Histogram]) -> None:
    from ai_edge_quantizer.utils import tfl_interpreter_utils as interpreters

    interpreter = interpreters.create_tfl_interpreter(whole, num_threads=1)
    for signature, given in samples.items():
        graph = interpreters.get_signature_main_subgraph_index(interpreter, signature)
        for sample in given:
            interpreters.invoke_interpreter_signature(interpreter, dict(sample), signature)
            for tensor in interpreter.get_tensor_details(graph):
                if tensor["name"] in wanted:
                    wanted[tensor["name"]].add(interpreter.get_tensor(tensor["index"], graph))
