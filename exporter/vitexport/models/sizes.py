"""Which image sizes a patch grid allows."""

from __future__ import annotations

from vitexport.contract import Size
from vitexport.errors import BadRequest


def check_multiple(size: Size, step: int, model: str, what: str) -> None:
    """Raise ``BadRequest`` with the nearest sizes unless both sides are multiples of ``step``, ``model``'s ``what``."""
    if size.height % step or size.width % step:
        raise BadRequest(
            f"Image size {_short(size)} is not a multiple of {model}'s {what} {step}. "
            f"Try {' or '.join(_short(near) for near in _nearest(size, step))}."
        )


def _nearest(size: Size, step: int) -> list[Size]:
    """The sizes on the grid around ``size``: both sides down, both sides up."""
    down = Size(size.height // step * step, size.width // step * step)
    up = Size(-(-size.height // step) * step, -(-size.width // step) * step)
    return [near for near in (down, up) if near.height and near.width]


def _short(size: Size) -> str:
    return str(size.height) if size.height == size.width else str(size)
