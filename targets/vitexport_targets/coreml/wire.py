"""Protocol buffers on the wire, for a reader that trusts nothing: no schema compiler, no toolchain.

A message is a run of ``key value`` pairs; the key's low three bits say how the value is stored, the rest is the number
of the field (https://protobuf.dev/programming-guides/encoding). Whoever reads a message names the numbers it wants and
what kind they have; every length is checked against the bytes that are there, and nesting is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitexport.errors import BadRequest

#: protobuf's own default (``CodedInputStream::SetRecursionLimit``), so that nothing is read here that Apple's reader
#: would refuse, and Python's stack is never at stake.
DEEPEST = 100

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10  # bytes; 64 bits in groups of seven


def printable(sentence: str) -> str:
    """What a file calls things, on one line and without the power to move a terminal's cursor."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in sentence)


class BadPackage(BadRequest):
    """A package that is damaged or was made to mislead; the sentence says where."""

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence))


class Message:
    """One message, split into its fields; what lies in them is read when it is asked for, as what it is asked for.

    ``what`` names it in errors. Every accessor raises :class:`BadPackage` where the bytes are of another kind.
    """

    def __init__(self, content: memoryview, what: str, depth: int = 0) -> None:
        if depth > DEEPEST:
            raise BadPackage(
                f"The model nests deeper than {DEEPEST} levels, which Core ML's own reader refuses: it is damaged or "
                "was made to exhaust its reader. Export it again."
            )
        self.what = what
        self._depth = depth
        self._fields: dict[int, list[Any]] = {}
        for number, value in _split(content, what):
            self._fields.setdefault(number, []).append(value)

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of the fields that are there, in the order they came."""
        return tuple(self._fields)

    def message(self, number: int, what: str) -> Message:
        """The one message in a field; an empty one where the field is absent, as protobuf's defaults have it."""
        return Message(self._bytes(number, what), what, self._depth + 1)

    def messages(self, number: int, what: str) -> list[Message]:
        return [Message(self._as_bytes(v, what), what, self._depth + 1) for v in self._fields.get(number, ())]

    def mapping(self, number: int, what: str) -> dict[str, Message]:
        """``map<string, Message>``: entries with the key in field 1 and the value in field 2."""
        entries: dict[str, Message] = {}
        for entry in self.messages(number, what):
            key = entry.name(1, what)
            if key in entries:
                raise BadPackage(f"{_sentence(what)} '{key}' is there twice; the model is damaged. Export it again.")
            entries[key] = entry.message(2, f"{what} '{key}'")
        return entries

    def text(self, number: int, what: str) -> str:
        """Of any kind: a label, a line of metadata."""
        return _decoded(self._bytes(number, what), what)

    def name(self, number: int, what: str) -> str:
        """Text without control characters, which would break the sentences that quote it."""
        return _printable(self.text(number, what), what)

    def names(self, number: int, what: str) -> list[str]:
        return [_printable(text, what) for text in self.texts(number, what)]

    def texts(self, number: int, what: str) -> list[str]:
        return [_decoded(self._as_bytes(v, what), what) for v in self._fields.get(number, ())]

    def bytes(self, number: int, what: str) -> memoryview:
        return self._bytes(number, what)

    def integer(self, number: int, what: str) -> int:
        """Signed, 64 bits; 0 where the field is absent."""
        value = self._only(number, what)
        if value is None:
            return 0
        if not isinstance(value, int):
            raise BadPackage(f"{_sentence(what)} is not a number; the model is damaged. Export it again.")
        return value - (1 << 64) if value >> 63 else value

    def integers(self, number: int, what: str) -> NDArray[np.int64]:
        """A repeated integer, packed or not."""
        found: list[int] = []
        for value in self._fields.get(number, ()):
            if isinstance(value, int):
                found.append(value)
            else:
                found.extend(_varints(self._as_bytes(value, what), what))
        return np.array(found, np.uint64).view(np.int64)

    def reals(self, number: int, what: str, dtype: type[np.float32] | type[np.float64]) -> NDArray[Any]:
        """A repeated ``float`` or ``double``, packed or not."""
        stored = b"".join(self._as_bytes(v, what) for v in self._fields.get(number, ()))
        width = np.dtype(dtype).itemsize
        if len(stored) % width:
            raise BadPackage(
                f"{_sentence(what)} has {len(stored)} bytes, no multiple of {width}; the model is damaged. "
                "Export it again."
            )
        return np.frombuffer(stored, np.dtype(dtype).newbyteorder("<"))

    def _only(self, number: int, what: str) -> Any:
        values = self._fields.get(number, [])
        if len(values) > 1:
            raise BadPackage(f"{_sentence(what)} is there {len(values)} times; the model is damaged. Export it again.")
        return values[0] if values else None

    def _bytes(self, number: int, what: str) -> memoryview:
        value = self._only(number, what)
        return memoryview(b"") if value is None else self._as_bytes(value, what)

    def _as_bytes(self, value: Any, what: str) -> memoryview:
        if not isinstance(value, memoryview):
            raise BadPackage(
                f"{_sentence(what)} is a number where bytes belong; the model is damaged. Export it again."
            )
        return value


def _split(content: memoryview, what: str) -> Iterator[tuple[int, Any]]:
    """(field number, value): an ``int`` of a varint, a ``memoryview`` of everything else."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at, what)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(content, at, what)
            yield number, value
            continue
        if kind == _BYTES:
            length, at = _varint(content, at, what)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise BadPackage(f"{_sentence(what)} is stored in a way (wire type {kind}) that protobuf has not. {_AGAIN}")
        if length > len(content) - at:
            raise BadPackage(
                f"{_sentence(what)} is cut short: {length} bytes announced, {len(content) - at} left. {_AGAIN}"
            )
        yield number, content[at : at + length]
        at += length


def _varint(content: memoryview, at: int, what: str) -> tuple[int, int]:
    value = 0
    for position, byte in enumerate(content[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + position + 1
    raise BadPackage(f"{_sentence(what)} is cut short within a number. {_AGAIN}")


def _varints(content: memoryview, what: str) -> Iterator[int]:
    at = 0
    while at < len(content):
        value, at = _varint(content, at, what)
        yield value


def _decoded(content: memoryview, what: str) -> str:
    try:
        return bytes(content).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadPackage(f"{_sentence(what)} is not UTF-8 text. {_AGAIN}") from error


def _printable(text: str, what: str) -> str:
    if not text.isprintable():
        raise BadPackage(f"{_sentence(what)} has a name with control characters. {_AGAIN}")
    return text


_AGAIN = "The model is damaged: export it again."


def _sentence(what: str) -> str:
    return what[:1].upper() + what[1:]
