"""Stochastic arithmetic: a network whose every result is off at random, by no more than a type's rounding would be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node


def rounded(module: GraphModule, kind: torch.finfo) -> Callable[[torch.Tensor, int], Any]:
    """A function of the module's one input, float32, and of a seed. Weights and inputs are moved as results are."""

    def run(pixel_values: torch.Tensor, seed: int) -> Any:
        with torch.no_grad():
            return _Moved(module, kind, torch.Generator().manual_seed(seed)).run(pixel_values)

    return run


class _Moved(Interpreter):  # type: ignore[misc]  # torch.fx's has no type
    def __init__(self, module: GraphModule, kind: torch.finfo, chance: torch.Generator) -> None:
        super().__init__(module)
        self._kind, self._chance = kind, chance

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        # What the graph returns has been moved where it was computed.
        return result if n.op == "output" else torch.utils._pytree.tree_map(self._moved, result)

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        # A type's numbers lie 2^e eps apart between 2^e and 2^(e+1); below its smallest normal one, as far as there.
        exponent = torch.floor(torch.log2(value.abs().clamp_min(self._kind.smallest_normal)))
        apart = torch.exp2(exponent) * self._kind.eps
        return value + (torch.rand(value.shape, generator=self._chance) - 0.5) * apart
