"""Where the labels of a plot's marks go: beside them, and on no mark, no label, and no line that leads to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vitexport.reports.axes import HEIGHT

#: Labels are kept from all else as if the plot were this wide, which it is on a phone: on a wider one what lies beside
#: them is further away. 7 is a letter's width at 12 pixels, and the largest mark's half.
_NARROW, _LETTER, _LINE, _MARK = 290.0, 7.0, 15.0, 7.0

#: From the middle of a mark to where its label begins; the page's ``dx`` is the same.
_BESIDE = 10.0


def placed(said: Sequence[str], places: Sequence[tuple[float, float]]) -> list[Label | None]:
    """Of marks at ``places`` (percent, pixels); those that stand alone first, who need not go out of others' way."""
    marks = [_mark(x, y) for x, y in places]
    crowd = [sum(mark.hits(other) for other in marks) for mark in marks]
    room = _Room(marks)
    found = {at: room.label(said[at], *places[at]) for at in sorted(range(len(marks)), key=crowd.__getitem__)}
    return [found[at] for at in range(len(marks))]


@dataclass(frozen=True)
class Box:
    """What something takes up, in pixels of a narrow plot; ``top`` is the lesser number."""

    left: float
    right: float
    top: float
    bottom: float

    def hits(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def _mark(x: float, y: float) -> Box:
    at = x / 100 * _NARROW
    return Box(at - _MARK, at + _MARK, y - _MARK, y + _MARK)


@dataclass(frozen=True)
class Label:
    text: Box
    leader: Box
    """From the mark up or down to where the label is."""
    middle: float
    leftwards: bool

    @classmethod
    def of(cls, said: str, x: float, y: float, lift: float, *, leftwards: bool) -> Label:
        at, length, middle = x / 100 * _NARROW, len(said) * _LETTER, y - lift
        left = at - _BESIDE - length if leftwards else at + _BESIDE
        text = Box(left, left + length, middle - _LINE / 2, middle + _LINE / 2)
        return cls(text, Box(at - 1, at + 1, min(y, middle), max(y, middle)), middle, leftwards)

    @property
    def is_inside(self) -> bool:
        return self.text.left >= 0 and self.text.right <= _NARROW and 0 <= self.middle <= HEIGHT


@dataclass
class _Room:
    """Where marks, labels and their leaders are already."""

    marks: list[Box]
    labels: list[Label] = field(default_factory=list)

    def label(self, said: str, x: float, y: float) -> Label | None:
        """As near to its mark as it lies on nothing; None where it would everywhere."""
        tried = (
            Label.of(said, x, y, sign * step * _LINE, leftwards=leftwards)
            for step in range(round(HEIGHT / _LINE))
            for sign in (1, -1)
            for leftwards in (False, True)
        )
        found = next((label for label in tried if label.is_inside and self._is_free(label)), None)
        if found:
            self.labels.append(found)
        return found

    def _is_free(self, label: Label) -> bool:
        return not (
            any(label.text.hits(mark) for mark in self.marks)
            or any(label.text.hits(box) for other in self.labels for box in (other.text, other.leader))
            or any(label.leader.hits(other.text) for other in self.labels)
        )
