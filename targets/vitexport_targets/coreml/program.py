"""An ML Program out of its protobuf message. Numbers of fields are those of coremltools' ``MIL.proto``
(https://github.com/apple/coremltools/blob/main/mlmodel/format/MIL.proto)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from vitexport_targets.coreml.blob import ELEMENT_TYPES, unpack
from vitexport_targets.coreml.mil import Binding, Constant, Function, Named, Operation, ValueType
from vitexport_targets.coreml.wire import BadPackage, Message

#: (file name, offset, dtype, shape, whose) -> the constant in a weight file.
Weights = Callable[[str, int, str, tuple[int, ...], str], NDArray[Any]]

#: Of MIL.proto, by number. The 8-bit floats and bfloat16, which no released opset takes, are left out.
_DTYPES: Final[Mapping[int, str]] = {
    1: "bool",
    2: "string",
    10: "float16",
    11: "float32",
    12: "float64",
    21: "int8",
    22: "int16",
    23: "int32",
    24: "int64",
    25: "int4",
    31: "uint8",
    32: "uint16",
    33: "uint32",
    34: "uint64",
    35: "uint4",
    36: "uint2",
    37: "uint1",
    38: "uint6",
    39: "uint3",
}

_KINDS: Final[Mapping[int, Literal["tensor", "list", "tuple", "dictionary", "state"]]] = {
    1: "tensor",
    2: "list",
    3: "tuple",
    4: "dictionary",
    5: "state",
}

_VERSION = 1  # of MIL.proto's Program; there has been no other


def functions(program: Message, weights: Weights) -> dict[str, Function]:
    """Every function of a ``MIL.Program``, constants read. Raises :class:`BadPackage`."""
    version = program.integer(1, "the program's version")
    if version != _VERSION:
        raise BadPackage(
            f"The ML Program has version {version}; this reader knows version {_VERSION}. Export it with coremltools 9."
        )
    found = {
        name: _function(name, message, weights)
        for name, message in program.mapping(2, "the program's function").items()
    }
    if not found:
        raise BadPackage("The ML Program has no function. Export it again.")
    return found


def _function(name: str, message: Message, weights: Weights) -> Function:
    opset = message.name(2, f"the opset of '{name}'")
    blocks = message.mapping(3, f"the block of '{name}'")
    if opset not in blocks:
        raise BadPackage(f"Function '{name}' is for opset '{opset}', and has no block for it. Export it again.")
    block = blocks[opset]
    return Function(
        name,
        opset,
        tuple(_named(m, f"an input of '{name}'") for m in message.messages(1, f"an input of '{name}'")),
        tuple(_operation(m, weights) for m in block.messages(3, f"an operation of '{name}'")),
        tuple(block.names(2, f"an output of '{name}'")),
    )


def _operation(message: Message, weights: Weights) -> Operation:
    kind = message.name(1, "an operation's type")
    outputs = tuple(_named(m, f"an output of '{kind}'") for m in message.messages(3, f"an output of '{kind}'"))
    who = f"{kind} ({outputs[0].name if outputs else '-'})"
    inputs = {
        name: tuple(_binding(m, weights, f"{who}: '{name}'") for m in argument.messages(1, f"{who}: '{name}'"))
        for name, argument in message.mapping(2, f"{who}: argument").items()
    }
    attributes = {
        name: constant(m, weights, f"{who}: '{name}'") for name, m in message.mapping(5, f"{who}: attribute").items()
    }
    blocks = message.messages(4, f"{who}: block")
    for block in blocks:
        _walk(block)
    return Operation(kind, inputs, outputs, attributes, len(blocks))


def _walk(block: Message) -> None:
    """Control flow is not evaluated; but a block that nests without end is refused while it is read."""
    for operation in block.messages(3, "a nested operation"):
        for inner in operation.messages(4, "a nested block"):
            _walk(inner)


def _binding(message: Message, weights: Weights, what: str) -> Binding:
    if 2 in message:
        return constant(message.message(2, what), weights, what)
    name = message.name(1, what)
    if not name:
        raise BadPackage(f"{what} is bound to nothing. Export the model again.")
    return name


def _named(message: Message, what: str) -> Named:
    name = message.name(1, what)
    if not name:
        raise BadPackage(f"{what[:1].upper()}{what[1:]} has no name. Export the model again.")
    return Named(name, value_type(message.message(2, f"the type of '{name}'"), name))


def value_type(message: Message, whose: str) -> ValueType:
    """A ``MIL.ValueType``. A list's elements and a dictionary's values give their own dtype and shape."""
    if len(message.numbers) != 1 or message.numbers[0] not in _KINDS:
        raise BadPackage(f"'{whose}' has no type that MIL knows. Export the model again.")
    number = message.numbers[0]
    kind = _KINDS[number]
    inner = message.message(number, f"the type of '{whose}'")
    if kind == "tensor":
        return _tensor_type(inner, whose)
    if kind == "tuple":
        return ValueType("tuple", kind="tuple")
    element = value_type(inner.message(2 if kind == "dictionary" else 1, f"the type of what is in '{whose}'"), whose)
    if kind == "list":
        return ValueType(element.dtype, (_dimension(inner.message(2, f"the length of '{whose}'"), whose),), kind)
    return ValueType(element.dtype, element.shape, kind)


def _tensor_type(message: Message, whose: str) -> ValueType:
    number = message.integer(1, f"the element type of '{whose}'")
    if number not in _DTYPES:
        raise BadPackage(f"'{whose}' has element type {number}, which this reader does not know. Export it again.")
    shape = tuple(_dimension(m, whose) for m in message.messages(3, f"a dimension of '{whose}'"))
    rank = message.integer(2, f"the rank of '{whose}'")
    if rank not in (len(shape), -1):
        raise BadPackage(f"'{whose}' has rank {rank} and {len(shape)} dimensions. Export the model again.")
    return ValueType(_DTYPES[number], shape)


def _dimension(message: Message, whose: str) -> int | None:
    if 1 not in message:
        return None
    size = message.message(1, f"a dimension of '{whose}'").integer(1, f"a dimension of '{whose}'")
    if size < 0:
        raise BadPackage(f"'{whose}' has a dimension of {size}. Export the model again.")
    return size


# ------------------------------------------------------------------------------------------------------- constants


def constant(message: Message, weights: Weights, what: str) -> Constant:
    """A ``MIL.Value``: written on the spot or kept in a weight file."""
    declared = value_type(message.message(2, f"the type of {what}"), what)
    if 5 in message:
        return _stored(message.message(5, what), declared, weights, what)
    if 3 not in message:
        raise BadPackage(f"{what} has no value. Export the model again.")
    content = message.message(3, what)
    if declared.kind == "list":
        return Constant(declared, _list(content.message(3, what), declared, weights, what))
    if declared.kind != "tensor":
        raise BadPackage(f"{what} is a constant {declared.kind}, which this reader does not know. Export it again.")
    return Constant(declared, _tensor(content.message(1, what), declared.dtype, _fixed(declared, what), what))


def _stored(message: Message, declared: ValueType, weights: Weights, what: str) -> Constant:
    file, offset = message.name(1, what), message.integer(2, what)
    shape = _fixed(declared, what)
    if declared.kind != "tensor" or declared.dtype not in ELEMENT_TYPES:
        raise BadPackage(f"{what} is a {declared} in a weight file, where only numbers are kept. Export it again.")
    data = weights(file, offset, declared.dtype, shape, what)
    return Constant(declared, data, data.nbytes)


def _list(message: Message, declared: ValueType, weights: Weights, what: str) -> NDArray[Any]:
    values = [constant(m, weights, what).data for m in message.messages(1, what)]
    if any(v.shape or v.dtype.kind != values[0].dtype.kind for v in values):
        raise BadPackage(f"{what} is a list of unlike values. Export the model again.")
    if declared.shape[0] not in (None, len(values)):
        raise BadPackage(f"{what} is a list of {len(values)} values, declared {declared}. Export the model again.")
    return np.array([v.item() for v in values])


def _tensor(message: Message, dtype: str, shape: tuple[int, ...], what: str) -> NDArray[Any]:
    """A ``MIL.TensorValue``: which field holds the elements follows from their type."""
    flat = _elements(message, dtype, what)
    if flat is None:
        return unpack(message.message(7, what).bytes(1, what), dtype, shape, what)
    if len(flat) != math.prod(shape):
        raise BadPackage(
            f"{what} has {len(flat)} elements, and its shape {list(shape)} takes {math.prod(shape)}. "
            "Export the model again."
        )
    return flat.reshape(shape)


def _elements(message: Message, dtype: str, what: str) -> NDArray[Any] | None:
    """Flat; None where they are kept as raw bytes."""
    match dtype:
        case "string":
            return np.array(message.message(4, what).texts(1, what), np.str_)
        case "float32":
            return message.message(1, what).reals(1, what, np.float32)
        case "float64":
            return message.message(6, what).reals(1, what, np.float64)
        case "bool":
            return message.message(3, what).integers(1, what).astype(np.bool_)
        case "int16" | "uint16" | "int32":
            return _narrowed(message.message(2, what).integers(1, what), dtype, what)
        case "int64" | "uint64":
            return message.message(5, what).integers(1, what).astype(dtype)
        case _:
            return None


def _narrowed(wide: NDArray[np.int64], dtype: str, what: str) -> NDArray[Any]:
    limits = np.iinfo(dtype)
    if len(wide) and not (limits.min <= wide.min() and wide.max() <= limits.max):
        raise BadPackage(f"{what} has a number that {dtype} cannot hold. Export the model again.")
    return wide.astype(dtype)


def _fixed(declared: ValueType, what: str) -> tuple[int, ...]:
    sides = tuple(n for n in declared.shape if n is not None)
    if len(sides) != len(declared.shape):
        raise BadPackage(f"{what} is a constant of open size. Export the model again.")
    return sides
