"""Networks of one block each, whose seams are hidden in as many ways as libraries write attention."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from vitexport import Network, Preprocessing, Size

WIDTH, HEADS, TOKENS = 16, 2, 16


class Block(nn.Module):
    """A patch embedding, ``body`` of its subclass on (N, tokens, width), and a head on all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 8, stride=8)
        self.norm = nn.LayerNorm(WIDTH)
        self.build()
        self.head = nn.Linear(WIDTH * TOKENS, 5)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5
            parameter.data += torch.randn(parameter.shape, generator=generator) * spread

    def build(self) -> None: ...

    def body(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(pixel_values).flatten(2).transpose(1, 2)
        return self.head(torch.tanh(self.body(tokens)).flatten(1))


class Packed(Block):
    """timm's: queries, keys and values of one layer."""

    def build(self) -> None:
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, WIDTH))


class Separate(Block):
    """transformers': a layer each, and attention written out."""

    def build(self) -> None:
        self.q, self.k, self.v, self.proj = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def body(self, x: torch.Tensor) -> torch.Tensor:
        n, t, _ = x.shape
        seen = self.norm(x)
        q, k, v = (layer(seen).view(n, t, HEADS, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-1, -2) * 0.3).softmax(-1)
        return x + self.proj((weights @ v).transpose(1, 2).reshape(n, t, WIDTH))


class Windows(Packed):
    """Swin's: tokens are rolled and cut into windows between the norm and the layer that reads it."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        rolled = torch.roll(self.norm(x).view(-1, 4, 4, WIDTH), (1, 1), (1, 2))
        windows = rolled.view(-1, 2, 2, 2, 2, WIDTH).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, WIDTH)
        q, k, v = self.qkv(windows).chunk(3, -1)
        mixed = self.proj(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0])
        return x + mixed.reshape(-1, TOKENS, WIDTH)


class Gated(Block):
    """SwiGLU, as in DINOv2-giant: what is multiplied by the gate is linear in its own layer."""

    def build(self) -> None:
        self.gate, self.up, self.down = nn.Linear(WIDTH, 24), nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.norm(x)
        return x + self.down(F.silu(self.gate(seen)) * self.up(seen))


class Averaged(Block):
    """A mean over tokens, beside a token of its own, lies between the norm and its reader."""

    def build(self) -> None:
        self.one, self.all = nn.Linear(WIDTH, WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.norm(x)
        first, mean = seen[:, 0], seen[:, 1:].mean(1)
        return x + (self.one(first) + self.all(torch.cat([mean, x[:, 0]], -1)))[:, None]


class Rectified(Block):
    """A ReLU keeps scales, and no offsets."""

    def build(self) -> None:
        self.fc1, self.fc2 = nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc2(torch.relu(self.fc1(x)))


class Residual(Block):
    """What reads the norm is also added to it."""

    def build(self) -> None:
        self.fc = nn.Linear(WIDTH, WIDTH)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.norm(x)
        return seen + self.fc(seen)


class Tied(Block):
    """Two norms are read by one weight."""

    def build(self) -> None:
        self.other, self.fc = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc(self.norm(x)) + self.fc(self.other(x))


class Shared(Block):
    """Two layers hold the same weight."""

    def build(self) -> None:
        self.other, self.fc, self.twin = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.twin.weight = self.fc.weight

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc(self.norm(x)) + self.twin(self.other(x))


class Curved(Block):
    """A GELU knows the scale of what it is given."""

    def build(self) -> None:
        self.fc1, self.fc2 = nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc2(F.gelu(self.fc1(F.gelu(self.norm(x)))))


class Over(Block):
    """The layer behind the norm mixes tokens, not channels."""

    def build(self) -> None:
        self.mix = nn.Linear(TOKENS, TOKENS)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mix(self.norm(x).transpose(1, 2)).transpose(1, 2)


class Bare(Packed):
    """Without biases there is nothing to take an offset from."""

    def build(self) -> None:
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)


#: With the producers of their seams.
WITH = {
    Packed: ("norm", "qkv"),
    Separate: ("norm", "v"),
    Windows: ("norm", "qkv"),
    Gated: ("norm", "up"),
    Averaged: ("norm",),
    Rectified: ("fc1",),
    Bare: ("norm", "qkv"),
}
WITHOUT = (Residual, Tied, Shared, Curved, Over)


def network(kind: type[Block]) -> Network:
    how = Preprocessing(Size(32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Network(kind(), how, task="classify", output_name="logits", meaning="logits", size_step=8)
