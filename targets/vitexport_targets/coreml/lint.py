"""Which operations of a package go against Apple's advice for the Neural Engine, counted from the program.

Apple publishes no list of what the Neural Engine takes. These are the rules that it gives
(https://machinelearning.apple.com/research/neural-engine-transformers) and what limits are known of its tensors; where
an operation runs only a Mac or an iPhone tells (``MLComputePlan``).
"""

from __future__ import annotations

from collections.abc import Mapping

from vitexport.contract import Bundle, Finding, Lint
from vitexport_targets.coreml import names
from vitexport_targets.coreml.indicators import GATHERS, MOST_DIMENSIONS
from vitexport_targets.coreml.mil import Function, Operation, ValueType
from vitexport_targets.coreml.package import read

#: Of one side of a tensor: beyond it, what is known of the Neural Engine's textures ends.
LARGEST_SIDE = 16_384

_BASIS = (
    "Apple's advice for the Neural Engine, not its word, of the program's operations but for constants: where one runs "
    "only a device tells"
)

#: What is in float32 of a package that is not: a picture's scaling, and what float16 cannot hold.
_KEPT = (
    "Leave it: what float16 cannot hold, and a picture's scaling, stay float32 in every precision. --tensor-input has "
    "no scaling."
)


def lint(bundle: Bundle, precision: str) -> Lint:
    """Raises ``BadPackage`` where the package is damaged."""
    package = read(names.package(bundle, precision))
    function = package.functions[names.function(package, bundle.rung.size)]
    operations = [o for o in function.operations if not o.kind.startswith("const")]
    return Lint("the Neural Engine", _BASIS, len(operations), examine(function, precision))


def examine(function: Function, precision: str) -> tuple[Finding, ...]:
    """``precision`` is what the package was exported as."""
    types = {named.name: named.type for named in function.inputs}
    for operation in function.operations:
        types |= {output.name: output.type for output in operation.outputs}
    findings = []
    for operation in function.operations:
        if operation.kind.startswith("const"):
            continue
        if found := _against(operation, types, precision):
            name = operation.outputs[0].name if operation.outputs else "-"
            findings.append(Finding(operation.name, name, *found))
    return tuple(findings)


def _against(operation: Operation, types: Mapping[str, ValueType], precision: str) -> tuple[str, str] | None:
    """Which rule it goes against and what would mend it; None where it keeps them all."""
    if operation.blocks:
        return "branches or repeats", "Write the layer without control flow."
    if operation.kind in GATHERS:
        return "looks values up by index", "Index with slices, or multiply by a constant matrix of zeros and ones."
    read = (
        types[name] for bound in operation.inputs.values() for name in bound if isinstance(name, str) and name in types
    )
    for value in (*read, *(output.type for output in operation.outputs)):
        if value.kind != "tensor":
            continue
        if len(value.shape) > MOST_DIMENSIONS:
            return (
                f"has a tensor of {len(value.shape)} dimensions ({value})",
                "Keep to four: --layout ane does for a plain ViT; else fold windows and heads into the batch.",
            )
        if any(side is None for side in value.shape):
            return f"has a tensor of no fixed shape ({value})", "Export a size, or a ladder of sizes."
        if any(side is not None and side > LARGEST_SIDE for side in value.shape):
            return f"has a side of more than {LARGEST_SIDE:,} ({value})", "Export a smaller size, or split the tensor."
    if any(output.type.dtype == "float32" for output in operation.outputs) and operation.kind != "cast":
        return "computes in float32", "Ship fp16." if precision == "fp32" else _KEPT
    return None
