"""``digits_vit_tiny`` with channels that stand out as a large trained ViT's do, and the float answers of before.

Six channels of every block's LayerNorms, and six of the values that attention averages, are multiplied by a factor and
the columns that read them divided by it: PyTorch reads the exam as it did, and a tensor with one step for all channels
has few levels left for the rest.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vitexport import ExportRequest, Network, models
from vitexport.digits import pictures

#: Channels of each layer.
CHANNELS = 6


def planted(factor: float) -> Network:
    network = models.build(ExportRequest(model="digits_vit_tiny"))
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for block in network.module.blocks:
            width = len(block.norm1.weight)
            magnify(block.norm1, block.attn.qkv, some(width, rng), factor)
            magnify(block.norm2, block.mlp.fc1, some(width, rng), factor)
            values = some(width, rng)
            magnify(block.attn.qkv, block.attn.proj, values, factor, first=2 * width)
    return replace(network, origin="tests/outliers.py")


def some(width: int, rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.choice(width, CHANNELS, replace=False))


def magnify(producer: Any, reader: Any, channels: torch.Tensor, factor: float, first: int = 0) -> None:
    producer.weight[first + channels] *= factor
    producer.bias[first + channels] *= factor
    reader.weight[:, channels] /= factor


by_60 = partial(planted, 60.0)
by_200 = partial(planted, 200.0)


def photos(folder: Path, count: int) -> Path:
    """Pictures of digits to calibrate on: other copies than the exam's, drawn with another seed."""
    folder.mkdir()
    for index, image in enumerate(pictures.held_out(count, seed=1)[0]):
        Image.fromarray(image).save(folder / f"{index:03}.png")
    return folder
