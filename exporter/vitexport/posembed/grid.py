"""Patch grids, and which grid a table of n tokens was learned on."""

from __future__ import annotations

import math

from vitexport.errors import BadRequest

#: Rows and columns of patches (or of a window's positions), in this order.
Grid = tuple[int, int]


def source_grid(tokens: int, kept: int, declared: Grid | None, what: str, declare: str) -> Grid:
    """The grid behind a table of ``tokens`` positions, ``kept`` of which (class token and the like) are not on it.

    A ``declared`` grid is checked against the count. Without one only a square can be told from its count; ``declare``
    says where to declare the rest, ``what`` names the table. Raises ``BadRequest``: a guess of ``int(sqrt(n))`` would
    shear the table and still run.
    """
    patches = tokens - kept
    if declared is not None:
        if declared[0] * declared[1] != patches:
            raise BadRequest(
                f"{what} holds {patches} patch positions, and not the {declared[0] * declared[1]} of the declared grid "
                f"{_spelt(declared)}. {declare}"
            )
        return declared
    side = math.isqrt(max(patches, 0))
    if patches <= 0 or side * side != patches:
        raise BadRequest(
            f"{what} holds {patches} patch positions, which is no square, and nothing says which grid it is. {declare}"
        )
    return side, side


def _spelt(grid: Grid) -> str:
    return f"{grid[0]}x{grid[1]}"
