"""Normalisations."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from vitexport_targets.coreml.ops.signature import Apply, Ints, Tensor


def layer_norm(
    x: Tensor,
    axes: Ints | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Over any axes; ``gamma`` and ``beta`` have the shape of those."""
    over = sorted(a % x.ndim for a in (range(x.ndim) if axes is None else axes))
    centred = x - x.mean(over, keepdim=True)
    y = centred * torch.rsqrt(centred.square().mean(over, keepdim=True) + epsilon)
    shape = [n if i in over else 1 for i, n in enumerate(x.shape)]
    y = y if gamma is None else y * gamma.reshape(shape)
    return y if beta is None else y + beta.reshape(shape)


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, epsilon)


def instance_norm(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5) -> Tensor:
    return F.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


def l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Over the last three dimensions."""
    return x / torch.sqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)


OPS: Mapping[str, Apply] = {
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "l2_norm": l2_norm,
    "layer_norm": layer_norm,
}
