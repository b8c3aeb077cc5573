"""A floor of its own for a network that loses itself in rounding, measured in PyTorch and nowhere else.

Float32 leaves 120 dB of most networks and float16 50 to 65. But each layer of a random network with normalised
activations magnifies what the last one rounded (1.2 times each: https://arxiv.org/abs/1902.08129), and a deep
convolutional one may keep 40 dB in float16 in PyTorch itself; a trained one that is in doubt about a picture, too:
``selfie_landscape`` of a cat. Where PyTorch does not stay within a precision's tolerance, no runtime can be held to it.

Of float16 one run of PyTorch's tells little: which way a result is rounded is chance, and of that cat it keeps 52 dB
where others that round as finely keep 33 to 51. So every result is moved at random, by half of its last place at most,
and that several times, as CESTAC does (J. Vignes, A stochastic arithmetic for reliable scientific computation, 1993).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from vitexport import parity
from vitexport.contract import Precision, SourceModel
from vitexport.preprocess import preprocess
from vitexport_targets.coreml import packed, stochastic

if TYPE_CHECKING:
    from vitexport.contract import Tensors
    from vitexport_targets.coreml.mil import Package

#: Of float32 against float64: two roundings, PyTorch's and the runtime's.
_ROUNDINGS = 2.0

#: Runs in which each result is moved at random. The worst of four, over all pictures, exceeds four runs in five.
_DRAWS = 4

#: In float16, where the first picture leaves so much room, no other is measured: of ``selfie_landscape`` the worst picture has 4.5
#: times the noise of the first.
_ROOM = 8.0


def tolerance(source: SourceModel, held: Precision, first: float) -> float:
    """Noise that passes. ``first`` is what the package's first answer is off: where that is well within the precision's
    tolerance, nothing is measured."""
    if first <= held.tolerance / (_ROUNDINGS if held.name == "fp32" else _ROOM):
        return held.tolerance
    own = _ROUNDINGS * _beside_float64(source) if held.name == "fp32" else _moved_at_random(source)
    return float(np.clip(own, held.tolerance, parity.LARGEST_ALLOWANCE * held.tolerance))


#: What is lost over what is explained was, on two photos in w8, w6p, w4, w4p and w8a8: at most 0.8 for digits_vit_tiny,
#: which is trained, 1.3 for a random ViT-Ti, 1.8 for the selfie network, and 3.6 for a random network of three layers
#: and five classes, whose few scores all happened to be small.
_MAGNIFIED = 4.0


def explained_loss(package: Package, single: Package, function: str, picture: Tensors, held: Precision) -> float:
    """Noise that the roundings of a package in fewer bits explain, on a picture. At most the precision's tolerance."""
    found = packed.roundings(package, single, function, picture)
    return min(_MAGNIFIED * packed.explained(found), held.tolerance)


def _beside_float64(source: SourceModel) -> float:
    """The worst rms(a-b) / rms(b), over pictures and outputs, between PyTorch's float32 and its own float64. 0 where
    the captured program insists on float32."""
    import torch

    module = copy.deepcopy(source.program.module()).double()
    worst = 0.0
    for probe in source.probes:
        pixel_values = preprocess(probe.image, source.preprocessing)
        try:
            with torch.no_grad():
                answer = module(torch.from_numpy(pixel_values).double())
        except RuntimeError:
            return 0.0
        worst = max(worst, _noise(answer, source.forward(pixel_values), source))
    return worst


def _moved_at_random(source: SourceModel) -> float:
    """The worst rms(a-b) / rms(b), over pictures, outputs and draws, where every weight and every result is off by half
    of float16's last place at most."""
    import torch

    run = stochastic.rounded(source.program.module(), torch.finfo(torch.float16))
    worst = 0.0
    for probe in source.probes:
        pixel_values = preprocess(probe.image, source.preprocessing)
        true = source.forward(pixel_values)
        for seed in range(_DRAWS):
            worst = max(worst, _noise(run(torch.from_numpy(pixel_values), seed), true, source))
    return worst


def _noise(answer: Any, true: Any, source: SourceModel) -> float:
    answers = answer if isinstance(answer, tuple) else (answer,)
    found = [
        parity.noise(parity.snr_db(given.double().numpy(), true[output.name].astype(np.float64), output.meaning))
        for given, output in zip(answers, source.outputs, strict=True)
    ]
    return float(np.max(found))
