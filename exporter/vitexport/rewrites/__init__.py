"""Rewrites that a model goes through while it is captured: one per file, each with the reason it exists."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from vitexport.rewrites.fold_attention import fold_attention

#: In this order. Each is a context manager under which the module is traced; none of them changes what is computed.
REWRITES: tuple[Callable[[], AbstractContextManager[Any]], ...] = (
    fold_attention,  # ONNX lowers scaled_dot_product_attention of rank 4 only
)


def rewriting() -> ExitStack:
    """All rewrites at once, for the one place that captures."""
    stack = ExitStack()
    for rewrite in REWRITES:
        stack.enter_context(rewrite())
    return stack
