"""What a package computes on the way, by the names of the float32 package of the same network.

coremltools makes all packages of a network from one program and keeps the order of its operations, but not their names
(``linear`` becomes ``linear_0_cast_fp16``). What only hands on (casts, activations through eight bits) is skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitexport.contract import Value
from vitexport_targets.coreml import names
from vitexport_targets.coreml.package import read
from vitexport_targets.coreml.packed import PASSING

if TYPE_CHECKING:
    from pathlib import Path

    from vitexport.contract import Bundle
    from vitexport_targets.coreml.mil import Operation


def values(bundle: Bundle, precision: str) -> dict[str, Value]:
    """Those of a variant, as far as its operations are those of the float32 package."""
    ours = _operations(names.package(bundle, precision), bundle)
    theirs = ours if precision == "fp32" else _operations(names.twin(bundle, precision), bundle)
    answers = {output.name for output in bundle.rung.outputs}
    found: dict[str, Value] = {}
    for our, their in zip(ours, theirs, strict=False):
        if our.kind != their.kind or len(our.outputs) != len(their.outputs):
            break
        for made, single in zip(our.outputs, their.outputs, strict=True):
            if made.type.kind == "tensor" and made.type.dtype.startswith("float") and single.name not in answers:
                shape = tuple(n for n in made.type.shape if n is not None)
                found[single.name] = Value(made.name, shape if len(shape) == len(made.type.shape) else None)
    return found


def _operations(package: Path, bundle: Bundle) -> list[Operation]:
    """Those that compute."""
    stored = read(package)
    running = stored.functions[names.function(stored, bundle.rung.size)].operations
    return [o for o in running if not o.kind.startswith("const") and o.kind not in PASSING]
