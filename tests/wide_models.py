"""Networks whose values leave float16's range on the way to ordinary answers: ``--model tests/wide_models.py:NAME``."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from models import Stacked, tiny
from vitexport import Network

WIDTH = 96


#: Channels of a token that are as far above and below its mean.
HIGH, LOW = 7, 40


def outlying() -> Network:
    """Two of 96 channels are 800 away from the mean of their token before every LayerNorm, as the massive activations
    of trained ViTs are: float16 holds them, but their squares are 640,000. The norms' gains bring back the others."""
    return replace(tiny(), module=with_outliers(Stacked(WIDTH)))


def with_outliers(module: Stacked) -> Stacked:
    module.patches.weight.data *= 8  # what an outlier's rounding moves the mean by is to be small beside the others
    module.patches.bias.data[HIGH] += 800
    module.patches.bias.data[LOW] -= 800
    for block in module.blocks:
        block.mix.weight.data *= 0.02
        block.fc2.weight.data *= 4
    for norm in (*(block.norm for block in module.blocks), module.norm):
        norm.weight.data[:] = 100 * (2 / WIDTH) ** 0.5
        norm.weight.data[[HIGH, LOW]] = 0.1
    return module


class SpeltOut(nn.Module):
    """A LayerNorm as ConvNeXt's and many others' own code has it: an operator for each step."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * self.weight + self.bias


def outlying_and_spelt_out() -> Network:
    """As ``outlying``; float16 has infinity for the squares, hence zero for the token, which a bias then follows."""
    module = with_outliers(Stacked(WIDTH))
    for block in module.blocks:
        block.norm = SpeltOut(block.norm)
    module.norm = SpeltOut(module.norm)
    return replace(tiny(), module=module)


def heavy() -> Network:
    """With a weight that float16 has infinity for, after a layer that makes up for it."""
    module = Stacked(WIDTH)
    module.blocks[1].fc1.weight.data[0] *= 2e-4
    module.blocks[1].fc1.bias.data[0] = 0
    module.blocks[1].fc2.weight.data[0, 0] = 1e5
    return replace(tiny(), module=module)


class Streaming(Stacked):
    """Four blocks on a stream of residuals of 100,000, which comes of a layer's gain and leaves by the last norm."""

    def __init__(self) -> None:
        super().__init__(WIDTH)
        self.gain = nn.Linear(WIDTH, WIDTH)
        generator = torch.Generator().manual_seed(1)
        self.gain.weight.data = torch.randn((WIDTH, WIDTH), generator=generator) * 4e4 / WIDTH**0.5
        self.gain.bias.data.zero_()
        for block in self.blocks:
            block.fc2.weight.data *= 3e4  # what each block adds is to be seen beside the stream
            block.mix.weight.data *= 0.3

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        tokens = self.gain(self.patches(pixel_values).flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens).mean(1))


def streaming() -> Network:
    return replace(tiny(), module=Streaming())
