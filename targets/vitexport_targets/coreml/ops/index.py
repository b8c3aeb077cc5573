"""Slices and look-ups, and the numbers that programs of open size compute them from."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vitexport_targets.coreml.ops.bounds import bounded
from vitexport_targets.coreml.ops.signature import Apply, Bools, Ints, Tensor


def slice_by_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """Python's slices; a mask of True leaves an end open, or takes the one element at ``begin``."""
    rank = x.ndim
    strides = (1,) * rank if stride is None else stride
    open_begin, open_end, single = ((False,) * rank if m is None else m for m in (begin_mask, end_mask, squeeze_mask))
    for axis in reversed(range(rank)):
        if single[axis]:
            x = x.select(axis, begin[axis])
            continue
        first = None if open_begin[axis] else begin[axis]
        last = None if open_end[axis] else end[axis]
        taken = range(x.shape[axis])[slice(first, last, strides[axis])]
        x = _strided(x, axis, taken)
    return x


def _strided(x: Tensor, axis: int, taken: range) -> Tensor:
    if taken.step == 1:
        return x.narrow(axis, taken.start, len(taken))
    return x.index_select(axis, torch.tensor(taken, dtype=torch.int64))


def slice_by_size(x: Tensor, begin: Ints, size: Ints) -> Tensor:
    """A size of -1 takes all that is left."""
    for axis, (first, length) in enumerate(zip(begin, size, strict=True)):
        start = first + x.shape[axis] if first < 0 else first
        x = x.narrow(axis, start, x.shape[axis] - start if length == -1 else length)
    return x


def gather(x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """Slices of ``x`` along ``axis``, in the shape of ``indices``; negative ones count from the end."""
    axis %= x.ndim
    if batch_dims:
        return _gather_batched(x, indices, axis, batch_dims)
    flat = x.index_select(axis, _counted(indices, x.shape[axis]).reshape(-1))
    return flat.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_batched(x: Tensor, indices: Tensor, axis: int, batch_dims: int) -> Tensor:
    batch = x.shape[:batch_dims]
    pairs = zip(x.flatten(0, batch_dims - 1), indices.flatten(0, batch_dims - 1), strict=True)
    parts = [gather(one, where, axis - batch_dims) for one, where in pairs]
    return torch.stack(parts).reshape(*batch, *parts[0].shape)


def gather_along_axis(x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False) -> Tensor:
    return torch.gather(x, axis, _counted(indices, x.shape[axis]))


def _counted(indices: Tensor, size: int) -> Tensor:
    """Indices from the front, as torch has them."""
    found = indices.long()
    return torch.where(found < 0, found + size, found)


def shape(x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int32)


def fill(shape: Ints, value: Tensor | None = None) -> Tensor:
    of = torch.zeros(()) if value is None else value.reshape(())
    return of.expand(bounded(shape)).clone()


def fill_like(ref_tensor: Tensor, value: Tensor | None = None) -> Tensor:
    return fill(tuple(ref_tensor.shape), value)


def range_1d(end: Tensor, start: Tensor, step: Tensor) -> Tensor:
    first, last, by = start.item(), end.item(), step.item()
    bounded((int(abs((last - first) / by)),))
    return torch.arange(first, last, by, dtype=start.dtype)


def one_hot(
    indices: Tensor,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Tensor | None = None,
    off_value: Tensor | None = None,
) -> Tensor:
    bounded((*indices.shape, one_hot_vector_size))
    hot = torch.nn.functional.one_hot(indices.long(), one_hot_vector_size).bool()
    one, zero = (torch.tensor(n, dtype=torch.int32) for n in (1, 0))
    return torch.where(hot, one if on_value is None else on_value, zero if off_value is None else off_value).movedim(
        -1, axis
    )


OPS: Mapping[str, Apply] = {
    "fill": fill,
    "fill_like": fill_like,
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "one_hot": one_hot,
    "range_1d": range_1d,
    "shape": shape,
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
}
