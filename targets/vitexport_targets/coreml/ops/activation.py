"""Activations."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from vitexport_targets.coreml.ops.signature import Apply, Tensor


def relu(x: Tensor) -> Tensor:
    return F.relu(x)


def relu6(x: Tensor) -> Tensor:
    return F.relu6(x)


def sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


def silu(x: Tensor) -> Tensor:
    return F.silu(x)


def softplus(x: Tensor) -> Tensor:
    return F.softplus(x, threshold=1e30)  # torch's shortcut above 20 is its own


def softsign(x: Tensor) -> Tensor:
    return F.softsign(x)


def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    return F.leaky_relu(x, alpha)


def elu(x: Tensor, alpha: float) -> Tensor:
    return F.elu(x, alpha)


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """``alpha`` is by channel, the second dimension."""
    return F.prelu(x, alpha)


def thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x >= alpha, x, torch.zeros_like(x))


def clamped_relu(x: Tensor, alpha: float, beta: float) -> Tensor:
    return F.leaky_relu(x, alpha).clamp(max=beta)


def linear_activation(x: Tensor, alpha: float, beta: float) -> Tensor:
    return x * alpha + beta


def scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * torch.tanh(x * beta)


def sigmoid_hard(x: Tensor, alpha: float, beta: float) -> Tensor:
    return (x * alpha + beta).clamp(0, 1)


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    match mode:
        case "EXACT":
            return F.gelu(x)
        case "TANH_APPROXIMATION":
            return F.gelu(x, approximate="tanh")
        case "SIGMOID_APPROXIMATION":
            return x * torch.sigmoid(1.702 * x)
        case _:
            raise NotImplementedError(f"mode '{mode}'")


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


OPS: Mapping[str, Apply] = {
    "clamped_relu": clamped_relu,
    "elu": elu,
    "gelu": gelu,
    "leaky_relu": leaky_relu,
    "linear_activation": linear_activation,
    "prelu": prelu,
    "relu": relu,
    "relu6": relu6,
    "scaled_tanh": scaled_tanh,
    "sigmoid": sigmoid,
    "sigmoid_hard": sigmoid_hard,
    "silu": silu,
    "softmax": softmax,
    "softplus": softplus,
    "softsign": softsign,
    "thresholded_relu": thresholded_relu,
}
