"""Floors that a precision alone cannot set, for float32 and for fewer bits; float16's are every target's alike, see
``vitexport/rounding.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitexport import parity, rounding
from vitexport.contract import Precision, SourceModel
from vitexport_targets.coreml import packed

if TYPE_CHECKING:
    from vitexport.contract import Tensors
    from vitexport_targets.coreml.mil import Package


def tolerance(source: SourceModel, held: Precision, first: float) -> float:
    """Noise that passes in float32. ``first`` is what the package's first answer is off: where that is well within the
    precision's tolerance, PyTorch's own rounding is not measured."""
    if first <= held.tolerance / parity.ROUNDINGS_IN_NOISE:
        return held.tolerance
    return parity.noise_of_roundings(rounding.float32_noise(source), held.tolerance)


#: What is lost over what is explained was, on two photos in w8, w6p, w4, w4p and w8a8: at most 0.8 for digits_vit_tiny,
#: which is trained, 1.3 for a random ViT-Ti, 1.8 for the selfie network, and 3.6 for a random network of three layers
#: and five classes, whose few scores all happened to be small.
_MAGNIFIED = 4.0


def explained_loss(package: Package, single: Package, function: str, picture: Tensors, held: Precision) -> float:
    """Noise that the roundings of a package in fewer bits explain, on a picture. At most the precision's tolerance."""
    found = packed.roundings(package, single, function, picture)
    return min(_MAGNIFIED * packed.explained(found), held.tolerance)
