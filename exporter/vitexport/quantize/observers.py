"""How a range is taken from what was seen of an activation, for precisions that fix it once (``w8a8``, ``w8a16``).

A wide range has coarse steps and a narrow one clips. Four answers are known: ``min-max`` clips nothing that was seen;
``percentile`` clips a fixed share; ``mse`` clips what makes the expected squared error least; ``entropy`` what keeps
the histogram's shape best, by Kullback-Leibler divergence.

Measured of ``w8a8``, scales moved before: dB over all pictures together (ten times the logarithm of the sum of squared
answers by that of squared errors), and top-1 of 2,000 held-out pictures. ``digits_vit_tiny`` was calibrated on 64
pictures of digits and judged on 200 others (Core ML: 40); selfie was both on the four built-in photos. ``200-fold`` has
the channels of tests/outliers.py.

=========================  ==============  =============  =============  =============  =============
network, target            before          min-max        percentile     mse            entropy
=========================  ==============  =============  =============  =============  =============
digits_vit_tiny, ONNX      as min-max      40.4  97.25 %  39.8  97.25 %  40.3  97.25 %  38.9  97.15 %
the same, 200-fold, ONNX   as min-max      39.8  97.15 %  39.4  97.20 %  39.5  97.20 %  38.8  97.15 %
digits_vit_tiny, LiteRT    21.8  97.25 %   32.0  97.15 %  32.7  97.20 %  32.7  97.30 %  32.3  97.25 %
digits_vit_tiny, Core ML   as min-max      22.2           22.6           23.0           24.3
selfie, ONNX               as min-max      15.8           17.5           17.6           17.4
selfie, LiteRT             3.4             2.5            3.4            13.2           3.2
selfie, Core ML            as min-max      2.4            2.4            2.5            2.9
=========================  ==============  =============  =============  =============  =============

``before`` is what each target's quantiser did by itself: LiteRT's keeps a moving average of each picture's least and
largest value. ``mse`` is best or within half a decibel of it but for Core ML, where ``entropy`` gains 1.3 and 0.4 dB on
it, and nowhere worse than before by more than 0.3 dB.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from vitexport.contract import Observer

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Number = TypeVar("_Number", np.int64, np.float64)

#: See the table above.
DEFAULT: Observer = "mse"

#: Bins of a histogram, half of them on either side of zero. As its limit doubles, a quarter at least are in use: 16 for
#: each of 256 levels, and 1,024 on the larger side.
BINS = 8192

#: Per cent of all values that are kept; what is cut is cut by halves at either end. Of the 99.9, 99.99 and 99.999 that
#: Wu et al. 2020 ("Integer quantization for deep learning inference", arXiv:2004.09602, table 5) try, the one that
#: loses least over all of their networks.
PERCENTILE = 99.99

#: Shares of a range that ``mse`` tries, down to 1/256 in steps of 4 %: its error is flat there, within 1 % of the best.
SHARES = 2.0 ** -(np.arange(129) / 16)

#: Of min-max's expected error, the share that must remain at most for ``mse`` to clip at all: less is the pictures'
#: chance, as in :mod:`vitexport.quantize.migration`. With 1, ``digits_vit_tiny`` in ONNX loses 0.8 dB; with 0.7,
#: selfie 4 dB.
WORTH = 0.9

#: Of the histogram of magnitudes that ``entropy`` judges: S. Migacz, "8-bit inference with TensorRT" (GTC 2017).
ENTROPY_BINS = 2048
ENTROPY_LEVELS = 128

#: Bins between thresholds that ``entropy`` tries; all 1,921 of them take a second for ten tensors.
_STRIDE = 16


@dataclass(frozen=True)
class Range:
    """Of one value, over all pictures."""

    least: float
    largest: float

    def wider(self, other: Range) -> Range:
        return Range(min(self.least, other.least), max(self.largest, other.largest))


@dataclass(frozen=True)
class Grid:
    """What values are rounded to: evenly spaced levels, zero among them."""

    bits: int
    symmetric: bool
    """As far below zero as above, with as many steps."""

    def rounded(self, values: NDArray[np.float64], least: float, largest: float) -> NDArray[np.float64]:
        if self.symmetric:
            end = 2 ** (self.bits - 1) - 1
            step = max(-least, largest) / end
            return np.asarray(np.clip(np.rint(values / step), -end, end) * step)
        end = 2**self.bits - 1
        step = (largest - least) / end
        zero = np.rint(-least / step)
        return np.asarray((np.clip(np.rint(values / step) + zero, 0, end) - zero) * step)


class Histogram:
    """All values seen of a tensor: how many are in each of evenly wide bins, and their sums. Takes little memory
    however many pictures there are; its limit doubles, and bins join in pairs, as larger values come."""

    def __init__(self) -> None:
        self.least, self.largest = math.inf, -math.inf
        self.limit = 0.0
        """Bins cover -limit to limit."""
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.sums: NDArray[np.float64] = np.zeros(BINS)

    def add(self, values: NDArray[np.floating]) -> None:
        """Of any shape. What is not finite is passed over: no range would hold it."""
        flat = np.asarray(values, np.float32).ravel()
        if not flat.size:
            return
        least, largest = float(flat.min()), float(flat.max())
        if not math.isfinite(least) or not math.isfinite(largest):
            self.add(flat[np.isfinite(flat)])
            return
        self.least, self.largest = min(self.least, least), max(self.largest, largest)
        self._widen(max(-least, largest))
        places = (flat / np.float32(self.limit or 1) + np.float32(1)) * np.float32(BINS / 2)
        bins = np.clip(places.astype(np.int32), 0, BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)
        self.sums += np.bincount(bins, flat, BINS)

    def _widen(self, size: float) -> None:
        if not self.limit:
            self.limit = max(size, 0.0)
            if self.limit:  # zeros alone were seen, in the bin that begins with it
                return
        while self.limit and size > self.limit:
            self.limit *= 2
            self.counts, self.sums = _paired(self.counts), _paired(self.sums)

    @property
    def range(self) -> Range:
        """Zero is in it, which every quantiser must be able to tell apart; also where nothing was seen."""
        return Range(min(self.least, 0.0), max(self.largest, 0.0))


def _paired(bins: NDArray[_Number]) -> NDArray[_Number]:
    """Twice as wide, around the same middle."""
    joined = np.zeros_like(bins)
    joined[BINS // 4 : -BINS // 4] = bins[::2] + bins[1::2]
    return joined


def range_of(seen: Histogram, observer: Observer, grid: Grid) -> Range:
    """Where values are clipped; never beyond what was seen, and zero never outside."""
    whole = seen.range
    if whole.least == whole.largest:  # zeros alone
        return whole
    found = {"min-max": _all, "percentile": _percentile, "mse": _mse, "entropy": _entropy}[observer](seen, grid)
    least, largest = max(min(found.least, 0.0), whole.least), min(max(found.largest, 0.0), whole.largest)
    return Range(float(least), float(largest))


def observed(seen: Mapping[str, Histogram], observer: Observer | None, grid: Grid) -> dict[str, Range]:
    """The range of each tensor, by name; of the default observer where none was asked for."""
    return {name: range_of(each, observer or DEFAULT, grid) for name, each in seen.items()}


def _all(seen: Histogram, grid: Grid) -> Range:
    return seen.range


def _percentile(seen: Histogram, grid: Grid) -> Range:
    edges = np.linspace(-seen.limit, seen.limit, BINS + 1)
    below = np.cumsum(seen.counts)
    cut = below[-1] * (100 - PERCENTILE) / 200
    first, last = np.searchsorted(below, cut, "right"), np.searchsorted(below, below[-1] - cut)
    return Range(float(edges[first]), float(edges[last + 1]))


def _mse(seen: Histogram, grid: Grid) -> Range:
    """Both ends drawn in together, then each by itself. A bin's mean stands for its values."""
    used = seen.counts > 0
    counts = seen.counts[used]
    values = seen.sums[used] / counts

    def lost(tried: Range) -> float:
        return float(counts @ (grid.rounded(values, tried.least, tried.largest) - values) ** 2)

    def best(candidates: Iterable[Range]) -> Range:
        return min(candidates, key=lost)

    whole = seen.range
    found = best(Range(whole.least * share, whole.largest * share) for share in SHARES)
    if not grid.symmetric:
        found = best(Range(whole.least * share, found.largest) for share in (*SHARES, 0.0) if found.largest or share)
        found = best(Range(found.least, whole.largest * share) for share in (*SHARES, 0.0) if found.least or share)
    return found if lost(found) <= WORTH * lost(whole) else whole


