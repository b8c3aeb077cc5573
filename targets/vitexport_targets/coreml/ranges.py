"""Operations that must stay float32 in a float16 package, because their values or their sums leave float16's range.

PyTorch code upcasts by hand where half precision overflows: EfficientViT's linear attention sums over all tokens before
it divides, and timm computes it in float32 whatever the rest is in. A captured float32 program has no trace of that,
and ``compute_precision=FLOAT16`` takes all of it: infinity by infinity, and every answer is NaN. So where
:mod:`vitexport.quantize.half` finds a network in danger, the float32 package is looked into on the same pictures; what
comes near the end of float16's range, and what reads it, keeps float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitexport.contract import SourceModel
from vitexport.errors import RuntimeUnavailable
from vitexport.quantize import half
from vitexport_targets.coreml import inputs, names
from vitexport_targets.coreml.evaluator import Evaluator
from vitexport_targets.coreml.mil import Constant, Operation
from vitexport_targets.coreml.package import read

if TYPE_CHECKING:
    from vitexport.contract import Tensor


@dataclass(frozen=True)
class Kept:
    """What float16 may not hold, by the names of a float32 package."""

    wide: frozenset[str] = frozenset()
    """Values; what makes or reads one stays float32."""
    summed: frozenset[str] = frozenset()
    """Of LayerNorms whose sum of squares is too large: what they make, which is no larger than others."""

    def __bool__(self) -> bool:
        return bool(self.wide or self.summed)


def kept(package: Path, source: SourceModel) -> Kept:
    """What a float16 package of ``source`` must keep float32: nothing, unless the network is in danger."""
    if not half.dangers(source):
        return Kept()
    stored = read(package)
    function = names.function(stored, source.size)
    try:
        evaluator = Evaluator(stored, function)
        seen = _Seen(evaluator)
        for picture in half.pictures(source):
            evaluator.run(inputs.feed(stored, function, picture, source.preprocessing), seen)
    except RuntimeUnavailable:  # the proof says so; what could not be seen cannot be kept
        return Kept()
    return Kept(frozenset({*seen.wide, *_weights(evaluator)}), frozenset(seen.summed))


class _Seen:
    """A ``watch`` of the evaluator's."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.wide: set[str] = set()
        self.summed: set[str] = set()
        norms = [each for each in evaluator.operations() if each.kind == "layer_norm"]
        self._norms = {each.outputs[0].name: (each.inputs["x"][0], _axes(evaluator, each)) for each in norms}

    def __call__(self, name: str, value: Tensor) -> None:
        import torch

        if value.dtype.kind != "f" or not value.size:
            return
        x = torch.from_numpy(value)
        if half.beyond(half.magnitude(x)):
            self.wide.add(name)
        for made, (given, axes) in self._norms.items():
            if given == name and half.beyond(half.squares(x, axes)):
                self.summed.add(made)


def _axes(evaluator: Evaluator, norm: Operation) -> tuple[int, ...]:
    given = norm.inputs["axes"][0]
    values = given.data if isinstance(given, Constant) else evaluator.constant(given)
    return tuple(int(axis) for axis in np.ravel(values))


def _weights(evaluator: Evaluator) -> Iterator[str]:
    """Constants that end in infinity."""
    import torch

    given = [binding for each in evaluator.operations() for bound in each.inputs.values() for binding in bound]
    for name in {each for each in given if isinstance(each, str) and evaluator.stores(each)}:
        value = evaluator.constant(name)
        if value.dtype.kind == "f" and half.magnitude(torch.from_numpy(value)) > half.END:
            yield name


def takes_half(keep: Kept) -> Callable[[Any], bool]:
    """coremltools' ``op_selector``: whether an operation may be float16."""

    def select(operation: Any) -> bool:
        made = {value.name for value in operation.outputs}
        touched = made | {getattr(value, "name", "") for value in _flat(operation.inputs.values())}
        return keep.wide.isdisjoint(touched) and keep.summed.isdisjoint(made)

    return select


def _flat(values: Any) -> Sequence[Any]:
    return [each for value in values for each in (value if isinstance(value, list | tuple) else [value])]
