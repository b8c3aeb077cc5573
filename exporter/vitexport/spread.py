"""How far a median can be trusted: an interval that assumes nothing of how times are distributed, which is skewed.

Of n independent values, the number that lie below the true median is binomial (n, 1/2). So the median lies between the
l-th smallest and the l-th largest with a probability that is known beforehand: W. J. Conover, Practical Nonparametric
Statistics, 3rd ed., section 3.2. T. Hoefler and R. Belli take it for latencies: Scientific Benchmarking of Parallel
Computing Systems, SC '15, https://doi.org/10.1145/2807591.2807644.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

CONFIDENCE = 0.95

#: Of the median. What people compare devices and releases for is larger; a browser's clock and a phone's governor alone
#: move single runs by more, which is what the median is for.
WIDEST_INTERVAL = 0.05


@dataclass(frozen=True)
class Interval:
    """The true median lies in ``low..high`` with a probability of ``confidence``, which is at least what was asked."""

    low: float
    high: float
    confidence: float


def of_median(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """The narrowest such interval; None where the values are too few for any (5 or fewer at 95 %)."""
    ordered, n = sorted(values), len(values)
    below = 0.0  # the probability that no more than `rank - 1` values lie below the median
    found = None
    for rank in range(1, n // 2 + 1):
        below += comb(n, rank - 1) / 2**n
        if (covered := 1 - 2 * below) < confidence:
            break
        found = Interval(ordered[rank - 1], ordered[n - rank], covered)
    return found


def warning(times_ms: Sequence[float]) -> str:
    """Why the median of these runs is to be taken with care; empty where it need not be."""
    found = of_median(times_ms)
    if found is None:
        return "too few runs to tell how well the median is known"
    middle = statistics.median(times_ms)
    if found.high - found.low <= WIDEST_INTERVAL * middle:
        return ""
    return f"wide spread: the median is {found.low:,.3g} to {found.high:,.3g} ms ({CONFIDENCE:.0%} confidence)"
