"""Tables over clips: one learned vector per tubelet, in the order time, row, column."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vitexport.posembed.grid import Grid

if TYPE_CHECKING:
    import torch

    Resample = Callable[[torch.Tensor, Grid, Grid, int], torch.Tensor]

#: Steps, rows, columns.
Volume = tuple[int, int, int]


def to_volume(
    table: torch.Tensor, source: Volume, target: Volume, kept: int, space: Resample, time: Resample
) -> torch.Tensor:
    """Resample (1, kept + source, dim) to (1, kept + target, dim): every step by ``space``, then every place by
    ``time``, which takes a grid of one column. The first ``kept`` vectors stay as they are."""
    import torch

    if source == target:
        return table
    steps = table[0, kept:].unflatten(0, (source[0], -1))
    steps = space(steps, source[1:], target[1:], 0)
    places = time(steps.transpose(0, 1), (source[0], 1), (target[0], 1), 0)
    return torch.cat([table[:, :kept], places.transpose(0, 1).flatten(0, 1)[None]], dim=1)
