"""Which cell of an older report is which of a newer one: what a host ran beside what a host runs now, and what a phone
measured beside what the same phone measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vitexport.contract import Size
from vitexport.reports.cells import Row
from vitexport.reports.file import device_of

#: Of one of the two, where the other has no such cell.
Pair = tuple[Row | None, Row | None]


def pairs(old: Sequence[Row], new: Sequence[Row]) -> list[Pair]:
    """Every cell of either, once."""
    keys = dict.fromkeys(key(row) for row in (*old, *new))
    return [
        pair
        for each in keys
        for pair in _of_key([row for row in old if key(row) == each], [row for row in new if key(row) == each])
    ]


def key(row: Row) -> tuple[str, str, str, Size]:
    r = row.result
    return r.target, r.precision, r.provider, r.size


def told_by(row: Row, others: Sequence[Row]) -> str:
    """What tells a row from ``others`` of its key: its device, and the runtime where one device has several; empty
    where there are none."""
    if not others:
        return ""
    device = row.ran_on or "the exporting host"
    if row.ran_on and row.runtime != row.ran_on and any(other.ran_on == row.ran_on for other in others):
        return f"{device}, {row.runtime}"
    return device


def _of_key(old: list[Row], new: list[Row]) -> Iterator[Pair]:
    left = list(new)
    alone = list(old)
    for same in (_same_runtime_and_device, _same_device):
        for row in list(alone):
            other = next((each for each in left if same(row, each)), None)
            if other is not None:
                alone.remove(row)
                left.remove(other)
                yield row, other
    then, now = ([row for row in rows if not device_of(row.result)] for rows in (alone, left))
    if len(then) == len(now) == 1:  # another host exported; a phone is nobody's stand-in
        alone.remove(then[0])
        left.remove(now[0])
        yield then[0], now[0]
    yield from ((row, None) for row in alone)
    yield from ((None, row) for row in left)


def _same_device(one: Row, other: Row) -> bool:
    return one.ran_on == other.ran_on and device_of(one.result) == device_of(other.result)


def _same_runtime_and_device(one: Row, other: Row) -> bool:
    """Of a device that could not run it, its runtime's name alone tells which it was."""
    if device_of(one.result) or device_of(other.result):
        return one.result.parity.runtime == other.result.parity.runtime
    return _same_device(one, other) and one.runtime == other.runtime
