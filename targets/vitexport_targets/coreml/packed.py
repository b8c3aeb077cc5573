"""A package in fewer bits beside the float32 one of the same network: the same operations, and what became of weights.

coremltools makes both from one program and keeps the order of its operations, so that they are compared place by place.
A compressed package has more of them: it unpacks (``constexpr_*``), casts, and takes activations through eight bits.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vitexport_targets.coreml.evaluator import Evaluator
from vitexport_targets.coreml.mil import Binding, Constant, Function, Operation
from vitexport_targets.coreml.rounding import to_fp16

if TYPE_CHECKING:
    from vitexport.contract import Tensor, Tensors
    from vitexport_targets.coreml.mil import Package

#: Hand on what they get, in another form.
PASSING = frozenset({"cast", "quantize", "dequantize"})


@dataclass(frozen=True, eq=False)
class Weight:
    """A packed weight, as it unpacks, and what it was."""

    name: str
    unpacked: Tensor
    original: Tensor

    @property
    def noise(self) -> float:
        """rms(unpacked - original) / rms(original)."""
        return noise(self.unpacked, self.original)

    def half_a_step(self, bits: int) -> float:
        """Of evenly spaced values from the largest weight to its negative: what each single weight may be off there,
        and no packing is off on average. Relative, as ``noise``."""
        step = float(np.max(np.abs(self.original))) / (2 ** (bits - 1) - 1)
        return float(step / 2 / (rms(self.original) or 1.0))


@dataclass(frozen=True, eq=False)
class Comparison:
    weights: tuple[Weight, ...]
    operations: int
    differences: tuple[str, ...]
    """A sentence's part for each operation that is another, takes other values or has another constant."""


def compare(package: Package, single: Package, function: str) -> Comparison:
    """``package``, in whatever bits, with the float32 package of the same network."""
    ours, theirs = _Walk(package, function), _Walk(single, function)
    if len(ours.operations) != len(theirs.operations):
        return Comparison((), len(ours.operations), (f"{len(ours.operations)} for {len(theirs.operations)}",))
    weights: dict[str, Weight] = {}
    differences: list[str] = []
    for our, their in zip(ours.operations, theirs.operations, strict=True):
        if _shape(our) != _shape(their):
            differences.append(f"{our.name} for {their.name}")
            continue
        for name, one, other in _bindings(our, their):
            if ours.place(one) != theirs.place(other):
                differences.append(f"{our.name}: '{name}' comes from elsewhere")
            elif ours.packed(one):
                weights[str(one)] = Weight(str(one), ours.stored(one), theirs.stored(other))
            elif not _same(name, ours.constant(one), theirs.constant(other)):
                differences.append(f"{our.name}: another '{name}'")
    return Comparison(tuple(weights.values()), len(ours.operations), tuple(differences))


def _shape(operation: Operation) -> tuple[str, dict[str, int]]:
    """An operation's kind, and how many values each of its parameters takes."""
    return operation.kind, {name: len(bindings) for name, bindings in operation.inputs.items()}


def _bindings(our: Operation, their: Operation) -> Iterator[tuple[str, Binding, Binding]]:
    for name, bindings in our.inputs.items():
        for one, other in zip(bindings, their.inputs[name], strict=True):
            yield name, one, other


def _same(name: str, value: Tensor | None, original: Tensor | None) -> bool:
    """Two constants; or neither is one, and both come from the same place."""
    if value is None or original is None:
        return value is original
    if original.dtype.kind == "f" and np.array_equal(value, to_fp16(original)):
        return True
    if name == "perm":  # a pass of coremltools counts axes from the front
        value, original = value % value.size, original % original.size
    return bool(np.array_equal(value, original))


def roundings(package: Package, single: Package, function: str, picture: Tensors) -> tuple[float, ...]:
    """Of every operation that takes a packed weight or a value in eight bits: the noise that this leaves of what it
    makes of a picture, beside the float32 weight and the value as it was before.

    At the result, for that is where it counts: the weights of a patch embedding add up to little on a smooth picture,
    and what each is off does not.
    """
    originals = {weight.name: weight.original for weight in compare(package, single, function).weights}
    walk = _Walk(package, function)
    values: dict[str, Tensor] = dict(picture)
    walk.evaluator.run(picture, lambda name, value: values.update({name: np.array(value)}))
    exact = originals | _unrounded(walk, values)
    found = []
    for operation in walk.operations:
        taken = {str(binding) for bindings in operation.inputs.values() for binding in bindings}
        if taken & exact.keys():
            true = walk.evaluator.again(operation, values | exact)
            found.append(noise(values[operation.outputs[0].name], true))
    return tuple(found)


