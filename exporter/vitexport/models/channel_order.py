"""Networks that were trained on BGR: the convolution that reads the picture is turned around, and they take RGB.

Preprocessing is done in Python, in browsers and by Core ML; a network that takes what all others take needs no word for
it in any of them. MobileViT is one (``do_flip_channel_order`` of its image processor).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitexport.errors import BadRequest

if TYPE_CHECKING:
    import torch


def take_rgb(module: torch.nn.Module, model: str) -> None:
    """Reverse the input channels of the stem of ``module``, which was trained on BGR, in place. What it computes of RGB
    is what it computed of BGR, but for the order of three additions. Raises ``BadRequest`` where no single convolution
    reads the picture; ``model`` is what the user calls it."""
    import torch

    stems = [m for m in module.modules() if isinstance(m, torch.nn.Conv2d) and m.weight.shape[1] == 3 and m.groups == 1]
    if len(stems) != 1:
        raise BadRequest(
            f"'{model}' takes BGR, and {len(stems)} of its convolutions could be the one that reads it. "
            "Wrap it in a factory that takes RGB (path/to/file.py:factory)."
        )
    with torch.no_grad():
        stems[0].weight.copy_(stems[0].weight.flip(1))
