"""The same numbers in another shape or order, joined, parted or repeated."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F

from vitexport_targets.coreml.ops.bounds import bounded
from vitexport_targets.coreml.ops.signature import Apply, Ints, Tensor, Tensors


def reshape(x: Tensor, shape: Ints) -> Tensor:
    """0 keeps a dimension, -1 takes what is left."""
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape)])


def transpose(x: Tensor, perm: Ints) -> Tensor:
    return x.permute(perm)


def expand_dims(x: Tensor, axes: Ints) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    ones = [i for i, n in enumerate(x.shape) if n == 1] if axes is None else [a % x.ndim for a in axes]
    if any(x.shape[i] != 1 for i in ones):
        raise ValueError(f"takes dimensions {ones} out of shape {list(x.shape)}")
    return x.squeeze(ones)


def flatten2d(x: Tensor, axis: int = 1) -> Tensor:
    return x.reshape(math.prod(x.shape[: axis % x.ndim]), -1)


def concat(values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    if not interleave:
        return torch.cat([v.reshape(1) if v.ndim == 0 else v for v in values], axis)
    axis %= values[0].ndim
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


def stack(values: Tensors, axis: int) -> Tensor:
    return torch.stack(values, axis)


def split(x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None) -> Tensors:
    if split_sizes is not None:
        return tuple(x.split(list(split_sizes), axis))
    if not num_splits or x.shape[axis] % num_splits:
        raise ValueError(f"parts {x.shape[axis]} into {num_splits}")
    return tuple(x.split(x.shape[axis] // num_splits, axis))


def tile(x: Tensor, reps: Ints) -> Tensor:
    bounded(tuple(n * r for n, r in zip(x.shape, reps, strict=True)))
    return x.repeat(reps)


def reverse(x: Tensor, axes: Ints | None = None) -> Tensor:
    return x.flip(tuple(range(x.ndim)) if axes is None else axes)


def pad(x: Tensor, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """(before, after) for the last dimensions, in their order."""
    pairs = [pad[i : i + 2] for i in range(0, len(pad), 2)]
    bounded(
        (*x.shape[: x.ndim - len(pairs)], *(n + sum(p) for n, p in zip(x.shape[-len(pairs) :], pairs, strict=True)))
    )
    if mode == "constant":
        return F.pad(x, [n for pair in reversed(pairs) for n in pair], value=constant_val)
    if mode not in ("reflect", "replicate"):
        raise NotImplementedError(f"mode '{mode}'")
    for axis, (before, after) in zip(range(x.ndim - len(pairs), x.ndim), pairs, strict=True):
        x = x.index_select(axis, _mirrored(x.shape[axis], before, after, mode))
    return x


def _mirrored(n: int, before: int, after: int, mode: str) -> Tensor:
    """Which elements a padded dimension repeats; ``reflect`` leaves out the edge itself."""
    at = torch.arange(-before, n + after)
    if mode == "replicate":
        return at.clamp(0, n - 1)
    if max(before, after) >= n:
        raise ValueError(f"reflects {max(before, after)} elements of {n}")
    at = at.abs()
    return torch.where(at >= n, 2 * (n - 1) - at, at)


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    return F.pixel_shuffle(x, upscale_factor)


def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    return F.pixel_unshuffle(x, downscale_factor)


def depth_to_space(x: Tensor, block_size: int) -> Tensor:
    """Unlike ``pixel_shuffle``, the block's place is the slow part of the channel."""
    n, c, h, w = x.shape
    b = block_size
    y = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(n, c // (b * b), h * b, w * b)


def space_to_depth(x: Tensor, block_size: int) -> Tensor:
    n, c, h, w = x.shape
    b = block_size
    y = x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
    return y.reshape(n, c * b * b, h // b, w // b)


OPS: Mapping[str, Apply] = {
    "concat": concat,
    "depth_to_space": depth_to_space,
    "expand_dims": expand_dims,
    "flatten2d": flatten2d,
    "pad": pad,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "reshape": reshape,
    "reverse": reverse,
    "space_to_depth": space_to_depth,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "tile": tile,
    "transpose": transpose,
}
