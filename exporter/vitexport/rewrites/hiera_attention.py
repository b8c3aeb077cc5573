"""Hiera's attention without a tensor of rank 5 or 6.

Why: timm's ``MaskUnitAttention`` reshapes queries, keys and values together to (B, tokens, windows, 3, heads, dim), and
Core ML takes tensors of rank 5 at most: coremltools stops with 'outputs a rank 6 tensor'
(https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html, ``reshape``), GPU delegates of
rank 4. Taking the three apart first, and pooling with batch, heads and windows as one dimension and what is kept as
another, moves the same numbers to the same places: bit-exact.
Delete this when timm takes them apart itself
(https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/hiera.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def hiera_attention() -> Iterator[None]:
    """While active, timm's Hiera attends by way of rank 4. Does nothing where no Hiera was built."""
    hiera = sys.modules.get("timm.models.hiera")
    if hiera is None:
        yield
        return
    attention = hiera.MaskUnitAttention
    original = attention.forward
    attention.forward = _attend
    try:
        yield
    finally:
        attention.forward = original


def _attend(self: Any, x: Any) -> Any:
    """(batch, tokens, dim) -> (batch, tokens / q_stride, dim_out); tokens lie window by window within each place."""
    from torch.nn.functional import scaled_dot_product_attention

    batch, tokens, _ = x.shape
    windows = tokens // (self.q_stride * self.window_size) if self.use_mask_unit_attn else 1

    def by_head(part: Any) -> Any:
        return part.reshape(batch, -1, windows, self.heads, self.head_dim).permute(0, 3, 2, 1, 4)

    q, k, v = (by_head(part) for part in self.qkv(x).chunk(3, dim=-1))
    if self.q_stride > 1:
        pooled = q.reshape(batch * self.heads * windows, self.q_stride, -1).amax(dim=1)
        q = pooled.reshape(batch, self.heads, windows, -1, self.head_dim)
    if not self.use_mask_unit_attn:
        q, k, v = (part.squeeze(2) for part in (q, k, v))
    attended = scaled_dot_product_attention(q, k, v)
    return self.proj(attended.transpose(1, -2).reshape(batch, -1, self.dim_out))
