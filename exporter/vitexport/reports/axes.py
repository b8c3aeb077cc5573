"""From a figure to its place in a plot, in percent of its width or pixels of its height, and where ticks go.

Percent, because the page's plots are as wide as the screen that they are read on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

HEIGHT = 280  # of a plot, in pixels

_STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Axis:
    """``low`` and ``high`` are its ends; ``log`` spaces factors evenly and needs both above 0."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """0 at ``low``, 1 at ``high``; what lies beyond is drawn at the end."""
        low, high, at = self.low, self.high, max(value, self.low)
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        return min(max((at - low) / (high - low), 0.0), 1.0)

    def ticks(self, most: int = 6) -> tuple[float, ...]:
        """Round numbers from end to end, at most about ``most``."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            fine = [step * 10.0**decade for decade in decades for step in _STEPS]
            coarse = [10.0**decade for decade in decades]
            inside = [t for t in fine if self.low * 0.999 <= t <= self.high * 1.001]
            if len(inside) > most:
                inside = [t for t in coarse if self.low <= t <= self.high]
            return tuple(inside) if len(inside) > 1 else Axis(self.low, self.high).ticks(most)  # less than a decade
        step = next(s for s in _rising((self.high - self.low) / most))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return tuple(step * n for n in range(first, last + 1))


def spanning(values: Sequence[float], *, log: bool = False, room: float = 0.06, share: bool = False) -> Axis:
    """An axis that holds all of ``values``, which are finite, with ``room`` of its length left at either end; that of a
    ``share`` ends at 0 and at 1."""
    low, high = min(values), max(values)
    if log:
        low, high = math.log10(low), math.log10(high)
    margin = max((high - low) * room, 0.02 if log else (abs(high) or 1.0) * 0.001)
    low, high = low - margin, high + margin
    if share:
        low, high = max(low, 0.0), min(high, 1.0)
    return Axis(10**low, 10**high, log=True) if log else Axis(low, high)


def _rising(least: float) -> Sequence[float]:
    """Round steps of at least ``least``."""
    decade = 10.0 ** math.floor(math.log10(least))
    return [step * decade for step in (*_STEPS, 10) if step * decade >= least * 0.999]
