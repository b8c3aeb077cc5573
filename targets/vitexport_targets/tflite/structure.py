"""What a ``.tflite`` holds but for its numbers, read without LiteRT: nothing is believed that is not checked.

LiteRT's interpreter takes much of this on trust, and crashes where the trust is misplaced; and it says of most other
faults no more than where in its own source it noticed. The numbers of fields are those of ``schema.fbs``:
https://github.com/google-ai-edge/LiteRT/blob/main/tflite/converter/schema/schema.fbs
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import tflite

from vitexport_targets.tflite.flatbuffer import BadFile, File, Table

_IDENTIFIER: Final = b"TFL3"
_ABSENT: Final = -1  # the index of an optional operand that is not there

#: Element types in the schema's order, and the bits of an element; 0 where it says nothing of them.
_BITS: Final[Mapping[str, int]] = {
    "float32": 32,
    "float16": 16,
    "int32": 32,
    "uint8": 8,
    "int64": 64,
    "string": 0,
    "bool": 8,
    "int16": 16,
    "complex64": 64,
    "int8": 8,
    "float64": 64,
    "complex128": 128,
    "uint64": 64,
    "resource": 0,
    "variant": 0,
    "uint32": 32,
    "uint16": 16,
    "int4": 4,
    "bfloat16": 16,
    "int2": 2,
    "uint4": 4,
    "float8_e4m3fn": 8,
    "float8_e5m2": 8,
}
_TYPES: Final = tuple(_BITS)

_OPERATIONS: Final[Mapping[int, str]] = {
    code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)
}
_CUSTOM: Final = tflite.BuiltinOperator.CUSTOM


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str
    """``float32``, ``float16``, ``int8``, ``int4``, ..."""
    shape: tuple[int, ...]
    buffer: int
    stored: int
    """Bytes of the file that are its value; 0 where it is computed."""

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """In memory; 0 where its type does not say."""
        return (self.size * _BITS[self.dtype] + 7) // 8


@dataclass(frozen=True)
class Graph:
    tensors: tuple[Tensor, ...]
    inputs: frozenset[int]
    outputs: tuple[int, ...]
    """In the order in which a runtime gives them."""
    operations: tuple[str, ...]
    """In order: ``CONV_2D``, or a custom operation's own name."""
    reads: tuple[tuple[int, ...], ...]
    """Indices of what each operation takes; an operand that is not there is left out."""
    makes: tuple[tuple[int, ...], ...]
    """Indices of what each operation computes."""

    @property
    def computed(self) -> tuple[int, ...]:
        """Of all operations, in order."""
        return tuple(index for made in self.makes for index in made)


@dataclass(frozen=True)
class Signature:
    graph: int
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Structure:
    graphs: tuple[Graph, ...]
    signatures: Mapping[str, Signature]
    custom: tuple[str, ...]
    """Operations that are not LiteRT's own."""


def read(content: bytes, name: str = "The file") -> Structure:
    """Raises :class:`BadFile` with what is wrong with the file called ``name``."""
    file = File(content, name)
    model = file.root(_IDENTIFIER, "TensorFlow Lite model")
    if model.tables(8, "group of files") or model.tables(9, "constant in another file"):
        raise BadFile(f"{name} keeps constants in other files, which none of vitexport's does")
    buffers = [_held(table, file) for table in model.tables(4, "buffer")]
    for entry in model.tables(6, "metadata entry"):
        _one_of(entry.number(1, "I"), buffers, "buffer", f"{name}: the metadata entry '{entry.text(0)}'")
    codes = model.tables(1, "operator code")
    kinds = [_kind(code) for code in codes]
    custom = tuple(kind for code, kind in zip(codes, kinds, strict=True) if _number(code) == _CUSTOM)
    graphs = tuple(_graph(table, kinds, buffers, name) for table in model.tables(2, "graph"))
    if not graphs:
        raise BadFile(f"{name} holds no graph")
    signatures: dict[str, Signature] = {}
    for table in model.tables(7, "signature"):
        key = table.text(2)
        if key in signatures:
            raise BadFile(f"{name} has two signatures '{key}'")
        signatures[key] = _signature(table, graphs, f"{name}: the signature '{key}'")
    return Structure(graphs, signatures, custom)


def _held(buffer: Table, file: File) -> int:
    inside = buffer.size(0)
    offset, size = buffer.number(1, "Q"), buffer.number(2, "Q")  # of those behind the 2 GiB that offsets reach
    if offset + size > len(file.content):
        raise file.damaged(buffer.what)
    return max(inside, size)


