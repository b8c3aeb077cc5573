"""Rewrites that a model goes through while it is captured: one per file, each with the reason it exists."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from vitexport.rewrites.fold_attention import fold_attention
from vitexport.rewrites.hiera_attention import hiera_attention
from vitexport.rewrites.rotate_pairs import rotate_pairs
from vitexport.rewrites.split_permutations import split_permutations
from vitexport.rewrites.squeeze_arithmetic import squeeze_arithmetic
from vitexport.rewrites.unpack_qkv import unpack_qkv

#: On the way in, in this order. Each is a context manager under which the module is traced; none of them changes what
#: is computed.
REWRITES: tuple[Callable[[], AbstractContextManager[Any]], ...] = (
    fold_attention,  # ONNX lowers scaled_dot_product_attention of rank 4 only
    hiera_attention,  # Core ML has no tensor of rank 6
)

#: On the captured program, in place, in this order; exact, and proven beside the module with the capture itself.
PROGRAM_REWRITES: tuple[Callable[[Any], int], ...] = (
    unpack_qkv,  # delegates for GPUs take tensors of rank 4, and timm's attention has one of rank 5
    split_permutations,  # windows are cut out by way of rank 6
    squeeze_arithmetic,  # and their mask is added at rank 5
    rotate_pairs,  # EVA-02 rotates by way of rank 5
)


def rewriting() -> ExitStack:
    """All rewrites of the trace at once, for the one place that captures."""
    stack = ExitStack()
    for rewrite in REWRITES:
        stack.enter_context(rewrite())
    return stack
