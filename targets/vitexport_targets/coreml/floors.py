"""Floors that a precision alone cannot set, for float32 and for fewer bits; float16's are every target's alike, see
``vitexport/rounding.py``.

Each layer of a random network with normalised activations magnifies what the last one rounded (1.2 times each:
https://arxiv.org/abs/1902.08129). Where PyTorch's own run does not stay within a tolerance, no runtime can be held to
it: such a network is held to twice what PyTorch is off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitexport import parity, rounding
from vitexport.contract import Precision, SourceModel
from vitexport_targets.coreml import packed

if TYPE_CHECKING:
    from vitexport.contract import Tensors
    from vitexport_targets.coreml.mil import Package

#: Two roundings, PyTorch's and the runtime's.
_ROUNDINGS = 2.0


def tolerance(source: SourceModel, held: Precision, first: float) -> float:
    """Noise that passes in float32. ``first`` is what the package's first answer is off: where that is well within the
    precision's tolerance, nothing is measured."""
    if first <= held.tolerance / _ROUNDINGS:
        return held.tolerance
    own = rounding.float32_noise(source)
    if own <= held.tolerance:
        return held.tolerance
    return min(_ROUNDINGS * own, parity.LARGEST_ALLOWANCE * held.tolerance)


#: What is lost over what is explained was, on two photos in w8, w6p, w4, w4p and w8a8: at most 0.8 for digits_vit_tiny,
#: which is trained, 1.3 for a random ViT-Ti, 1.8 for the selfie network, and 3.6 for a random network of three layers
#: and five classes, whose few scores all happened to be small.
_MAGNIFIED = 4.0


def explained_loss(package: Package, single: Package, function: str, picture: Tensors, held: Precision) -> float:
    """Noise that the roundings of a package in fewer bits explain, on a picture. At most the precision's tolerance."""
    found = packed.roundings(package, single, function, picture)
    return min(_MAGNIFIED * packed.explained(found), held.tolerance)
