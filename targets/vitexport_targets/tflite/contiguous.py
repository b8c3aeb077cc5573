"""Parameters laid out in memory as they are counted, before litert-torch takes them.

Why: litert-torch 0.10 stores a constant once for all that have its address, and makes a copy, which it drops at once,
of each that is not contiguous (``tensor_lowering_placeholder_lowering`` in litert_torch/backend/inline_consts.py). The
next copy of that shape is made where the last one was, has its address, and gets its values: a network with transposed
weights comes out with some of them exchanged, at random, one run in five. Contiguous ones are not copied, and live as
long as the module does. Delete this when copies are kept, or told apart otherwise: tests/test_tflite_target.py notices.
"""

from __future__ import annotations

from itertools import chain
from typing import Any


def make_contiguous(module: Any) -> None:
    """Every parameter and buffer of a ``torch.nn.Module``, in place; values stay as they are."""
    for tensor in chain(module.parameters(), module.buffers()):
        tensor.data = tensor.data.contiguous()
    for part in module.modules():  # constants of an exported program are plain attributes of its graph module
        for name, value in vars(part).items():
            if hasattr(value, "is_contiguous") and not value.is_contiguous():
                setattr(part, name, value.contiguous())
