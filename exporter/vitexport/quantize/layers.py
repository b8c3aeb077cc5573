"""The layers that a quantiser changes, by fingerprints that hold across targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Fingerprint = tuple[int, int]


def fingerprint(array: ArrayLike) -> Fingerprint:
    """Of float32 values in any order and shape: the sums, modulo 2**64, of their bit patterns and of the squares."""
    bits = np.ascontiguousarray(array, dtype="<f4").view("<u4").astype(np.uint64)
    return int(bits.sum()), int((bits * bits).sum())
