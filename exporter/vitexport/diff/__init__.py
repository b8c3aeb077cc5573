"""``vitexport diff``: where an artifact goes wrong, block by block, beside the PyTorch model that it was made of.

PyTorch's blocks -> the artifact's values that are theirs -> both on the golden photos -> the first whose SNR falls
"""

from __future__ import annotations

from vitexport.diff.cells import cells
from vitexport.diff.drawing import draw, keep, place
from vitexport.diff.exported import Exported, read
from vitexport.diff.trace import Trace

__all__ = ["Exported", "Trace", "diff", "draw", "keep", "place", "read"]


def diff(found: Exported, precision: str | None = None, provider: str | None = None) -> tuple[Trace, ...]:
    """A trace of each variant in each runtime that shows what it computes, or of those that are asked for.

    Raises ``BadRequest``: nothing of that name is there, or not the PyTorch model to compare it with.
    """
    asked = cells(found.bundles, precision, provider)  # before torch is imported: a wrong word should not cost seconds
    from vitexport.diff.walk import Walk

    exams = tuple(found.capture().values())
    walks = {id(bundle): Walk(bundle, found.request, exams) for bundle in found.bundles}
    return tuple(walks[id(cell.bundle)].trace(cell) for cell in asked)
