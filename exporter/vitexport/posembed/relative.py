"""Relative bias tables: one learned number per head and offset between two positions of a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vitexport.posembed.grid import Grid

if TYPE_CHECKING:
    import torch


def to_window(
    table: torch.Tensor,
    source: Grid,
    target: Grid,
    kept: int,
    *,
    mode: Literal["bicubic", "bilinear"],
    antialias: bool,
) -> torch.Tensor:
    """Resample per head: the outermost offsets of the ``source`` window become those of the ``target`` window.

    (offsets + kept, heads), the last ``kept`` rows untouched, or (heads, 2 rows - 1, 2 columns - 1).
    """
    import torch
    import torch.nn.functional as F

    if source == target:
        return table
    size = offsets(target)
    if table.ndim == 3:
        resized = F.interpolate(table[None].float(), size=size, mode=mode, align_corners=False, antialias=antialias)
        return resized[0].to(table.dtype)
    on_grid, rest = table[: len(table) - kept], table[len(table) - kept :]
    image = on_grid.float().T.unflatten(1, offsets(source))[None]
    resized = F.interpolate(image, size=size, mode=mode, align_corners=False, antialias=antialias)
    return torch.cat([resized[0].flatten(1).T.to(table.dtype), rest])


def by_geometric_grid(table: torch.Tensor, source: Grid, target: Grid, kept: int) -> torch.Tensor:
    """BEiT's rule, by timm's own function: near offsets keep their distance, far ones are stretched.

    Shapes as in :func:`to_window`.
    """
    from timm.layers import resize_rel_pos_bias_table

    if source == target:
        return table
    rows, columns = offsets(target)
    shape = (len(table), rows, columns) if table.ndim == 3 else (rows * columns + kept, table.shape[1])
    resized: torch.Tensor = resize_rel_pos_bias_table(table, target, shape, source)
    return resized.to(table.dtype)


def offsets(window: Grid) -> Grid:
    """The grid of offsets between two positions of a window: -(n - 1) to n - 1 each way."""
    return 2 * window[0] - 1, 2 * window[1] - 1
