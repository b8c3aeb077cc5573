"""Runs an ML Program where Core ML does not exist: op by op, from the package as it was saved.

It proves that the file computes what PyTorch computes, by Core ML's documented semantics; it is not Apple's runtime and
says nothing about the one in a phone. Three arithmetics:

``exact``   float32 throughout, on constants as stored: is the graph right?
``double``  the same in float64: the oracle for the first.
``fp16``    every value that is declared float16 is rounded to it when it is made, sums inside an op stay float32: what
            half precision costs, at best. What overflows shows as inf or NaN.

A value's declared shape and kind of number are checked as it is made. What is not known is ``RuntimeUnavailable``
naming it, never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vitexport.errors import BadRequest, RuntimeUnavailable, did_you_mean
from vitexport_targets.coreml.mil import Constant, Feature, Function, Named, Operation, Package, ValueType
from vitexport_targets.coreml.ops import TABLE
from vitexport_targets.coreml.ops.bounds import MOST_ELEMENTS
from vitexport_targets.coreml.ops.signature import Op, Parameter, Tensor, Value
from vitexport_targets.coreml.wire import BadPackage

Arithmetic = Literal["exact", "double", "fp16"]
Watch = Callable[[str, NDArray[Any]], None]

#: iOS 15 to 18. A later opset may give an old name another meaning.
KNOWN_OPSETS: Final = ("CoreML5", "CoreML6", "CoreML7", "CoreML8")

#: What holds a value of each of MIL's types; torch computes with no unsigned integer wider than a byte.
_HELD: Final[Mapping[str, torch.dtype]] = {
    "bool": torch.bool,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "int4": torch.int8,
    "uint8": torch.uint8,
    "uint16": torch.int32,
    "uint32": torch.int64,
    "uint64": torch.int64,
    "uint1": torch.uint8,
    "uint2": torch.uint8,
    "uint3": torch.uint8,
    "uint4": torch.uint8,
    "uint6": torch.uint8,
}

#: What torch and numpy raise at operands that do not go together.
_MISFITS = (RuntimeError, ValueError, IndexError, TypeError, KeyError, OverflowError, ZeroDivisionError, MemoryError)


@dataclass(frozen=True, eq=False)
class _Argument:
    """Bound to constants, which are converted once, or to names of values that are yet to be made."""

    parameter: Parameter
    sources: tuple[str | Value, ...]

    def given(self, values: Mapping[str, Value]) -> Any:
        found = [values[s] if isinstance(s, str) else s for s in self.sources]
        if self.parameter.several:
            return tuple(self.parameter.convert(v) for v in found)
        if len(found) != 1:
            raise ValueError(f"takes one value for a parameter and gets {len(found)}")
        return self.parameter.convert(found[0])


@dataclass(frozen=True, eq=False)
class _Step:
    operation: Operation
    op: Op
    arguments: Mapping[str, _Argument]
    done_with: tuple[str, ...] = ()
    """Values that nothing after this step asks for."""

    @property
    def asks_for(self) -> set[str]:
        return {s for a in self.arguments.values() for s in a.sources if isinstance(s, str)}


class Evaluator:
    """One function of a package, ready to run.

    Raises ``RuntimeUnavailable`` where the function needs what is not known here (an op, an attribute, an opset, a
    state), ``BadPackage`` where it cannot be right, ``BadRequest`` where there is no such function.
    """

    def __init__(
        self,
        package: Package,
        function: str = "main",
        *,
        arithmetic: Arithmetic = "exact",
    ) -> None:
        self._function = _find(package, function)
        self._features = (
            {f.name: f for f in package.interfaces[function].inputs} if function in package.interfaces else {}
        )
        self._float = torch.float64 if arithmetic == "double" else torch.float32
        self._rounds = arithmetic == "fp16"
        self._constants: dict[str, Value] = {}
        with torch.inference_mode(), _one_thread():
            self._steps = self._plan()

    def run(self, inputs: Mapping[str, NDArray[Any]], watch: Watch | None = None) -> dict[str, NDArray[Any]]:
        """Outputs by name; floats as float32 (``double``: float64), a classifier's probabilities as an array in the
        order of its labels.

        ``inputs`` are by name, in the program's layout: an image is (1, channels, height, width) with values 0..255.
        ``watch`` is called with each value as it is made, by name.
        """
        with torch.inference_mode(), _one_thread():
            values = dict(self._constants)
            for named in self._function.inputs:
                values[named.name] = self._input(named, inputs)
            for step in self._steps:
                made = self._do(step, values)
                values |= made
                for name, value in made.items() if watch else ():
                    watch(name, _array(value))  # type: ignore[misc]  # mypy does not see that it is not None here
                for name in step.done_with:
                    del values[name]
            return {name: _array(values[name]) for name in self._function.outputs}

    def operations(self) -> tuple[Operation, ...]:
        """Those that run at each inference, in order: no constants and nothing that is unpacked when it loads."""
        return tuple(step.operation for step in self._steps)

    def again(self, operation: Operation, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """What one of :meth:`operations` makes first of other ``values``, constants among them where they are named."""
        (step,) = (step for step in self._steps if step.operation is operation)
        with torch.inference_mode(), _one_thread():
            given = {name: self._held(value) for name, value in values.items()}
            made = self._do(step, {**self._constants, **given})
            return _array(made[operation.outputs[0].name])

    def stores(self, name: str) -> bool:
        """Whether a value is one of the program's constants."""
        return name in self._constants

    def constant(self, name: str) -> NDArray[Any]:
        """A constant as the program computes with it: unpacked."""
        return _array(self._constants[name])

    # ------------------------------------------------------------------------------------------------- loading

    def _plan(self) -> tuple[_Step, ...]:
        known = {named.name for named in self._function.inputs}
        steps: list[_Step] = []
        for operation in self._function.operations:
            if operation.kind == "const":
                made = {operation.outputs[0].name: self._stored(operation)} if operation.outputs else {}
                self._constants |= made
            else:
                step = self._step(operation)
                if missing := step.asks_for - known:
                    raise BadPackage(
                        f"{operation.name} uses '{min(missing)}' before it is made. Export the model again."
                    )
                if operation.kind.startswith("constexpr_"):
                    self._constants |= self._do(step, self._constants)
                else:
                    steps.append(step)
            for output in operation.outputs:
                if output.name in known:
                    raise BadPackage(f"{operation.name} makes '{output.name}' again. Export the model again.")
                known.add(output.name)
        if missing := set(self._function.outputs) - known:
            raise BadPackage(f"The output '{min(missing)}' is never made. Export the model again.")
        return _with_lifetimes(steps, {*self._function.outputs, *self._constants})

    def _step(self, operation: Operation) -> _Step:
        op = TABLE.get(operation.kind)
        if op is None or operation.blocks:
            raise RuntimeUnavailable(f"The MIL evaluator does not know the op {operation.name}")
        bound: dict[str, tuple[Any, ...]] = {name: (c,) for name, c in operation.attributes.items() if name != "name"}
        bound |= operation.inputs
        for name in bound:
            if name not in op.parameters:
                raise RuntimeUnavailable(f"The MIL evaluator does not know the attribute '{name}' of {operation.name}")
        for name, parameter in op.parameters.items():
            if parameter.required and name not in bound:
                raise BadPackage(f"{operation.name} lacks its '{name}'. Export the model again.")
        arguments = {
            name: _Argument(
                op.parameters[name], tuple(self._value(s) if isinstance(s, Constant) else s for s in sources)
            )
            for name, sources in bound.items()
        }
        return _Step(operation, op, arguments)

    def _stored(self, operation: Operation) -> Value:
        constant, output = operation.attributes.get("val"), operation.outputs[0]
        if constant is None:
            raise BadPackage(f"{operation.name} has no value. Export the model again.")
        if constant.type != output.type:
            raise BadPackage(f"{operation.name} is declared {output.type} and holds {constant.type}. Export it again.")
        return self._value(constant)

    def _value(self, constant: Constant) -> Value:
        if constant.data.dtype.kind in "Uf":
            return self._held(constant.data)
        return torch.from_numpy(np.array(constant.data)).to(_HELD[constant.type.dtype])

    def _held(self, data: NDArray[Any]) -> Value:
        """Floats in the width that is computed in, all else as it is."""
        if data.dtype.kind == "U":
            return data
        return torch.from_numpy(np.array(data)).to(self._float if data.dtype.kind == "f" else None)

    # ------------------------------------------------------------------------------------------------- running

    def _input(self, named: Named, inputs: Mapping[str, NDArray[Any]]) -> Value:
        if named.name not in inputs:
            raise BadRequest(f"The model takes '{named.name}', and got {', '.join(inputs) or 'nothing'}.")
        given = inputs[named.name]
        feature = self._features.get(named.name)
        if not _fits(given.shape, named.type.shape) or (feature and not _allowed(given.shape, feature)):
            raise BadRequest(f"'{named.name}' takes {named.type}, and got the shape {list(given.shape)}.")
        return self._as_declared(torch.from_numpy(np.array(given)), named.type, named.name)

    def _do(self, step: _Step, values: Mapping[str, Value]) -> dict[str, Value]:
        operation = step.operation
        for output in operation.outputs:
            if math.prod(n or 1 for n in output.type.shape) > MOST_ELEMENTS:
                raise BadPackage(f"{operation.name} makes {output.type}, which no phone holds. Export the model again.")
        try:
            made = step.op.apply(**{name: a.given(values) for name, a in step.arguments.items()})
        except NotImplementedError as error:
            raise RuntimeUnavailable(f"The MIL evaluator does not know {operation.name} with {error}") from error
        except _MISFITS as error:
            said = str(error).partition("\n")[0]
            raise BadPackage(f"{operation.name} cannot be computed: {said}. Export the model again.") from error
        several = made if isinstance(made, tuple | list) else (made,)
        if len(several) != len(operation.outputs):
            raise BadPackage(f"{operation.name} makes {len(several)} values and declares {len(operation.outputs)}.")
        stored = operation.kind.startswith("constexpr_")
        return {
            output.name: self._checked(value, output, operation, stored)
            for output, value in zip(operation.outputs, several, strict=True)
        }

    def _checked(self, value: Value, output: Named, operation: Operation, stored: bool) -> Value:
        if output.type.kind == "dictionary":
            return value
        if not _fits(tuple(value.shape), output.type.shape):
            raise BadPackage(
                f"{operation.name} declares {output.type} and makes {list(value.shape)}. Export the model again."
            )
        if not isinstance(value, torch.Tensor):
            return value
        if stored and output.type.dtype == "float16":  # what is unpacked is a float16 weight, in any arithmetic
            return value.half().to(self._float)
        return self._as_declared(value, output.type, output.name)

    def _as_declared(self, value: Tensor, declared: ValueType, name: str) -> Tensor:
        held = self._float if declared.dtype.startswith("float") else _HELD.get(declared.dtype)
        if held is None or _kind(value.dtype) != _kind(held):
            raise BadPackage(f"'{name}' is declared {declared}, and is of {value.dtype}. Export the model again.")
        if self._rounds and declared.dtype == "float16":
            return value.half().to(held)
        return value.to(held)


