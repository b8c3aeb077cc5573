"""How far a median can be trusted: an interval that assumes nothing of how times are distributed, which is skewed.

Of n independent values, the number that lie below the true median is binomial (n, 1/2). So the median lies between the
l-th smallest and the l-th largest with a probability that is known beforehand: W. J. Conover, Practical Nonparametric
Statistics, 3rd ed., section 3.2. T. Hoefler and R. Belli take it for latencies: Scientific Benchmarking of Parallel
Computing Systems, SC '15, https://doi.org/10.1145/2807591.2807644.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, inf

CONFIDENCE = 0.95

#: Of the median. What people compare devices and releases for is larger; a browser's clock and a phone's governor alone
#: move single runs by more, which is what the median is for.
WIDEST_INTERVAL = 0.05

#: What :func:`warning` says, and a device's report of how few its runs are (:mod:`vitexport.devices.report`).
_OF_SPREAD = re.compile(r"wide spread: [^;]*|too few runs to tell [^;]*|\d+ runs; \d+ tell more")


@dataclass(frozen=True)
class Interval:
    """What was asked for lies in ``low..high`` with a probability of ``confidence`` or more."""

    low: float
    high: float
    confidence: float


def of_median(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """The narrowest interval of their true median; None where the values are too few for any (5 or fewer at 95 %)."""
    ordered, n = sorted(values), len(values)
    below = 0.0  # the probability that no more than `rank - 1` values lie below the median
    found = None
    for rank in range(1, n // 2 + 1):
        below += comb(n, rank - 1) / 2**n
        if (covered := 1 - 2 * below) < confidence:
            break
        found = Interval(ordered[rank - 1], ordered[n - rank], covered)
    return found


def of_ratio(values: Sequence[float], others: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """How many times the true median of ``others`` that of ``values`` is, from the most favourable pair of ends of the
    two intervals to the least; None where either has none. ``confidence`` is asked of each: both hold with at least
    what is left once both risks are taken off (Bonferroni).
    """
    one, other = of_median(values, confidence), of_median(others, confidence)
    if one is None or other is None or not other.high:
        return None
    most = one.high / other.low if other.low else inf  # a coarse clock: some runs took no time by it
    return Interval(one.low / other.high, most, one.confidence + other.confidence - 1)


def warning(times_ms: Sequence[float]) -> str:
    """Why the median of these runs is to be taken with care; empty where it need not be."""
    found = of_median(times_ms)
    if found is None:
        return "too few runs to tell how well the median is known"
    middle = statistics.median(times_ms)
    if found.high - found.low <= WIDEST_INTERVAL * middle:
        return ""
    return f"wide spread: the median is {found.low:,.3g} to {found.high:,.3g} ms ({CONFIDENCE:.0%} confidence)"


def besides(said: str) -> str:
    """What a measurement's warning says but for how well its median is known, such as that power was low."""
    return "; ".join(part for part in _OF_SPREAD.sub("", said).split("; ") if part)
