"""What an app sees of a model: names, shapes, image types, metadata. Numbers of fields are those of coremltools'
``Model.proto`` and ``FeatureTypes.proto`` (https://github.com/apple/coremltools/tree/main/mlmodel/format)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from vitexport_targets.coreml.mil import Feature, Interface
from vitexport_targets.coreml.wire import BadPackage, Message

_MAIN = "main"  # the function of a package that names none

Colour = Literal["", "RGB", "BGR", "grayscale"]
_COLOURS: Final[Mapping[int, tuple[Colour, int]]] = {
    10: ("grayscale", 1),
    20: ("RGB", 3),
    30: ("BGR", 3),
    40: ("grayscale", 1),  # 16-bit floats
}

_IMAGE, _ARRAY, _DICTIONARY = 4, 5, 6
_SIMPLE: Final[Mapping[int, Literal["text", "number"]]] = {1: "number", 2: "number", 3: "text"}

_METADATA: Final[Mapping[int, str]] = {1: "description", 2: "version", 3: "author", 4: "licence"}


@dataclass(frozen=True)
class Description:
    interfaces: Mapping[str, Interface]
    default_function: str
    metadata: Mapping[str, str]


def read(message: Message) -> Description:
    """A ``ModelDescription``; a package of one function describes it without naming it."""
    described = message.messages(20, "a function's description")
    interfaces = {f.name(1, "a function's name"): _interface(f, 2, 3, 4, 5) for f in described}
    default = message.name(21, "the default function's name") or _MAIN
    if not described:
        interfaces = {default: _interface(message, 1, 10, 11, 12)}
    return Description(interfaces, default, _metadata(message.message(100, "the metadata")))


def _interface(message: Message, inputs: int, outputs: int, label: int, probabilities: int) -> Interface:
    return Interface(
        tuple(_feature(m) for m in message.messages(inputs, "an input's description")),
        tuple(_feature(m) for m in message.messages(outputs, "an output's description")),
        message.name(label, "the name of the predicted feature"),
        message.name(probabilities, "the name of the probabilities"),
    )


def _feature(message: Message) -> Feature:
    name = message.name(1, "a feature's name")
    kinds = message.message(3, f"the type of '{name}'")
    if _IMAGE in kinds:
        return _image(name, kinds.message(_IMAGE, f"the image type of '{name}'"))
    if _ARRAY in kinds:
        return _array(name, kinds.message(_ARRAY, f"the array type of '{name}'"))
    if _DICTIONARY in kinds:
        return Feature(name, "dictionary")
    return Feature(name, next((_SIMPLE[n] for n in kinds.numbers if n in _SIMPLE), "other"))


def _image(name: str, message: Message) -> Feature:
    what = f"the image type of '{name}'"
    number = message.integer(3, what)
    if number not in _COLOURS:
        raise BadPackage(f"Image '{name}' has colour space {number}, which Core ML has not. Export the model again.")
    colour, channels = _COLOURS[number]
    shapes: tuple[tuple[int, ...], ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()
    if 21 in message:
        sizes = message.message(21, what).messages(1, what)
        shapes = tuple((channels, s.integer(2, what), s.integer(1, what)) for s in sizes)
    if 31 in message:
        flexible = message.message(31, what)
        sides = (flexible.message(2, what), flexible.message(1, what))
        ranges = ((channels, channels), *((s.integer(1, what), s.integer(2, what)) for s in sides))
    shape = (channels, message.integer(2, what), message.integer(1, what))
    return Feature(name, "image", shape, colour, shapes, ranges)


def _array(name: str, message: Message) -> Feature:
    what = f"the array type of '{name}'"
    shapes: tuple[tuple[int, ...], ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()
    if 21 in message:
        enumerated = message.message(21, what).messages(1, what)
        shapes = tuple(_ints(s, 1, what) for s in enumerated)
    if 31 in message:
        sides = message.message(31, what).messages(1, what)
        ranges = tuple((s.integer(1, what), s.integer(2, what)) for s in sides)
    return Feature(name, "multi-array", _ints(message, 1, what), "", shapes, ranges)


def _ints(message: Message, number: int, what: str) -> tuple[int, ...]:
    return tuple(int(n) for n in message.integers(number, what))


def _metadata(message: Message) -> dict[str, str]:
    own = {key: message.text(n, f"the metadata's {key}") for n, key in _METADATA.items() if n in message}
    entries = message.messages(100, "a metadata entry")
    return own | {e.name(1, "a metadata key"): e.text(2, "a metadata value") for e in entries}
