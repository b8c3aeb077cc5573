"""Pools over one, two or three spatial dimensions; NCHW."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F

from vitexport_targets.coreml.ops.signature import Apply, Ints, Tensor
from vitexport_targets.coreml.ops.window import each, padded, padding

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def max_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    strides = each(strides, len(kernel_sizes))
    around = _around(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    return _MAX[len(kernel_sizes)](padded(x, around, -math.inf), kernel_sizes, strides)


def avg_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """A window that hangs over the edge is divided by all of its size, or by what it covers."""
    if ceil_mode and not exclude_padding_from_average:
        raise NotImplementedError("ceil_mode with padding counted in")  # what the overhang counts is not documented
    strides = each(strides, len(kernel_sizes))
    around = _around(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    pool = _AVERAGE[len(kernel_sizes)]
    y = pool(padded(x, around, 0.0), kernel_sizes, strides)
    if not (exclude_padding_from_average and any(around)):
        return y
    covered = padded(torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype), around, 0.0)
    return y / pool(covered, kernel_sizes, strides)


def _around(x: Tensor, kernel: Ints, strides: Ints, pad_type: str, pad: Ints | None, ceil_mode: bool) -> Ints:
    """Padding, with room for a last window that begins inside: what ``ceil_mode`` adds."""
    sizes = tuple(x.shape[2:])
    around = list(padding(sizes, kernel, strides, pad_type, pad))
    for i, (n, k, s) in enumerate(zip(sizes, kernel, strides, strict=True) if ceil_mode else ()):
        covered = n + around[2 * i] + around[2 * i + 1]
        windows = -(-(covered - k) // s) + 1
        if (windows - 1) * s >= n + around[2 * i]:  # it would begin in the padding, as torch does not allow either
            windows -= 1
        around[2 * i + 1] += max((windows - 1) * s + k - covered, 0)
    return tuple(around)


OPS: Mapping[str, Apply] = {"avg_pool": avg_pool, "max_pool": max_pool}
