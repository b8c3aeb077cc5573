"""Dimensions left open in a graph: in which steps, at which further sizes they are proven, and what closes them."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vitexport.contract import INPUT_NAME, Dynamic, Size

#: Hierarchical networks halve a picture five times; sizes in between would round differently at every stage.
STEP = 32


def step(size: Size, own: int | None) -> int:
    """Heights and widths are multiples of this: the network's own step, else the largest power of two up to 32 that
    divides ``size``."""
    return own or math.gcd(STEP, size.height, size.width)


def further_sizes(size: Size, every: int) -> tuple[Size, Size]:
    """Two sizes that ``size`` is not: one larger and of its shape if it is square, one of another shape."""
    rows, columns = size.height // every, size.width // every
    more = max(1, rows // 4)
    return Size((rows + more) * every, (columns + more) * every), Size((rows + 2 * more) * every, columns * every)


def shapes(dynamic: tuple[Dynamic, ...], every: int, rank: int) -> dict[str, Any] | None:
    """``dynamic_shapes`` of ``torch.export`` for an input of ``rank`` dimensions; None where all is fixed."""
    import torch

    axes: dict[int, Any] = {}
    if "batch" in dynamic:
        axes[0] = torch.export.Dim("batch", min=1)
    if "size" in dynamic:
        rows, columns = (every * torch.export.Dim(name, min=1) for name in ("rows", "columns"))
        axes |= {rank - 2: rows, rank - 1: columns}
    return {INPUT_NAME: axes} if axes else None


@dataclass(frozen=True)
class Tie:
    """A line of a network's code that holds for one size only."""

    where: str
    code: str

    def __str__(self) -> str:
        return f"`{self.code}` ({self.where})"


@contextmanager
def watch_ties() -> Iterator[list[Tie]]:
    """Stop torch's trace at the first line that holds for one size of an open dimension only, and collect it.

    torch says in the end that a dimension became constant, never where; for a Swin the end takes ten minutes of algebra
    to reach. Its shape environment logs each guard at the moment it is made, and the stack at that moment knows.
    """
    ties: list[Tie] = []

    class Watch(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            said = record.getMessage()
            # A remainder that must be 0 only says that a size is a multiple of something: that is what steps are for.
            if said.startswith("eval Eq(") and "Mod(" not in said and (found := _innermost()):
                ties.extend(found)
                raise ValueError(f"tied by {found[0]}")
            return False

    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    watch, level = Watch(), logger.level
    logger.addFilter(watch)
    logger.setLevel(logging.INFO)
    try:
        yield ties
    finally:
        logger.removeFilter(watch)
        logger.setLevel(level)


def _innermost() -> list[Tie]:
    """The network's own line that is running: the nearest frame that is neither torch's nor logging's, if it lies
    within what is captured. torch makes guards of its own before it gets there."""
    foreign = ("/torch/", "/logging/", "/contextlib.py", "/vitexport/rewrites/", __file__)
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.endswith("/vitexport/capture.py"):
            return []
        if not any(part in frame.filename for part in foreign):
            return [Tie(f"{'/'.join(frame.filename.split('/')[-3:])}:{frame.lineno}", frame.line or frame.name)]
    return []
