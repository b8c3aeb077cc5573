"""Absolute tables: one learned vector per patch of the training grid, after the tokens that have no place on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from vitexport.posembed.grid import Grid

if TYPE_CHECKING:
    import torch


def to_size(
    table: torch.Tensor,
    source: Grid,
    target: Grid,
    kept: int,
    *,
    mode: Literal["bicubic", "bilinear", "nearest"],
    antialias: bool = False,
) -> torch.Tensor:
    """Resample (N, kept + source, dim) to (N, kept + target, dim), the first ``kept`` untouched.

    Half-pixel centres; ``nearest`` takes the entry at floor(i * source / target), as torch has it.
    """
    import torch.nn.functional as F

    corners = None if mode == "nearest" else False

    return _on_grid(
        table,
        source,
        target,
        kept,
        lambda image: F.interpolate(image, size=target, mode=mode, align_corners=corners, antialias=antialias),
    )


def by_offset_scale(table: torch.Tensor, source: Grid, target: Grid, kept: int, *, offset: float) -> torch.Tensor:
    """DINOv2 as published: bicubic by the scale factor ``(target + offset) / source``, as :func:`to_size` otherwise.

    torch samples at the *given* factor, so the offset also shifts every sample a little: this is not :func:`to_size`.
    Its authors added it because without it ``floor(source * (target / source))`` loses a row at some sizes (546, 602,
    1092, 1204 px for 518/14; https://github.com/facebookresearch/dinov2/issues/378).
    """
    import torch.nn.functional as F

    factors = tuple((new + offset) / old for new, old in zip(target, source, strict=True))
    return _on_grid(
        table,
        source,
        target,
        kept,
        lambda image: F.interpolate(image, scale_factor=factors, mode="bicubic", align_corners=False),
    )


def _on_grid(
    table: torch.Tensor, source: Grid, target: Grid, kept: int, resize: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    import torch

    if source == target:
        return table
    image = table[:, kept:].float().unflatten(1, source).permute(0, 3, 1, 2)
    resized = resize(image)
    assert tuple(resized.shape[2:]) == target, (resized.shape, target)
    patches = resized.flatten(2).transpose(1, 2).to(table.dtype)
    return torch.cat([table[:, :kept], patches], dim=1)
