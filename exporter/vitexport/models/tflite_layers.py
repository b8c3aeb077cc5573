"""The layers that TensorFlow Lite has and ``torch.nn`` has not. Rank-4 values are NCHW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Mean(nn.Module):  # type: ignore[misc]  # torch is Any to mypy here
    """The average over some axes."""

    def __init__(self, axes: tuple[int, ...], keep: bool) -> None:
        super().__init__()
        self.axes, self.keep = axes, keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(self.axes, keepdim=self.keep)


class Binary(nn.Module):  # type: ignore[misc]  # torch is Any to mypy here
    """A commutative operation on two values, or on one and a constant."""

    def __init__(self, operation: Callable[[Any, Any], Any], constant: torch.Tensor | None) -> None:
        super().__init__()
        self.operation = operation
        self.register_buffer("constant", constant)

    def forward(self, a: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
        return self.operation(a, self.constant if b is None else b)


class Concat(nn.Module):  # type: ignore[misc]  # torch is Any to mypy here
    """Any number of values, joined along one axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return torch.cat(values, self.axis)


class Reshape(nn.Module):  # type: ignore[misc]  # torch is Any to mypy here
    """To ``shape`` behind the batch, values in NHWC order as TensorFlow lays them out."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.permute(0, 2, 3, 1) if x.ndim == 4 else x
        made = flat.reshape(-1, *self.shape)
        return made.permute(0, 3, 1, 2) if made.ndim == 4 else made
