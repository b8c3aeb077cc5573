"""Operations that must stay float32 in a float16 package, because their values leave float16's range.

PyTorch code upcasts by hand where half precision overflows: EfficientViT's linear attention sums over all tokens before
it divides, and timm computes it in float32 whatever the rest is in. A captured float32 program has no trace of that,
and ``compute_precision=FLOAT16`` takes all of it: infinity by infinity, and every answer is NaN. So the float32 package
is asked first, on the photos; what comes near the end of float16's range, and what reads it, keeps float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitexport.contract import SourceModel
from vitexport.errors import RuntimeUnavailable
from vitexport.preprocess import preprocess
from vitexport_targets.coreml import inputs, names
from vitexport_targets.coreml.evaluator import Evaluator
from vitexport_targets.coreml.package import read

if TYPE_CHECKING:
    from vitexport.contract import Tensor

#: A quarter of the largest float16: other photos than these may reach further.
LARGEST = 65_504.0 / 4


def wide_values(package: Path, source: SourceModel) -> frozenset[str]:
    """Names of the values of a float32 package that pass ``LARGEST`` on the source's pictures."""
    found: set[str] = set()

    def watch(name: str, value: Tensor) -> None:
        if value.dtype.kind == "f" and value.size and not np.max(np.abs(value)) <= LARGEST:
            found.add(name)

    stored = read(package)
    function = names.function(stored, source.size)
    try:
        evaluator = Evaluator(stored, function)
        for probe in source.probes:
            pixel_values = preprocess(probe.image, source.preprocessing)
            evaluator.run(inputs.feed(stored, function, pixel_values, source.preprocessing), watch)
    except RuntimeUnavailable:  # the proof says so; what could not be seen cannot be kept
        return frozenset()
    return frozenset(found)


def takes_half(wide: frozenset[str]) -> Callable[[Any], bool]:
    """coremltools' ``op_selector``: whether an operation may be float16."""

    def select(operation: Any) -> bool:
        touched = [*operation.outputs, *_flat(operation.inputs.values())]
        return not any(value.name in wide for value in touched)

    return select


def _flat(values: Any) -> Sequence[Any]:
    return [each for value in values for each in (value if isinstance(value, list | tuple) else [value])]
