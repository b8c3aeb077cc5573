"""Activations in eight bits, and weights that are stored in fewer than they have: unpacked once, when a program loads.

An op of iOS 16 and its namesake of iOS 18 keep their bits differently: the older one gives the ``shape`` of what comes
out and packs into bytes, the newer has sub-byte types.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from vitexport_targets.coreml.blob import unpack_bits
from vitexport_targets.coreml.ops.bounds import bounded
from vitexport_targets.coreml.ops.signature import Apply, Ints, Tensor

_LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}


def quantize(
    input: Tensor,  # MIL's name
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    """clip(round(input / scale) + zero_point), to the nearest, halves to even."""
    steps = torch.round(input / _along(scale, input, axis))
    if zero_point is not None:
        steps = steps + _along(zero_point, input, axis)
    return steps.clamp(*_LIMITS[output_dtype]).to(getattr(torch, output_dtype))


def dequantize(
    input: Tensor,  # MIL's name
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    steps = input.to(scale.dtype)
    if zero_point is not None:
        steps = steps - _along(zero_point, input, axis).to(scale.dtype)
    return _along(scale, input, axis) * steps


def constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int) -> Tensor:
    return dequantize(quantized_data, scale, zero_point, axis)


def _along(parameter: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """A vector of values, one for each slice of ``x`` along ``axis``."""
    if parameter.ndim == 0 or parameter.numel() == 1:
        return parameter.reshape(())
    if axis is None:
        raise ValueError("has a scale for each slice and names no axis")
    return parameter.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


def constexpr_blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """scale * (data - offset), with one scale for each block; a block's size follows from the shapes."""
    steps = data.to(scale.dtype)
    if offset is not None:
        steps = steps - _blocks(offset, data).to(scale.dtype)
    return _blocks(scale, data) * steps


def _blocks(parameter: Tensor, of: Tensor) -> Tensor:
    """One value for each block, repeated over it."""
    if parameter.ndim != of.ndim:
        raise ValueError(f"has blocks of rank {parameter.ndim} in data of rank {of.ndim}")
    for axis, n in enumerate(of.shape):
        if not parameter.shape[axis] or n % parameter.shape[axis]:
            raise ValueError(f"has {parameter.shape[axis]} blocks in a dimension of {n}")
        parameter = parameter.repeat_interleave(n // parameter.shape[axis], axis)
    return parameter


def constexpr_lut_to_dense(
    indices: Tensor, lut: Tensor, shape: Ints | None = None, vector_axis: int | None = None
) -> Tensor:
    """A palette: ``lut`` is flat (iOS 16), or (groups of each dimension..., palette, vector) (iOS 18)."""
    if shape is not None:
        return lut[_packed(indices, (lut.numel() - 1).bit_length(), shape).long()]
    palette, vector = lut.shape[-2:]
    bounded((*indices.shape, vector))
    groups = torch.arange(math.prod(lut.shape[:-2])).reshape(lut.shape[:-2])
    found = lut.reshape(-1, palette, vector)[_blocks(groups, indices), indices.long()]
    if vector == 1:
        return found.squeeze(-1)
    if vector_axis is None:
        raise ValueError(f"has vectors of {vector} and names no axis for them")
    axis = vector_axis % indices.ndim
    return found.movedim(-1, axis + 1).flatten(axis, axis + 1)


def constexpr_sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: Ints | None = None) -> Tensor:
    """Zeros but where the mask has a bit, which take ``nonzero_data`` in order."""
    where = (mask if shape is None else _packed(mask, 1, shape)) != 0
    if int(where.sum()) != nonzero_data.numel():
        raise ValueError(f"has {nonzero_data.numel()} values for {int(where.sum())} bits of its mask")
    dense = torch.zeros(where.shape, dtype=nonzero_data.dtype)
    dense[where] = nonzero_data.reshape(-1)
    return dense


def _packed(content: Tensor, bits: int, shape: Ints) -> Tensor:
    """The iOS 16 form: ``bits`` for each element, in bytes."""
    count = math.prod(bounded(shape))
    if not 1 <= bits <= 8 or 8 * content.numel() < count * bits:
        raise ValueError(f"has {content.numel()} bytes for {count} elements of {bits} bits")
    raw = memoryview(content.contiguous().numpy().tobytes())
    return torch.from_numpy(unpack_bits(raw, bits, count, signed=False).copy()).reshape(shape)


def constexpr_lut_to_sparse(
    indices_mask: Tensor, indices_nonzero_data: Tensor, lut: Tensor, vector_axis: int | None = None
) -> tuple[Tensor, Tensor]:
    dense = constexpr_lut_to_dense(
        constexpr_sparse_to_dense(indices_nonzero_data, indices_mask), lut, vector_axis=vector_axis
    )
    mask = indices_mask
    if lut.shape[-1] > 1 and vector_axis is not None:
        mask = mask.repeat_interleave(lut.shape[-1], vector_axis)
    return mask, dense[mask != 0]


def constexpr_sparse_blockwise_shift_scale(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    dense = constexpr_blockwise_shift_scale(constexpr_sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask != 0]


def constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:
    return source_val


OPS: Mapping[str, Apply] = {
    "constexpr_affine_dequantize": constexpr_affine_dequantize,
    "constexpr_blockwise_shift_scale": constexpr_blockwise_shift_scale,
    "constexpr_cast": constexpr_cast,
    "constexpr_lut_to_dense": constexpr_lut_to_dense,
    "constexpr_lut_to_sparse": constexpr_lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": constexpr_sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": constexpr_sparse_to_dense,
    "dequantize": dequantize,
    "quantize": quantize,
}
