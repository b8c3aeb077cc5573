"""Reads a flatbuffer as a stranger would: no offset is followed that leads out of the file.

The accessors that ``flatc`` generates, and LiteRT's interpreter, follow them wherever they lead.
https://flatbuffers.dev/internals has the format: a table begins with the way back to its vtable, which says where in
the table each field is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import count
from typing import Final

from vitexport.errors import BadRequest

#: ViT-B has 2,400. Flatbuffers' own verifier takes a million, for which Python needs seconds; and a small file may
#: refer to one table as often as that.
MOST_TABLES: Final = 100_000

#: Characters that a file's own words may take in a sentence: three lines. The names in ours have up to 60.
_LONGEST: Final = 240

_AGAIN = "Export it again."


class BadFile(BadRequest):
    """A file that is damaged or was made to mislead; the sentence says where."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{printable(what)}. {_AGAIN}")


def printable(said: str) -> str:
    """On few lines of a terminal, whatever a file calls its parts."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in said)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."


class File:
    """The bytes of one file, and how many of its tables were read. ``name`` is what errors call it."""

    def __init__(self, content: bytes, name: str) -> None:
        self.content, self.name = content, name
        self._tables = count(1)

    def root(self, identifier: bytes, what: str) -> Table:
        """Raises :class:`BadFile`, as all that is read through it does."""
        if not self.content:
            raise BadFile(f"{self.name} is empty")
        if self.content[4:8] != identifier:
            raise BadFile(f"{self.name} is no {what}: it does not bear the mark {identifier.decode()}")
        return self.table(self.offset(0, what), what)

    def table(self, at: int, what: str) -> Table:
        if next(self._tables) > MOST_TABLES:
            raise BadFile(f"{self.name} refers to more than {MOST_TABLES:,} parts")
        vtable = at - self.number("<i", at, what)
        size = self.number("<H", vtable, what)
        if size < 4 or size % 2:
            raise self.damaged(what)
        return Table(self, at, self.numbers("H", vtable + 4, size // 2 - 2, what), what)

    def offset(self, at: int, what: str) -> int:
        """Where the reference at ``at`` leads."""
        return at + self.number("<I", at, what)

    def number(self, form: str, at: int, what: str) -> int:
        end = at + struct.calcsize(form)
        if at < 0 or end > len(self.content):
            raise self.damaged(what)
        return int(struct.unpack_from(form, self.content, at)[0])

    def numbers(self, form: str, at: int, length: int, what: str) -> tuple[int, ...]:
        form = f"<{length}{form}"
        if at < 0 or at + struct.calcsize(form) > len(self.content):
            raise self.damaged(what)
        return struct.unpack_from(form, self.content, at)

    def damaged(self, what: str) -> BadFile:
        return BadFile(f"{self.name} is damaged or cut short: {what} points outside the file")


@dataclass(frozen=True, eq=False)
class Table:
    """One table. Fields are asked for by their place in the schema; one that is absent has its default."""

    file: File
    at: int
    fields: tuple[int, ...]
    what: str

    def number(self, field: int, form: str, default: int = 0) -> int:
        where = self._where(field)
        return default if where is None else self.file.number(f"<{form}", where, self.what)

    def numbers(self, field: int, form: str) -> tuple[int, ...]:
        where = self._where(field)
        if where is None:
            return ()
        start = self.file.offset(where, self.what)
        return self.file.numbers(form, start + 4, self.file.number("<I", start, self.what), self.what)

    def size(self, field: int) -> int:
        """Of a vector of bytes, which is not read."""
        where = self._where(field)
        if where is None:
            return 0
        start = self.file.offset(where, self.what)
        length = self.file.number("<I", start, self.what)
        if start + 4 + length > len(self.file.content):
            raise self.file.damaged(self.what)
        return length

    def text(self, field: int) -> str:
        return bytes(self.numbers(field, "B")).decode("utf-8", "replace")

    def tables(self, field: int, what: str) -> list[Table]:
        """``what`` names each of them, before its number."""
        where = self._where(field)
        if where is None:
            return []
        start = self.file.offset(where, self.what)
        length = self.file.number("<I", start, self.what)
        if start + 4 + 4 * length > len(self.file.content):
            raise self.file.damaged(self.what)
        places = range(start + 4, start + 4 + 4 * length, 4)
        return [
            self.file.table(self.file.offset(at, f"{what} {number}"), f"{what} {number}")
            for number, at in enumerate(places)
        ]

    def _where(self, field: int) -> int | None:
        offset = self.fields[field] if field < len(self.fields) else 0
        return self.at + offset if offset else None
