"""A floor of its own for a network that loses itself in rounding, measured in PyTorch and nowhere else.

Float32 leaves 120 dB of most networks and float16 50 to 65. But each layer of a random network with normalised
activations magnifies what the last one rounded (1.2 times each: https://arxiv.org/abs/1902.08129), and a deep
convolutional one may keep 40 dB in float16 in PyTorch itself. Where PyTorch's own run in a precision does not stay
within its tolerance, no runtime can be held to it: such a network is held to twice what PyTorch is off.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from vitexport import parity
from vitexport.contract import Precision, SourceModel
from vitexport.preprocess import preprocess
from vitexport_targets.coreml import packed

if TYPE_CHECKING:
    from vitexport.contract import Tensors
    from vitexport_targets.coreml.mil import Package

#: Two roundings, PyTorch's and the runtime's.
_ROUNDINGS = 2.0


def tolerance(source: SourceModel, held: Precision, first: float) -> float:
    """Noise that passes. ``first`` is what the package's first answer is off: where that is well within the precision's
    tolerance, nothing is measured."""
    if first <= held.tolerance / _ROUNDINGS:
        return held.tolerance
    own = _own_noise(source, held.name)
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


def _own_noise(source: SourceModel, precision: str) -> float:
    """The worst rms(a-b) / rms(b), over pictures and outputs, between PyTorch's float32 and its own float64 (``fp32``)
    or float16 (all others). 0 where the captured program insists on float32."""
    import torch

    dtype = torch.float64 if precision == "fp32" else torch.float16
    module = copy.deepcopy(source.program.module()).to(dtype)
    worst = 0.0
    for probe in source.probes:
        pixel_values = preprocess(probe.image, source.preprocessing)
        try:
            with torch.no_grad():
                answer = module(torch.from_numpy(pixel_values).to(dtype))
        except RuntimeError:
            return 0.0
        worst = max(worst, _noise(answer, source.forward(pixel_values), source))
    return worst


def _noise(answer: Any, true: Any, source: SourceModel) -> float:
    answers = answer if isinstance(answer, tuple) else (answer,)
    found = [
        parity.noise(parity.snr_db(given.double().numpy(), true[output.name].astype(np.float64), output.meaning))
        for given, output in zip(answers, source.outputs, strict=True)
    ]
    return float(np.max(found))
