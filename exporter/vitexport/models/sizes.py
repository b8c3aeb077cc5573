"""Which image sizes a patch grid allows."""

from __future__ import annotations

from itertools import product

from vitexport.contract import ExportRequest, Size
from vitexport.errors import BadRequest


def settle(request: ExportRequest, size: Size, step: int, what: str) -> tuple[Size, tuple[str, ...]]:
    """The size to export, and what to tell the user: ``size`` itself, or with ``--pad-size`` the next one on the grid.

    Raises ``BadRequest`` with the nearest sizes where it is not a multiple of ``step``, the model's ``what``.
    """
    if not request.pad_size:
        check_multiple(size, step, request.model, what)
        return size, ()
    padded = Size(_up(size.height, step), _up(size.width, step))
    if padded == size:
        return size, ()
    return padded, (
        f"Image size {_short(size)} is not a multiple of {request.model}'s {what} {step}: padded to {_short(padded)}.",
    )


def check_multiple(size: Size, step: int, model: str, what: str) -> None:
    """Raise ``BadRequest`` with the nearest sizes unless both sides are multiples of ``step``, ``model``'s ``what``."""
    if size.height % step or size.width % step:
        raise BadRequest(
            f"Image size {_short(size)} is not a multiple of {model}'s {what} {step}. "
            f"Try {' or '.join(_short(near) for near in _nearest(size, step))}."
        )


def _nearest(size: Size, step: int) -> list[Size]:
    """The two sizes on the grid that are nearest to ``size``, the smaller first; squares for a square."""
    heights, widths = ({_down(side, step), _up(side, step)} - {0} for side in (size.height, size.width))
    squares = [Size(side, side) for side in heights]
    near = squares if size.height == size.width else [Size(*sides) for sides in product(heights, widths)]
    near.sort(key=lambda other: (abs(other.height - size.height) + abs(other.width - size.width), other))
    return sorted(near[:2])


def _down(side: int, step: int) -> int:
    return side // step * step


def _up(side: int, step: int) -> int:
    return -(-side // step) * step


def _short(size: Size) -> str:
    return str(size.height) if size.height == size.width else str(size)
