"""How large a tensor may become: a few bytes of a damaged file can ask for terabytes."""

from __future__ import annotations

import math

import torch

from vitexport_targets.coreml.ops.signature import Ints, Tensor

#: No network for a phone has a tensor of this many elements (4 GiB of float32): what asks for one is damaged.
MOST_ELEMENTS = 1 << 30


def bounded(shape: Ints) -> Ints:
    """``shape``, if a tensor of it can be meant. Ops that make more than they take ask here before they do."""
    if any(n < 0 for n in shape) or math.prod(shape) > MOST_ELEMENTS:
        raise ValueError(f"makes a tensor of shape {list(shape)}")
    return shape


def together(*tensors: Tensor) -> Ints:
    """The shape that tensors are broadcast to."""
    return bounded(tuple(torch.broadcast_shapes(*(t.shape for t in tensors))))
