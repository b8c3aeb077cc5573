"""Training-time branches folded into the one convolution that they add up to (RepVGG, https://arxiv.org/abs/2101.03697).

Networks such as RepViT, FastViT and MobileOne are meant to run so: parallel convolutions and their BatchNorms become
one kernel (RepViT-M0.9: 298 operations in Core ML without, 198 with it). It is done on the weights, before anything is
captured, and the folded module is the reference from then on; so it is compared here with the one it was made of.
"""

from __future__ import annotations

from typing import Any

from vitexport.errors import LoweringFailed

#: What timm calls the methods that fold a module's branches (``timm.utils.reparameterize_model``).
_METHODS = ("fuse", "reparameterize", "switch_to_deploy")

#: Of every target's float32 precision: 1,700 float32 roundings that all add up. RepViT with random weights: 9e-6.
_TOLERANCE = 1e-4


def reparameterised(module: Any, size: tuple[int, int]) -> Any:
    """The module itself where it has no branches to fold, else a folded copy. Eval mode.

    Raises ``LoweringFailed`` where the copy does not compute what the module computes at ``size`` (height, width).
    """
    if not any(hasattr(part, method) for part in module.modules() for method in _METHODS):
        return module
    import torch
    from timm.utils import reparameterize_model

    from vitexport.parity import drift

    folded = reparameterize_model(module.eval())
    noise = torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        off = drift(folded(noise).numpy(), module(noise).numpy())
    if not off <= _TOLERANCE:
        raise LoweringFailed(
            f"timm's folding of {type(module).__name__}'s branches changes its answers (drift {off:.1e}, tolerance "
            f"{_TOLERANCE:.0e}). Fold it yourself and export the factory (--model file.py:factory)."
        )
    return folded
