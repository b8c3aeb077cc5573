"""Orders of axes: an artifact's runtime may keep (N, H, W, C) where PyTorch has (N, C, H, W), or tokens last."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vitexport.contract import Tensor

#: Attention by windows has six axes, of which a batch of one is one: 120 orders. Beyond that nothing is tried.
_MOST_AXES = 5


@dataclass(frozen=True)
class Order:
    """From an artifact's value to PyTorch's: split into ``split``, transposed by ``axes``, as ``shape``."""

    split: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def apply(self, value: Tensor) -> Tensor:
        return np.ascontiguousarray(value.reshape(self.split).transpose(self.axes).reshape(self.shape), np.float32)


def orders(theirs: tuple[int, ...], ours: tuple[int, ...]) -> Iterator[Order]:
    """All that may take a value of the shape ``theirs`` to ``ours``, which has as many elements; as it is comes first.

    Axes may be transposed in either shape: where one has merged height and width, they are seen in the other.
    """
    yield Order(ours, tuple(range(len(ours))), ours)
    a, b = (tuple(n for n in shape if n != 1) for shape in (theirs, ours))
    if max(len(a), len(b)) > _MOST_AXES:
        return
    for axes in permutations(range(len(b))):  # the axes of ours, in the order in which the artifact has them
        split = tuple(b[axis] for axis in axes)
        if _merges(split, a) and (split, axes) != (b, tuple(range(len(b)))):
            yield Order(split, tuple(int(i) for i in np.argsort(axes)), ours)
    for axes in permutations(range(len(a))):
        moved = tuple(a[axis] for axis in axes)
        if moved != a and len(a) > len(b) and _merges(moved, b):
            yield Order(a, axes, ours)


def _merges(fine: tuple[int, ...], coarse: tuple[int, ...]) -> bool:
    """Whether neighbouring axes of ``fine`` make up each axis of ``coarse``, or the other way round."""
    ends = [{math.prod(shape[:count]) for count in range(1, len(shape) + 1)} for shape in (fine, coarse)]
    return ends[0] >= ends[1] or ends[1] >= ends[0]
