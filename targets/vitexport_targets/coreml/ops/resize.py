"""Images (the last two dimensions) at another size. Grids as the ops' own documentation gives them
(https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html, image_resizing)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from vitexport_targets.coreml.ops.bounds import bounded
from vitexport_targets.coreml.ops.signature import Apply, Ints, Tensor


def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1.0,
    scale_factor_width: float = 1.0,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """The factor is worked out anew from the sizes, as PyTorch's ``recompute_scale_factor=True``."""
    half_pixel = not align_corners if half_pixel_centers is None else half_pixel_centers
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if half_pixel else "DEFAULT"
    if mode == "DEFAULT":
        raise NotImplementedError("corners and pixel centres both unaligned")
    return resize_bilinear(x, *_scaled(x, scale_factor_height, scale_factor_width), mode)


def resize_bilinear(
    x: Tensor, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> Tensor:
    bounded((*x.shape[:-2], target_size_height, target_size_width))
    return _lerp(_lerp(x, x.ndim - 2, target_size_height, sampling_mode), x.ndim - 1, target_size_width, sampling_mode)


def upsample_nearest_neighbor(x: Tensor, scale_factor_height: float = 1.0, scale_factor_width: float = 1.0) -> Tensor:
    return resize_nearest_neighbor(x, *_scaled(x, scale_factor_height, scale_factor_width))


def resize_nearest_neighbor(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    bounded((*x.shape[:-2], target_size_height, target_size_width))
    for axis, size in ((x.ndim - 2, target_size_height), (x.ndim - 1, target_size_width)):
        x = x.index_select(axis, torch.arange(size) * x.shape[axis] // size)
    return x


def resize(
    x: Tensor, shape: Ints, resized_dims: int, interpolation_mode: str = "LINEAR", sampling_mode: str = "DEFAULT"
) -> Tensor:
    """The last ``resized_dims`` of ``shape``; 0 keeps a dimension."""
    if interpolation_mode != "LINEAR":
        raise NotImplementedError(f"interpolation_mode '{interpolation_mode}'")
    first = x.ndim - resized_dims
    wanted = [n or x.shape[first + i] for i, n in enumerate(shape[len(shape) - resized_dims :])]
    bounded((*x.shape[:first], *wanted))
    for i, size in enumerate(wanted):
        x = _lerp(x, first + i, size, sampling_mode)
    return x


def _scaled(x: Tensor, by_height: float, by_width: float) -> tuple[int, int]:
    return math.floor(x.shape[-2] * by_height), math.floor(x.shape[-1] * by_width)


def _lerp(x: Tensor, axis: int, size: int, mode: str) -> Tensor:
    """Linear interpolation along one dimension."""
    n = x.shape[axis]
    at = _grid(n, size, mode).clamp(0, n - 1)
    before = at.floor().long()
    after = (before + 1).clamp(max=n - 1)
    weight = (at - before).to(x.dtype).reshape([size if i == axis else 1 for i in range(x.ndim)])
    return x.index_select(axis, before) * (1 - weight) + x.index_select(axis, after) * weight


def _grid(n: int, size: int, mode: str) -> Tensor:
    """Where each of ``size`` samples lies among ``n``; float64."""
    i = torch.arange(size, dtype=torch.float64)
    match mode:
        case "STRICT_ALIGN_CORNERS":
            return i * ((n - 1) / (size - 1) if size > 1 else 0.0)
        case "ALIGN_CORNERS":
            return i * ((n - 1) / (size - 1)) if size > 1 else torch.full_like(i, (n - 1) / 2)
        case "DEFAULT":
            return i * ((n - n / size) / (size - 1) if size > 1 else 0.0)
        case "OFFSET_CORNERS":
            delta = max(1, n - 1) / size
            return 0.5 * delta + i * delta
        case "UNALIGN_CORNERS":
            return (i + 0.5) * (n / size) - 0.5
        case _:
            raise NotImplementedError(f"sampling_mode '{mode}'")


OPS: Mapping[str, Apply] = {
    "resize": resize,
    "resize_bilinear": resize_bilinear,
    "resize_nearest_neighbor": resize_nearest_neighbor,
    "upsample_bilinear": upsample_bilinear,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
}
