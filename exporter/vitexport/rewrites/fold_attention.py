"""Fold attention over extra leading dimensions (windows, frames) into attention of rank 4.

Why: ``torch.onnx.export(dynamo=True)`` lowers ``scaled_dot_product_attention`` of rank 4 only and stops with "only 4D
query, key, and value are supported" (https://github.com/microsoft/onnxscript/pull/2558 made that the rule), while
PyTorch takes any rank and Hiera's windowed attention has five. All leading dimensions are batch dimensions, so folding
them computes the same numbers. Delete this when the exporter folds them itself.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any


def fold_attention() -> AbstractContextManager[Any]:
    """While active, every ``F.scaled_dot_product_attention`` is issued with rank 4."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention
    from torch.overrides import TorchFunctionMode

    class FoldAttention(TorchFunctionMode):  # type: ignore[misc]  # torch ships no types for it
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func is scaled_dot_product_attention:
                return _folded(*args, **kwargs)
            return func(*args, **kwargs)

    def _folded(query: Any, key: Any, value: Any, attn_mask: Any = None, *args: Any, **kwargs: Any) -> Any:
        if query.ndim == 4 or not query.ndim == key.ndim == value.ndim:
            return scaled_dot_product_attention(query, key, value, attn_mask, *args, **kwargs)
        if query.ndim < 4:
            padding = (None,) * (4 - query.ndim)
            query, key, value = query[padding], key[padding], value[padding]
            output = scaled_dot_product_attention(query, key, value, attn_mask, *args, **kwargs)
            return output.reshape(output.shape[len(padding) :])
        leading = query.shape[:-3]
        if attn_mask is not None and attn_mask.ndim > 2:
            scores = torch.broadcast_shapes(attn_mask.shape, (*query.shape[:-1], key.shape[-2]))
            attn_mask = attn_mask.expand(scores).flatten(0, -4)
        query, key, value = (tensor.flatten(0, -4) for tensor in (query, key, value))
        return scaled_dot_product_attention(query, key, value, attn_mask, *args, **kwargs).unflatten(0, leading)

    return FoldAttention()
