"""Convolutions over one, two or three spatial dimensions; NCHW."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F

from vitexport_targets.coreml.ops.bounds import bounded
from vitexport_targets.coreml.ops.signature import Apply, Ints, Tensor
from vitexport_targets.coreml.ops.window import each, padded, padding

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """``weight`` (out, in / groups, ...)."""
    spatial = weight.ndim - 2
    strides, dilations = each(strides, spatial), each(dilations, spatial)
    windows = tuple((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True))
    around = padding(tuple(x.shape[2:]), windows, strides, pad_type, pad)
    x = padded(x, around, 0.0)
    bounded((x.shape[0], weight.shape[0], *(n // s + 1 for n, s in zip(x.shape[2:], strides, strict=True))))
    return _CONV[spatial](x, weight, bias, strides, 0, dilations, groups)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: str = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """``weight`` (in, out / groups, ...). ``pad`` is cut from what the windows cover; ``output_shape`` may ask for more
    at the far ends than they do, which is zero but for the bias."""
    if pad_type not in ("valid", "custom"):
        raise NotImplementedError(f"pad_type '{pad_type}'")
    spatial = weight.ndim - 2
    strides, dilations = each(strides, spatial), each(dilations, spatial)
    covered = (n * s + k * d for n, s, k, d in zip(x.shape[2:], strides, weight.shape[2:], dilations, strict=True))
    bounded((x.shape[0], weight.shape[1] * groups, *covered))
    y = _TRANSPOSED[spatial](x, weight, None, strides, 0, 0, groups, dilations)
    cut = padding(tuple(y.shape[2:]), (1,) * spatial, strides, pad_type, pad)
    wanted = output_shape[-spatial:] if output_shape is not None else None
    for i in range(spatial):
        before, after = cut[2 * i : 2 * i + 2]
        length = wanted[i] if wanted else y.shape[2 + i] - before - after
        bounded((*y.shape[: 2 + i], length, *y.shape[3 + i :]))
        beyond = max(before + length - y.shape[2 + i], 0)
        y = F.pad(y, [0, 0] * (spatial - 1 - i) + [0, beyond]).narrow(2 + i, before, length)
    return y if bias is None else y + bias.reshape(-1, *[1] * spatial)


OPS: Mapping[str, Apply] = {"conv": conv, "conv_transpose": conv_transpose}
