"""Products of matrices, attention among them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from vitexport_targets.coreml.ops.bounds import bounded, together
from vitexport_targets.coreml.ops.signature import Apply, Tensor, Tensors


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``weight`` (out, in), as PyTorch's."""
    bounded((*x.shape[:-1], weight.shape[0]))
    return F.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    x = x.transpose(-1, -2) if transpose_x else x
    y = y.transpose(-1, -2) if transpose_y else y
    bounded((*together(x[..., :1, :1], y[..., :1, :1]), x.shape[-2], y.shape[-1]))
    return torch.matmul(x, y)


#: What Core ML's einsum can do, with letters in the order they come; other letters may stand for them.
_EQUATIONS = ("abcd,adce->abce", "abc,cbd->abd")


def einsum(values: Tensors, equation: str) -> Tensor:
    """A product over the last dimension and the third from the end, all else batch."""
    letters = {c: chr(ord("a") + i) for i, c in enumerate(dict.fromkeys(c for c in equation if c.isalpha()))}
    if "".join(letters.get(c, c) for c in equation if not c.isspace()) not in _EQUATIONS:
        raise NotImplementedError(f"equation '{equation}'")
    x, y = values
    bounded((*together(x[..., :1, :, :1], y[..., :1, :, :1]), x.shape[-3], y.shape[-1]))
    return torch.einsum(equation, x, y)


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """softmax(Q Kᵀ / sqrt(dim) + mask) V; where the mask is of booleans, False is left out."""
    bounded((*together(query[..., :1, :1], key[..., :1, :1]), query.shape[-2], key.shape[-2]))
    return F.scaled_dot_product_attention(query, key, value, attn_mask)


OPS: Mapping[str, Apply] = {
    "einsum": einsum,
    "linear": linear,
    "matmul": matmul,
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
