"""What each layer in fewer bits costs the network's answer, one at a time, simulated in PyTorch.

A simulation, because it ranks layers, which is all that is asked of it: what a plan is worth is measured on the file
itself, in its runtime (:mod:`vitexport.quantize.search`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vitexport.quantize.layers import Layer, kind_of, layers

if TYPE_CHECKING:
    from vitexport.contract import Tensor

#: Weights of a row that share a scale in four bits: what every target's ``w4`` has.
BLOCK = 32


@dataclass(frozen=True)
class Form:
    """Of a precision's numbers."""

    weights: int
    """Bits, symmetric: a scale for each output channel; below 8 for each block of a row."""
    activations: int | None = None
    """Bits of what a layer reads, one range for a tensor. None: float."""

    @classmethod
    def of(cls, precision: str) -> Form | None:
        """``w8``, ``w8-dyn``, ``w8a16``, ``w4p``, ... None of those whose numbers are floats."""
        found = re.fullmatch(r"w(\d+)(?:a(\d+)|(-dyn)|p)?", precision)
        if found is None:
            return None
        return cls(int(found[1]), int(found[2]) if found[2] else 8 if found[3] else None)


@dataclass(frozen=True, eq=False)
class Sensitivity:
    layer: Layer
    noise: float
    """Mean square of the answer's error over that of the answer, where this layer alone is in fewer bits."""

    @property
    def snr_db(self) -> float:
        return float(-10 * np.log10(max(self.noise, 1e-20)))


def sensitivities(module: Any, pictures: Sequence[Tensor], form: Form) -> tuple[Sensitivity, ...]:
    """Of each layer of a captured program's module, on ``pictures`` as the network takes them, one by one."""
    import torch

    inputs = [torch.from_numpy(picture) for picture in pictures]
    with torch.no_grad():
        true = [_answer(module(each)) for each in inputs]
        power = sum(float((each.double() ** 2).mean()) for each in true) or 1.0
        found = []
        for layer in layers(module):
            simulated = _simulation(module, layer.parameter, form)
            noise = sum(
                float(((_answer(simulated.run(each)) - answer).double() ** 2).mean())
                for each, answer in zip(inputs, true, strict=True)
            )
            found.append(Sensitivity(layer, noise / power))
    return tuple(found)


def _answer(made: Any) -> Any:
    return made[0] if isinstance(made, tuple) else made


def _simulation(module: Any, parameter: str, form: Form) -> Any:
    """An interpreter of the graph, for which that weight and what it multiplies are in ``form``."""
    import torch

    class Simulation(torch.fx.Interpreter):  # type: ignore[misc]  # torch is not followed
        def run_node(self, node: Any) -> Any:
            if kind_of(node) is None or getattr(node.args[1], "target", "") != parameter:
                return super().run_node(node)
            x, weight, *rest = self.fetch_args_kwargs_from_env(node)[0]
            x = x if form.activations is None else _in_range(x, form.activations)
            return node.target(x, _weights(weight, form.weights), *rest, **self.fetch_args_kwargs_from_env(node)[1])

    return Simulation(module, garbage_collect_values=True)


def _in_range(x: Any, bits: int) -> Any:
    """Asymmetric, with zero among its numbers."""
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    scale = ((high - low) / (2**bits - 1)).clamp(min=1e-12)
    zero = (-low / scale).round()
    return ((x / scale).round() + zero).clamp(0, 2**bits - 1).sub(zero) * scale


def _weights(weight: Any, bits: int) -> Any:
    """Symmetric."""
    rows = weight.flatten(1)
    if bits < 8 and rows.shape[1] % BLOCK == 0:
        rows = rows.reshape(-1, BLOCK)
    largest = 2 ** (bits - 1) - 1
    scale = (rows.abs().amax(1, keepdim=True) / largest).clamp(min=1e-12)
    return ((rows / scale).round().clamp(-largest - 1, largest) * scale).reshape(weight.shape)