def _entropy(seen: Histogram, grid: Grid) -> Range:
    """The threshold of magnitudes whose ``ENTROPY_LEVELS`` say most of the histogram below it."""
    counts = _magnitudes(seen)
    total = counts.sum()

    def divergence(kept: int) -> float:
        true = counts[:kept].copy()
        starts = np.arange(ENTROPY_LEVELS) * kept // ENTROPY_LEVELS
        some = np.add.reduceat((true > 0).astype(np.float64), starts)
        level = np.add.reduceat(true, starts) / np.maximum(some, 1)
        coarse = np.repeat(level, np.diff(starts, append=kept)) * (true > 0)
        true[-1] += total - true.sum()  # what is clipped comes to lie at the end
        here = true > 0
        if not coarse[here].all():  # what is clipped comes to lie where nothing was
            return math.inf
        return float(np.sum(true[here] / total * np.log(true[here] / total * coarse.sum() / coarse[here])))

    size = max(-seen.range.least, seen.range.largest)
    best = min(range(ENTROPY_BINS, ENTROPY_LEVELS - 1, -_STRIDE), key=divergence)
    threshold = size * best / ENTROPY_BINS
    return Range(-threshold, threshold)


def _magnitudes(seen: Histogram) -> NDArray[np.float64]:
    """Counts of absolute values, in ``ENTROPY_BINS`` from zero to the largest. The first says nothing, as what a ReLU
    cuts off is all in it, and is taken for as full as the next, as TensorRT does."""
    half = BINS // 2
    folded = seen.counts[half:] + seen.counts[half - 1 :: -1]
    edges = np.linspace(0, seen.limit, half + 1)
    size = max(-seen.range.least, seen.range.largest)
    whole = np.interp(np.linspace(0, size, ENTROPY_BINS + 1), edges, np.concatenate([[0], np.cumsum(folded)]))
    counts = np.diff(whole)
    counts[0] = counts[1]
    return counts
