"""What an ``.mlpackage`` says, as plain data: functions of the ML Program, their operations in order, their constants.

MIL is the language of Core ML's ML Programs
(https://apple.github.io/coremltools/docs-guides/source/model-intermediate-language.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray


@dataclass(frozen=True)
class ValueType:
    """Of a value of the program. A list's and a dictionary's ``dtype`` is that of what is in it."""

    dtype: str
    """MIL's own name: ``float16``, ``int4``, ``bool``, ``string``, ..."""
    shape: tuple[int | None, ...] = ()
    """None where any size will do."""
    kind: Literal["tensor", "list", "dictionary", "state", "tuple"] = "tensor"

    def __str__(self) -> str:
        sides = ", ".join("?" if n is None else str(n) for n in self.shape)
        return f"{self.kind if self.kind != 'tensor' else ''}{self.dtype}[{sides}]"


@dataclass(frozen=True)
class Named:
    """A value that a function takes or an operation makes."""

    name: str
    type: ValueType


@dataclass(frozen=True, eq=False)
class Constant:
    """A value that the file holds. Sub-byte integers are one byte each here; text is numpy's ``str_``."""

    type: ValueType
    data: NDArray[Any]
    stored_bytes: int = 0
    """In the weight file; 0 where the program holds the value itself."""


#: What an operation's argument is bound to: the name of an earlier value, or a value written on the spot.
Binding = str | Constant


@dataclass(frozen=True, eq=False)
class Operation:
    """One step. ``kind`` is MIL's name, such as ``conv``; an argument that is a list has several bindings."""

    kind: str
    inputs: Mapping[str, tuple[Binding, ...]]
    outputs: tuple[Named, ...]
    attributes: Mapping[str, Constant] = field(default_factory=dict)
    blocks: int = 0
    """How many blocks it holds: control flow."""

    @property
    def name(self) -> str:
        """``kind (output)``, for sentences."""
        return f"{self.kind} ({self.outputs[0].name if self.outputs else '-'})"


@dataclass(frozen=True, eq=False)
class Function:
    """A program of its own, with its own inputs; a package of several shares their weights."""

    name: str
    opset: str
    """``CoreML7`` is iOS 17's."""
    inputs: tuple[Named, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Feature:
    """An input or output as an app sees it."""

    name: str
    kind: Literal["multi-array", "image", "text", "number", "dictionary", "other"]
    shape: tuple[int, ...] = ()
    """An image's is (channels, height, width)."""
    colour: Literal["", "RGB", "BGR", "grayscale"] = ""
    """Of an image, whose pixels reach the program as 0..255 in this order of channels, NCHW."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """All that are allowed, where they are enumerated."""
    ranges: tuple[tuple[int, int], ...] = ()
    """Smallest and largest of each dimension, where they are given; a largest of -1 is no limit."""


@dataclass(frozen=True)
class Interface:
    """What a function looks like to an app."""

    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    predicted_feature: str = ""
    """Name of a classifier's label output; empty where there is none."""
    predicted_probabilities: str = ""


@dataclass(frozen=True, eq=False)
class Package:
    """A ``.mlpackage``, read whole."""

    path: Path
    specification_version: int
    """7 is iOS 16, 8 is iOS 17, 9 is iOS 18."""
    functions: Mapping[str, Function]
    interfaces: Mapping[str, Interface]
    """By function."""
    default_function: str
    metadata: Mapping[str, str]
    """``author``, ``licence``, ``description``, ``version`` where given, and the package's own keys."""

    @property
    def inputs(self) -> tuple[Feature, ...]:
        return self.interfaces[self.default_function].inputs

    @property
    def outputs(self) -> tuple[Feature, ...]:
        return self.interfaces[self.default_function].outputs
