"""Random weights that behave like trained ones, so that a parity run on them means something.

Freshly initialised networks prove nothing: heads start at zero, LayerScale at 1e-5, and every photo gets nearly the
same answer. Here each parameter is redrawn, then the network is walked once in forward order on real photos and each
linear or convolution layer is rescaled to unit output variance (LSUV: Mishkin and Matas 2015, "All you need is a good
init", arXiv:1511.06422) and centred per channel (Krähenbühl et al. 2016, "Data-dependent Initializations of
Convolutional Neural Networks", arXiv:1511.06856), so that what is left is what differs between photos and places.

Query and key projections get ``ATTENTION_GAIN`` on top, which makes attention peaked, as trained attention is:
attention kernels show their faults on large logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from vitexport.contract import Preprocessing

#: Standard deviation of queries and of keys; attention logits have its square. It is paid for in conditioning, measured
#: as drift in ONNX Runtime (vit_small; at 2, vit_tiny): 1.25: fp32 2e-6, fp16 2.4e-3; 1.5: 3e-6 and 3.5e-3;
#: 2: 2e-5 and 1.3e-2.
#: A GPU that also accumulates in fp16 needs a margin below the 8e-3 at which fp16 passes.
ATTENTION_GAIN = 1.25

#: Of BatchNorms, whose networks are deep, convolutional and, at random, chaotic: each BatchNorm and ReLU magnify what
#: was rounded before them by pi / (pi - 1) = 1.47 in power (Yang et al. 2019, "A Mean Field Theory of Batch
#: Normalization", arXiv:1902.08129). Small gammas leave SiLU and Hardswish nearly linear, offsets keep more of a ReLU's
#: inputs on its rising side, and with a floor under the variance, that of a rescaled projection, no weak channel is
#: magnified.
#: Measured on LR-ASPP and MobileViT-DeepLab at 128 pixels with float16 between layers, worst photo: 38 and 43 dB; with
#: the gammas of other norms, no offset and no floor 29 and 35.
BATCH_NORM_GAMMAS = (0.15, 0.25)
BATCH_NORM_OFFSET = 0.1
BATCH_NORM_LEAST_VARIANCE = 1.0

_QUERY_KEY = frozenset({"q", "k", "query", "key", "q_proj", "k_proj", "query_proj", "key_proj"})

#: Below this standard deviation a layer is dead on these photos, and scaling it up would amplify rounding errors.
_DEAD = 1e-4


def enliven_on_photos(module: torch.nn.Module, preprocessing: Preprocessing, seed: int) -> None:
    """:func:`enliven` on the built-in photos: the weights depend on the seed alone, not on ``--images``."""
    enliven(module, _on_photos(preprocessing), seed)


def _on_photos(preprocessing: Preprocessing) -> torch.Tensor:
    """The built-in photos, or a pan over each, as one float32 batch."""
    import numpy as np
    import torch

    from vitexport import photos
    from vitexport.preprocess import preprocess

    probes = photos.as_inputs(photos.probes(None), preprocessing)
    return torch.from_numpy(np.concatenate([preprocess(p.image, preprocessing) for p in probes if p.kind == "photo"]))


def show_people(module: torch.nn.Module, preprocessing: Preprocessing, labels: Sequence[str]) -> None:
    """Let a segmenter see people, class ``person`` of ``labels``, in half of all the built-in photos' pixels, in place.

    Among 150 random classes one is the most probable next to nowhere, and masks of nobody agree whatever computes them.
    The bias of the last layer that scores the classes is what decides it. Without such a class, or such a layer,
    nothing is done.
    """
    import torch

    from vitexport.capture import first_tensor, person_channel

    person, scorers = person_channel(labels), []
    if person is None:
        return
    hooks = [
        layer.register_forward_hook(lambda layer, _inputs, _output: scorers.append(layer))
        for layer in module.modules()
        if _is_projection(layer) and layer.bias is not None and len(layer.bias) == len(labels)
    ]
    try:
        with torch.no_grad():
            scores = first_tensor(module(_on_photos(preprocessing)))
    finally:
        for hook in hooks:
            hook.remove()
    if not scorers:
        return
    others = torch.cat((scores[:, :person], scores[:, person + 1 :]), 1)
    behind = (others.logsumexp(1) - scores[:, person]).median()
    with torch.no_grad():
        scorers[-1].bias[person] += _rounded(behind)


def enliven(module: torch.nn.Module, batch: torch.Tensor, seed: int) -> None:
    """Redraw every parameter of ``module`` in place. ``batch``: preprocessed photos or clips, float32.

    The same seed and photos give the same weights: scales and offsets measured on the photos are rounded coarsely, so
    that the last bits of another machine's matrix product do not show.
    """
    import torch

    module.eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for owner_name, owner in sorted(module.named_modules()):
            for name, parameter in sorted(owner.named_parameters(recurse=False)):
                _draw(owner, f"{owner_name}.{name}", parameter, generator)
        _walk(module, batch)


def _draw(owner: torch.nn.Module, name: str, parameter: torch.Tensor, generator: torch.Generator) -> None:
    """Draw by role. Gammas stay positive and under 1, as trained norms' and LayerScales' mostly do."""
    own_name = name.rpartition(".")[2]
    if "logit_scale" in own_name:  # SwinV2's is the logarithm of a temperature: its own start is what trained ones keep
        return
    if _is_projection(owner) or own_name == "in_proj_weight":
        if parameter.ndim > 1:
            parameter.normal_(0.0, 1 / math.sqrt(_fan_in(owner, parameter)), generator=generator)
        else:
            parameter.normal_(0.0, 0.05, generator=generator)
    elif parameter.ndim == 1 and "bias" not in own_name and "beta" not in own_name:
        parameter.uniform_(*(BATCH_NORM_GAMMAS if _is_batch_norm(owner) else (0.3, 0.8)), generator=generator)
    elif parameter.ndim == 1:
        parameter.normal_(BATCH_NORM_OFFSET if _is_batch_norm(owner) else 0.0, 0.05, generator=generator)
    else:  # class, register, mask and position tokens; tables of relative position biases
        parameter.normal_(0.0, 0.5, generator=generator)


def _walk(module: torch.nn.Module, batch: torch.Tensor) -> None:
    """One forward pass in which every layer is set right before the next one sees its output."""
    done: set[int] = set()  # a layer that is used twice is set by its first use
    hooks = []
    for name, layer in module.named_modules():
        if _is_projection(layer):
            hooks.append(layer.register_forward_hook(_Rescale(name.rpartition(".")[2], done)))
        elif _is_batch_norm(layer):
            hooks.append(layer.register_forward_pre_hook(_calibrate))
    try:
        module(batch)
    finally:
        for hook in hooks:
            hook.remove()


class _Rescale:
    """Forward hook of a projection: unit variance, zero mean per channel, gain on queries and keys."""

    def __init__(self, own_name: str, done: set[int]) -> None:
        self.own_name = own_name
        self.done = done

    def __call__(self, layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
        if id(layer.weight) in self.done:
            return None
        self.done.add(id(layer.weight))
        channels = _channel_axis(layer, output)
        others = [axis for axis in range(output.ndim) if axis != channels]
        shape = [1] * output.ndim
        shape[channels] = -1
        gain = self._gain(output.shape[channels]).to(output)
        mean = output.mean(others) if layer.bias is not None else output.new_zeros(output.shape[channels])
        spread = (output - mean.view(shape)).std().item()
        scale = gain / _coarse(spread) if spread > _DEAD else gain
        _scale_outputs(layer, scale)
        if layer.bias is None:
            return output * scale.view(shape)
        offset = _rounded(mean * scale)
        drawn = layer.bias.clone()
        layer.bias.mul_(scale).sub_(offset).add_(drawn)
        return output * scale.view(shape) + (drawn - offset).view(shape)

    def _gain(self, channels: int) -> torch.Tensor:
        import torch

        gain = torch.ones(channels)
        if self.own_name in _QUERY_KEY:
            gain *= ATTENTION_GAIN
        elif self.own_name == "qkv":  # queries, keys, values, in this order
            gain[: 2 * channels // 3] *= ATTENTION_GAIN
        return gain


def _calibrate(layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
    """BatchNorm: the statistics that training would have gathered."""
    others = [axis for axis in range(inputs[0].ndim) if axis != 1]
    if layer.running_mean is not None:
        layer.running_mean.copy_(_rounded(inputs[0].mean(others)))
        layer.running_var.copy_(_rounded(inputs[0].var(others)).clamp_min(BATCH_NORM_LEAST_VARIANCE))


def _coarse(value: float) -> float:
    """To the nearest eighth of an octave (within 4.4 %)."""
    return float(2 ** (round(math.log2(value) * 8) / 8))


def _rounded(values: torch.Tensor) -> torch.Tensor:
    """To multiples of 1/64."""
    return (values * 64).round() / 64


def _scale_outputs(layer: Any, scale: torch.Tensor) -> None:
    import torch

    transposed = isinstance(layer, torch.nn.ConvTranspose2d)
    if transposed and layer.groups > 1:
        per_group = scale.view(layer.groups, 1, -1).expand(-1, layer.in_channels // layer.groups, -1)
        layer.weight.mul_(per_group.reshape(layer.in_channels, -1, *[1] * (layer.weight.ndim - 2)))
        return
    shape = [1] * layer.weight.ndim
    shape[1 if transposed else 0] = -1
    layer.weight.mul_(scale.view(shape))


def _is_projection(layer: Any) -> bool:
    import torch

    # A packed attention's output projection is read by torch itself, past the hooks: it keeps its drawn scale.
    return isinstance(
        layer, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d | torch.nn.ConvTranspose2d
    )


def _is_batch_norm(layer: Any) -> bool:
    import torch

    return isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)


def _channel_axis(layer: Any, output: torch.Tensor) -> int:
    import torch

    return output.ndim - 1 if isinstance(layer, torch.nn.Linear) else 1


def _fan_in(owner: Any, weight: torch.Tensor) -> int:
    import torch

    if isinstance(owner, torch.nn.ConvTranspose2d):  # (in, out / groups, kh, kw), each output sees kh kw / stride of it
        stride = owner.stride[0] * owner.stride[1]
        return int(max(1, weight.shape[0] // owner.groups * weight[0, 0].numel() // stride))
    fan_in: int = weight[0].numel()
    return fan_in
