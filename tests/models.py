"""Small networks for the tests, used through ``--model tests/models.py:NAME`` as a user's own would be."""

from __future__ import annotations

import ctypes
import signal
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from vitexport import Network, Preprocessing, Size


class Tiny(nn.Module):
    """A patch embedding, a mean and a head: 0.1 ms, and everything an export touches."""

    def __init__(self, size: int = 32, classes: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16 * (size // 8) ** 2, classes)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.patches(pixel_values).flatten(2).transpose(1, 2))
        return self.head(torch.nn.functional.gelu(tokens).flatten(1))


def tiny() -> Network:
    return Network(
        Tiny(),
        Preprocessing(Size(32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", "crop", Size(36, 36)),
        task="classify",
        output_name="logits",
        meaning="logits",
        labels=("cat", "coffee", "person", "rocket", "other"),
        origin="tests/models.py",
        licence="Apache-2.0",
    )


def lone() -> Network:
    """One class, there or not."""
    return replace(tiny(), module=Tiny(classes=1), labels=("cat",))


def shares() -> Network:
    """Classes that may be there together: their probabilities do not add up to 1."""
    return replace(tiny(), module=nn.Sequential(Tiny(), nn.Sigmoid()), scores="probabilities")


class Roomy(nn.Module):
    """As ``Tiny``, with layers that are large enough to be worth fewer bits; ``scale`` is what the LayerNorm undoes."""

    def __init__(self, scale: float = 1.0, width: int = 128) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.scale = scale
        self.patches = nn.Conv2d(3, 64, 8, stride=8)
        self.norm = nn.LayerNorm(64)
        self.hidden = nn.Linear(64, width)
        self.head = nn.Linear(width * 16, 5)
        for layer in (self.patches, self.hidden, self.head):
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) / layer.weight[0].numel() ** 0.5
            layer.bias.data.zero_()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        tokens = self.norm((self.patches(pixel_values) * self.scale).flatten(2).transpose(1, 2))
        return self.head(torch.nn.functional.gelu(self.hidden(tokens)).flatten(1))


def roomy(scale: float = 1.0) -> Network:
    return replace(tiny(), module=Roomy(scale), origin="random (seed 0)")


def roomy_and_wide() -> Network:
    """With values that float16 cannot hold on the way."""
    return roomy(1e6)


def roomy_and_large() -> Network:
    """600 KB of weights at 8 bits."""
    return replace(roomy(), module=Roomy(width=4096))


class Block(nn.Module):
    """A transformer's, with tokens mixed by a matrix: a residual of two layers."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(tokens, tokens)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.mix(x.transpose(1, 2)).transpose(1, 2)
        return x + self.fc2(torch.nn.functional.gelu(self.fc1(self.norm(x))))


class Stacked(nn.Module):
    """``Tiny`` with four blocks between its patches and its head."""

    def __init__(self, width: int = 64, tokens: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.blocks = nn.ModuleList(Block(width, tokens) for _ in range(4))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)
        generator = torch.Generator().manual_seed(0)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                fan_in = layer.weight[0].numel()
                layer.weight.data = torch.randn(layer.weight.shape, generator=generator) / fan_in**0.5
                layer.bias.data = torch.randn(layer.bias.shape, generator=generator) * 0.1

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(pixel_values).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens).mean(1))


def stacked() -> Network:
    return replace(tiny(), module=Stacked())


def stacked_with_outliers() -> Network:
    """In its third block each output of a layer has one weight that is a hundred times the others: int8's steps, one
    size for each output, are as wide."""
    module = Stacked()
    weight = module.blocks[2].fc2.weight.data
    weight[torch.arange(len(weight)), torch.arange(len(weight))] = 100 * weight.std()
    return replace(tiny(), module=module)


class TinyMask(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3, padding=1)
        self.conv.weight.data = torch.randn((1, 3, 3, 3), generator=torch.Generator().manual_seed(1))
        self.conv.bias.data = torch.zeros(1)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(8 * self.conv(pixel_values))


def tiny_mask() -> Network:
    how = Preprocessing(Size(24, 32))
    return Network(TinyMask(), how, task="segment", output_name="mask", meaning="mask", labels=("person",))


class TinySegmenter(nn.Module):
    """Three classes at a quarter of the size; the second is ``person``."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.conv = nn.Conv2d(3, 3, 4, stride=4)
        self.conv.weight.data = torch.randn((3, 3, 4, 4), generator=generator) * 0.5
        self.conv.bias.data = torch.zeros(3)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.conv(pixel_values)


def tiny_segmenter() -> Network:
    how = Preprocessing(Size(64, 64), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    labels = ("background", "person", "cat")
    return Network(TinySegmenter(), how, task="segment", output_name="logits", meaning="segmentation", labels=labels)


class Deaf(nn.Module):
    """Answers the same to everything: parity on it would prove nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.arange(5.0))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return pixel_values.mean((1, 2, 3))[:, None] * 1e-6 + self.bias


def deaf() -> Network:
    return Network(Deaf(), Preprocessing(Size(32, 32)), task="classify", output_name="logits", meaning="logits")


def untraceable() -> nn.Module:
    class Branch(nn.Module):
        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return pixel_values if float(pixel_values.sum()) > 0 else -pixel_values

    return Branch()


def not_a_module() -> int:
    return 42


def any_size() -> nn.Module:
    """Takes any size, so that a ladder's rungs share all of their weights."""
    layers = nn.Sequential(nn.Conv2d(3, 32, 4, stride=4), nn.GELU(), nn.Conv2d(32, 32, 3, padding=1), Pooled())
    generator = torch.Generator().manual_seed(0)
    for parameter in layers.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return layers


class Pooled(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.amax((2, 3)) - features.mean((2, 3))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = any_size()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if pixel_values.shape[-1] != 64:
            raise ValueError("64 pixels, please")
        return self.layers(pixel_values)


def tied() -> nn.Module:
    return Tied()


def exits() -> nn.Module:
    raise SystemExit(3)


def wordy() -> nn.Module:
    raise RuntimeError("first\nsecond\nthird")


class _InterruptedAtItsEnd:
    """Python drops whatever a finaliser raises, what the signal's handler raises in it among them."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)
        time.sleep(0)  # the handler runs between two instructions, hence in here


def interrupted_in_a_finaliser(number: signal.Signals) -> Network:
    _InterruptedAtItsEnd(number)
    time.sleep(60)
    raise AssertionError("the interruption was lost")


def interrupted_by_sigint() -> Network:
    return interrupted_in_a_finaliser(signal.SIGINT)


def interrupted_by_sigterm() -> Network:
    return interrupted_in_a_finaliser(signal.SIGTERM)


def tiny_once_there_is_a_report() -> Network:
    """Waits for another export to finish."""
    while not Path("out/report.json").is_file():
        time.sleep(0.05)
    return tiny()


def interrupted_in_c() -> Network:
    """In Python that is run from C, as extensions do while they are imported: the interpreter takes note of it."""
    run = ctypes.pythonapi.PyRun_String
    run.restype, run.argtypes = ctypes.py_object, [ctypes.c_char_p, ctypes.c_int, ctypes.py_object, ctypes.py_object]
    names: dict[str, object] = {}
    run(b"import signal, time; signal.raise_signal(signal.SIGINT); time.sleep(0)", 257, names, names)  # Py_file_input
    raise AssertionError("the interruption was lost")


class Touchy(Roomy):
    """Layers that eight bits ruin: a scale for each row holds one large weight, of something that is always zero."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.norm.weight.data = torch.linspace(0, 2, 64)  # nothing of the first channel is left
        self.hidden.weight.data[0] = 0  # gelu(0) is 0: so is what the head is given first
        self.register_buffer("seen", torch.ones(1, 3, 32, 32))
        self.seen[..., ::8, ::8] = 0
        for name in names:
            getattr(self, name).weight.data.flatten(1)[:, 0] = 3000

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.patches(pixel_values * self.seen).flatten(2).transpose(1, 2))
        return self.head(torch.nn.functional.gelu(self.hidden(tokens)).flatten(1))


def touchy() -> Network:
    return replace(tiny(), module=Touchy("head"))


def touchy_throughout() -> Network:
    return replace(tiny(), module=Touchy("patches", "hidden", "head"))