def explained(roundings: Sequence[float]) -> float:
    """The noise that independent roundings leave of an answer, where each layer hands on what the last one rounded, no
    less and no more: they add as squares."""
    return math.sqrt(sum(each**2 for each in roundings))


def digest(package: Package, function: str) -> str:
    """SHA-256 of all float constants as the program computes with them, unpacked, in the order of their use."""
    walk = _Walk(package, function, skip=frozenset())
    total = hashlib.sha256()
    for operation in walk.operations:
        for name in sorted(operation.inputs):
            for binding in operation.inputs[name]:
                value = walk.constant(binding)
                if value is not None and value.dtype.kind == "f":
                    total.update(f"{operation.kind} {name} {value.shape}".encode())
                    total.update(np.ascontiguousarray(value, np.float32).tobytes())
    return total.hexdigest()


#: Operations that hand numbers on in another order.
_MOVES = frozenset({"transpose", "reshape", "expand_dims", "squeeze"})


def _unrounded(walk: _Walk, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What each ``dequantize`` would make, had no value been rounded on the way to it: coremltools may move a transpose
    or a reshape in between."""
    eight: dict[str, tuple[Tensor, Tensor]] = {}  # what a value in eight bits was before, and its scale
    exact = {}
    for operation in walk.evaluator.operations():
        name = operation.outputs[0].name
        taken = [str(b) for bindings in operation.inputs.values() for b in bindings if not isinstance(b, Constant)]
        if operation.kind == "quantize":
            eight[name] = values[taken[0]], walk.scale(operation)
        elif moved := next((binding for binding in taken if binding in eight), None):
            before, scale = eight[moved]
            if operation.kind == "dequantize":
                exact[name] = before * (walk.scale(operation) / scale)
            elif operation.kind in _MOVES:
                eight[name] = _moved(walk, operation, values, moved, before), scale
    return exact


def _moved(walk: _Walk, operation: Operation, values: Mapping[str, Tensor], name: str, before: Tensor) -> Tensor:
    """What ``operation``, which takes ``name`` in eight bits, makes of ``before``: byte by byte, because it is held to
    its type."""
    planes = np.ascontiguousarray(before, "<f4").view(values[name].dtype).reshape(*before.shape, 4)
    made = [walk.evaluator.again(operation, {**values, name: planes[..., byte]}) for byte in range(4)]
    return np.stack(made, -1).view("<f4")[..., 0]


class _Walk:
    """A function's operations in order, but for those that only hand on, and where each value comes from."""

    def __init__(self, package: Package, function: str, skip: frozenset[str] = PASSING) -> None:
        found: Function = package.functions[function]
        self.evaluator = Evaluator(package, function)
        self._made = {o.outputs[0].name: o for o in found.operations if o.kind.startswith(("const", "constexpr_"))}
        running = self.evaluator.operations()
        self.operations: list[Operation] = [o for o in running if o.kind not in skip]
        places: dict[str, Any] = {named.name: f"input {index}" for index, named in enumerate(found.inputs)}
        index = 0
        for operation in running:
            if operation.kind in skip:
                places[operation.outputs[0].name] = self._source(operation, places)
                continue
            for slot, output in enumerate(operation.outputs):
                places[output.name] = (index, slot)
            index += 1
        self._places = places

    def _source(self, operation: Operation, places: Mapping[str, Any]) -> Any:
        (binding,) = operation.inputs["x" if operation.kind == "cast" else "input"]
        return places.get(str(binding), str(binding))

    def place(self, binding: Binding) -> Any:
        """Which operation makes a value, by its place; None of a constant."""
        return None if isinstance(binding, Constant) or binding in self._made else self._places[binding]

    def constant(self, binding: Binding) -> Tensor | None:
        """As the program computes with it: unpacked. None of a value that is made at run time."""
        if isinstance(binding, Constant):
            return binding.data
        return self.evaluator.constant(binding) if binding in self._made else None

    def stored(self, binding: Binding) -> Tensor:
        found = self.constant(binding)
        assert found is not None
        return found

    def scale(self, operation: Operation) -> Tensor:
        """Of a ``quantize`` or ``dequantize``; one for the whole tensor, as coremltools makes them of activations."""
        return self.stored(operation.inputs["scale"][0])

    def packed(self, binding: Binding) -> bool:
        """Whether it is a constant in fewer bits."""
        return isinstance(binding, str) and binding in self._made and self._made[binding].kind != "const"


def noise(a: Tensor, b: Tensor) -> float:
    """rms(a-b) / rms(b); where b is all zero, rms(a)."""
    return rms(np.subtract(a, b, dtype=np.float64)) / (rms(b) or 1.0)


def rms(values: Tensor) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