def _number(code: Table) -> int:
    # Codes above 127 do not fit the older field, and files older than the newer field have a 0 there.
    return max(code.number(3, "i"), code.number(0, "b"))


def _kind(code: Table) -> str:
    number = _number(code)
    return code.text(1) if number == _CUSTOM else _OPERATIONS.get(number, f"number {number}")


def _graph(table: Table, kinds: Sequence[str], buffers: Sequence[int], name: str) -> Graph:
    said = f"{name}: {table.what}"
    entries = table.tables(0, f"{table.what}'s tensor")
    tensors = tuple(_tensor(entry, buffers, name) for entry in entries)
    inputs, outputs = table.numbers(1, "i"), table.numbers(2, "i")
    for index in inputs:
        if tensors[_one_of(index, tensors, "tensor", said)].stored:
            raise BadFile(f"{said} takes its constant '{tensors[index].name}' as an input")
    known = {*inputs}  # constants, variables and what has no element need not be computed
    known |= {i for i, entry in enumerate(entries) if tensors[i].stored or entry.number(5, "B") or not tensors[i].size}
    operations = [
        _operation(entry, kinds, tensors, known, name) for entry in table.tables(3, f"{table.what}'s operation")
    ]
    for index in outputs:
        if _one_of(index, tensors, "tensor", said) not in known:
            raise BadFile(f"{said} answers '{tensors[index].name}', which nothing in it computes")
    kinds_of, reads, makes = zip(*operations, strict=True) if operations else ((), (), ())
    return Graph(tensors, frozenset(inputs), outputs, kinds_of, reads, makes)


def _operation(
    table: Table, kinds: Sequence[str], tensors: Sequence[Tensor], known: set[int], name: str
) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """Its kind, what it takes, and what it computes, which is ``known`` from now on."""
    said = f"{name}: {table.what}"
    kind = kinds[_one_of(table.number(0, "I"), kinds, "operator code", said)]
    said = f"{said} ({kind})"
    taken = tuple(index for index in table.numbers(1, "i") if index != _ABSENT)
    for index in taken:
        if _one_of(index, tensors, "tensor", said) not in known:
            raise BadFile(f"{said} takes '{tensors[index].name}', which nothing before it computes")
    made = table.numbers(2, "i")
    for index in made:
        if tensors[_one_of(index, tensors, "tensor", said)].stored:
            raise BadFile(f"{said} computes the constant '{tensors[index].name}'")
        known.add(index)
    return kind, taken, made


def _tensor(table: Table, buffers: Sequence[int], name: str) -> Tensor:
    said = f"{name}: '{table.text(3)}' ({table.what})"
    number = table.number(1, "b")
    if not 0 <= number < len(_TYPES):
        raise BadFile(f"{said} has the element type {number}, and LiteRT knows {len(_TYPES)}")
    shape, buffer = table.numbers(0, "i"), table.number(2, "I")
    if any(side < 0 for side in shape):
        raise BadFile(f"{said} has the shape {shape}")
    stored = buffers[_one_of(buffer, buffers, "buffer", said)]
    tensor = Tensor(table.text(3), _TYPES[number], shape, buffer, stored)
    sparse = bool(table.fields[6:7] and table.fields[6])
    if stored and tensor.bytes != stored and _BITS[tensor.dtype] and not sparse:
        raise BadFile(f"{said} is {tensor.dtype} {shape}, which is {tensor.bytes:,} bytes, and has {stored:,}")
    return tensor


def _signature(table: Table, graphs: Sequence[Graph], said: str) -> Signature:
    number = _one_of(table.number(4, "I"), graphs, "graph", said)
    graph = graphs[number]
    named = []
    for field, what, those in ((0, "input", graph.inputs), (1, "output", graph.outputs)):
        found: dict[str, Tensor] = {}
        for entry in table.tables(field, what):
            name, index = entry.text(0), entry.number(1, "I")
            if index not in those or name in found:
                raise BadFile(f"{said} has an {what} '{name}' that is none of its graph's, or is there twice")
            if not name.isprintable():  # LiteRT's own ends at a zero
                raise BadFile(f"{said} has an {what} '{name}', and that is no name")
            found[name] = graph.tensors[index]
        named.append(found)
    return Signature(number, *named)


def _one_of(index: int, those: Sequence[object], what: str, said: str) -> int:
    if not 0 <= index < len(those):
        raise BadFile(f"{said} names {what} {index}, and there are {len(those)}")
    return index