def _find(package: Package, name: str) -> Function:
    if name not in package.functions:
        raise BadRequest(
            f"'{package.path.name}' has no function '{name}'.{did_you_mean(name, package.functions)} "
            f"It has: {', '.join(package.functions)}."
        )
    function = package.functions[name]
    if function.opset not in KNOWN_OPSETS:
        raise RuntimeUnavailable(
            f"The MIL evaluator knows the opsets {', '.join(KNOWN_OPSETS)}; '{name}' is written in '{function.opset}'"
        )
    for named in function.inputs:
        if named.type.kind != "tensor":
            raise RuntimeUnavailable(
                f"The MIL evaluator has no inputs of the kind '{named.type.kind}' ('{named.name}')"
            )
    return function


def _with_lifetimes(steps: list[_Step], kept: set[str]) -> tuple[_Step, ...]:
    """Each step with the values it is the last to ask for, so that memory holds no more than it must."""
    asked: set[str] = set(kept)
    ordered: list[_Step] = []
    for step in reversed(steps):
        made = {output.name for output in step.operation.outputs}
        done_with = (step.asks_for | made) - asked  # what it makes and nobody asks for goes at once
        asked |= step.asks_for
        ordered.append(_Step(step.operation, step.op, step.arguments, tuple(sorted(done_with))))
    return tuple(reversed(ordered))


def _fits(shape: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    return len(shape) == len(declared) and all(want in (None, n) for n, want in zip(shape, declared, strict=True))


def _allowed(shape: tuple[int, ...], feature: Feature) -> bool:
    """Whether an app may hand over this shape; an image has no batch."""
    sides = shape[1:] if feature.kind == "image" else shape
    if feature.shapes:
        return sides in feature.shapes
    limits = feature.ranges
    return not limits or all(low <= n and (high < 0 or n <= high) for n, (low, high) in zip(sides, limits, strict=True))


def _kind(dtype: torch.dtype) -> str:
    return "float" if dtype.is_floating_point else "bool" if dtype == torch.bool else "int"


def _array(value: Value) -> NDArray[Any]:
    found: NDArray[Any] = value.numpy() if isinstance(value, torch.Tensor) else value
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch's threads wait by spinning: on a machine that is busy, two were ten times slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
