"""Where windows lie that slide over the spatial dimensions: what convolutions and pools share."""

from __future__ import annotations

import torch.nn.functional as F

from vitexport_targets.coreml.ops.bounds import bounded
from vitexport_targets.coreml.ops.signature import Ints, Tensor


def padding(sizes: Ints, windows: Ints, strides: Ints, pad_type: str, pad: Ints | None) -> Ints:
    """(before, after) for each spatial dimension, flat. ``windows`` are kernel sizes with dilation counted in.

    ``same`` puts an odd one behind, ``same_lower`` before.
    """
    match pad_type:
        case "valid":
            return (0,) * 2 * len(sizes)
        case "custom":
            if pad is None or len(pad) != 2 * len(sizes) or min(pad) < 0:
                raise ValueError(f"has pad {pad} for {len(sizes)} spatial dimensions")
            return pad
        case "same" | "same_lower":
            missing = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(sizes, windows, strides, strict=True)]
            less, more = [m // 2 for m in missing], [m - m // 2 for m in missing]
            pairs = zip(less, more, strict=True) if pad_type == "same" else zip(more, less, strict=True)
            return tuple(n for pair in pairs for n in pair)
        case _:
            raise NotImplementedError(f"pad_type '{pad_type}'")


def padded(x: Tensor, pad: Ints, fill: float) -> Tensor:
    """``x`` (N, C, ...) with its spatial dimensions padded."""
    if not any(pad):
        return x
    pairs = [pad[i : i + 2] for i in range(0, len(pad), 2)]
    bounded((*x.shape[:2], *(n + sum(pair) for n, pair in zip(x.shape[2:], pairs, strict=True))))
    return F.pad(x, [n for pair in reversed(pairs) for n in pair], value=fill)  # torch counts from the last dimension


def each(values: Ints | None, dimensions: int) -> Ints:
    """A value a spatial dimension; ones where none is given."""
    if values is None:
        return (1,) * dimensions
    if len(values) != dimensions or min(values) < 1:
        raise ValueError(f"has {list(values)} for {dimensions} spatial dimensions")
    return values
