"""Which place is to be named: the first at which SNR falls, told from noise that merely adds up.

SNR sinks gently along any network in fewer bits: every block adds its own rounding to what came in. What tells a fault,
or a block that this precision does not suit, is that with what it was given one block loses much more than its like do.
Rounding of activations is a share of the value that leaves a block, rounding of weights a share of what the block adds
to its residual: healthy blocks are alike by one of the two measures, and a bad one is by none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitexport.diff.trace import Row
from vitexport.parity import ROUNDING_DB

#: Four times the noise of the median block, by both measures. By one of them the blocks of ``digits_vit_tiny`` are
#: within 8 dB of it, in ONNX and TFLite in six precisions each and in Core ML in fp32, fp16 and w8.
STANDS_OUT_DB = 12.0

#: A block that loses as much as all before it has lost takes SNR down by 3 dB. What loses less is not where it falls.
LEAST_FALL_DB = 3.0


@dataclass(frozen=True)
class Finding:
    first: str
    """Empty where none stands out."""
    sentence: str


@dataclass(frozen=True)
class _Usual:
    """The medians of a place's like."""

    own_db: float
    branch_db: float


def find(rows: Sequence[Row]) -> Finding:
    """Of a network's places in order, its outputs last."""
    known = [row for row in rows if row.snr_db is not None]
    before: Row | None = None
    for row in known:
        if not np.isfinite([_db(row.snr_db), _db(row.own_snr_db)]).all():
            since = "" if before is None else f"; {_at(before, rows)} there are {_db(before.snr_db):.1f} dB"
            return Finding(row.place, f"The artifact's values are not finite {_at(row, rows)}{since}.")
        usual = _usual(row, known)
        if _stands_out(row, before, usual):
            return Finding(row.place, _fall(row, before, usual, rows))
        before = row
    return Finding("", _none(known, rows))


def _stands_out(row: Row, before: Row | None, usual: _Usual) -> bool:
    own, branch = _db(row.own_snr_db), _db(row.branch_snr_db)
    loses_more = own < min(usual.own_db - STANDS_OUT_DB, ROUNDING_DB) and branch < usual.branch_db - STANDS_OUT_DB
    return loses_more and (before is None or _db(row.snr_db) <= _db(before.snr_db) - LEAST_FALL_DB)


def _usual(row: Row, known: Sequence[Row]) -> _Usual:
    """Of the other blocks; where there are not two, of all other places that the precision touches at all."""
    others = [other for other in known if other is not row]
    blocks = [other for other in others if other.repeated]
    touched = [other for other in others if _db(other.own_snr_db) < ROUNDING_DB]
    alike = (blocks if len(blocks) > 1 else touched or others) or [Row("")]
    own, branch = ([_db(getattr(each, name)) for each in alike] for name in ("own_snr_db", "branch_snr_db"))
    return _Usual(float(np.median(own)), float(np.median(branch)))


def _fall(row: Row, before: Row | None, usual: _Usual, rows: Sequence[Row]) -> str:
    to = f"{_db(row.snr_db):.1f} dB {_at(row, rows)}"
    fall = (
        f"SNR is {to} already"
        if before is None
        else f"SNR falls from {_db(before.snr_db):.1f} dB {_at(before, rows)} to {to}"
    )
    like = "the other blocks" if sum(other.repeated for other in rows) > 2 else "the other places"
    return (
        f"{fall}{_between(before, row, rows)}. With what it was given, {row.place} itself is right to "
        f"{_db(row.branch_snr_db):.1f} dB; {like} are to {usual.branch_db:.1f} dB (median)."
    )


def _none(known: Sequence[Row], rows: Sequence[Row]) -> str:
    first, last = known[0], known[-1]
    return (
        f"None stands out: SNR is {_db(first.snr_db):.1f} dB {_at(first, rows)} and {_db(last.snr_db):.1f} dB "
        f"{_at(last, rows)}{_between(None, None, rows)}."
    )


def _at(row: Row, rows: Sequence[Row]) -> str:
    return f"{'at' if row is rows[-1] else 'after'} {row.place}"


def _between(before: Row | None, row: Row | None, rows: Sequence[Row]) -> str:
    """Those between two rows that could not be compared."""
    start = rows.index(before) + 1 if before else 0
    end = rows.index(row) if row else len(rows)
    names = [missing.place for missing in rows[start:end] if missing.snr_db is None]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f" ({', '.join(names[:3])}{more} not matched)" if names else ""


def _db(value: float | None) -> float:
    """Of a place that was compared."""
    return ROUNDING_DB if value is None else value
