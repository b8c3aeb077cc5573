"""What rounding alone does to a network: measured in PyTorch, and nowhere else.

No runtime can be held closer to PyTorch than PyTorch is to itself, see :func:`vitexport.parity.held_to`. Float32 leaves
120 dB of most networks and float16 50 to 65. But each layer of a random network with normalised activations magnifies
what the last one rounded (1.2 times each: https://arxiv.org/abs/1902.08129), and a steep sigmoid does so at a mask's
edge.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from vitexport import parity
from vitexport.preprocess import preprocess

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from vitexport.contract import Meaning, SourceModel, Tensors

#: Drift in float32 from which on another order of summing is tried, too: a tenth of what float32 is held to, where four
#: roundings of it, which are allowed, begin to count.
_SHOWS = 1e-5

#: Times that the picture on which float16 tells most is dithered.
_THROWS = 4

#: What is this large is meant to be infinite: masks of attention are filled with it.
_STANDS_FOR_INFINITY = 1e30

_half: WeakKeyDictionary[SourceModel, float] = WeakKeyDictionary()


def float32(entry: torch.nn.Module, meaning: Meaning, batches: list[NDArray[np.float32]]) -> float:
    """Drift between the module's float32 and float64 answers; 0 where its code insists on float32.

    One order of summing is one throw of the dice. Where it shows that rounding matters, torch's own kernels are asked
    too, which sum in another order than oneDNN's: on the landscape selfie network they are off by 8e-5, and oneDNN's by
    3e-5.
    """
    import torch

    exact = copy.deepcopy(entry).double()
    worst = 0.0
    with torch.no_grad():
        for batch in batches:
            pixel_values = torch.from_numpy(batch)
            try:
                true = exact(pixel_values.double()).numpy()
            except RuntimeError:
                return 0.0
            off = parity.drift(entry(pixel_values).numpy(), true, meaning)
            if off > _SHOWS:
                off = max(off, parity.drift(_without_onednn(entry, pixel_values), true, meaning))
            worst = max(worst, off)
    return worst


def _without_onednn(entry: torch.nn.Module, pixel_values: torch.Tensor) -> NDArray[np.float32]:
    import torch

    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        answer: NDArray[np.float32] = entry(pixel_values).numpy()
    return answer


def float32_noise(source: SourceModel) -> float:
    """The worst rms(a-b) / rms(b), over pictures and outputs, between the captured program in float64 and PyTorch's
    float32; 0 where the program insists on float32."""
    import torch

    exact = copy.deepcopy(source.program.module()).double()
    try:
        with torch.no_grad():
            return float(np.max([_noise(exact(picture.double()), true, source) for picture, true in _exam(source)]))
    except RuntimeError:
        return 0.0


def float16_noise(source: SourceModel) -> float:
    """The worst rms(a-b) / rms(b), over pictures and outputs, between the captured program with every result rounded to
    float16, sums being float32, and PyTorch's float32.

    One picture is one throw of the dice: :data:`_THROWS` more are of the picture that lost most, each value off at
    random by what float16 cannot tell. ``selfie_landscape`` keeps 51.7 dB of a photo of a cat, and 41.4 to 53.7 of the
    same photo so dithered. 0 where float16 cannot hold a result: that is no rounding, and is to be mended.

    Measured once for a source.
    """
    if source not in _half:
        _half[source] = _float16_noise(source)
    return _half[source]


def _float16_noise(source: SourceModel) -> float:
    import torch

    rounded = _rounding_every_result(source.program.module())
    dice = torch.Generator().manual_seed(0)
    exam = _exam(source)
    try:
        with torch.no_grad():
            found = [_noise(rounded.run(picture), true, source) for picture, true in exam]
            hardest, true = exam[int(np.argmax(found))]
            found += [_noise(rounded.run(_dithered(hardest, dice)), true, source) for _ in range(_THROWS)]
    except OverflowError:
        return 0.0
    worst = float(np.max(found))
    return worst if np.isfinite(worst) else 0.0


def _exam(source: SourceModel) -> list[tuple[torch.Tensor, Tensors]]:
    """Pictures, and PyTorch's float32 answers to them."""
    import torch

    pictures = [preprocess(probe.image, source.preprocessing) for probe in source.probes]
    return [(torch.from_numpy(picture), source.forward(picture)) for picture in pictures]


def _noise(answer: Any, true: Tensors, source: SourceModel) -> float:
    """NaN stays."""
    answers = answer if isinstance(answer, (tuple, list)) else (answer,)
    found = [
        parity.noise(parity.snr_db(given.numpy(), true[output.name], output.meaning))
        for given, output in zip(answers, source.outputs, strict=True)
    ]
    return float(np.max(found))


def _rounding_every_result(program: torch.fx.GraphModule) -> torch.fx.Interpreter:
    """Weights and inputs included. In float32 kernels, for torch's own of float16 take up to a hundred times as long.
    Raises ``OverflowError``."""
    import torch

    def rounded(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return tuple(map(rounded, value))
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
            return value
        half = value.half()
        if half.isinf().any():
            meant = (value == -torch.inf) | (value.isfinite() & (value.abs() >= _STANDS_FOR_INFINITY))
            if (half.isinf() & ~meant).any():
                raise OverflowError
        return half.float()

    class Rounding(torch.fx.Interpreter):  # type: ignore[misc]  # torch.fx is not typed
        def run_node(self, n: torch.fx.Node) -> Any:
            result = super().run_node(n)
            # What is written through a view must reach what it is a view of, so neither is exchanged for a copy.
            match _alias(n):
                case "view":
                    return result
                case "written":
                    return result.copy_(rounded(result))
            return rounded(result)

    return Rounding(program)


def _alias(node: torch.fx.Node) -> Literal["view", "written"] | None:
    """Whether an operator returns one of its operands, which has been rounded: a view of it, or what it wrote there."""
    returns = node.target._schema.returns if hasattr(node.target, "_schema") else ()
    found = [value.alias_info for value in returns if value.alias_info is not None]
    if not found:
        return None
    return "written" if found[0].is_write else "view"


def _dithered(values: torch.Tensor, dice: torch.Generator) -> torch.Tensor:
    """Each off by up to half of its last place in float16, which has 11 bits and ends at 2^-24."""
    import torch

    _, exponent = torch.frexp(values)
    exponent = torch.where(values == 0, -24, exponent - 11).clamp(min=-24)
    place = torch.ldexp(torch.ones_like(values), exponent)
    return values + (torch.rand(values.shape, generator=dice) - 0.5) * place
