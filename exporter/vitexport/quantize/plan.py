"""Which layers stay float in which precision: decided once by measurement, stored as JSON, used again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from vitexport.errors import BadRequest
from vitexport.manifest import Malformed, decode

if TYPE_CHECKING:
    from vitexport.contract import SourceModel
    from vitexport.quantize.layers import Layer

#: Beside the report.
PLAN_NAME = "plan.json"

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


@dataclass(frozen=True)
class Cell:
    """One target in one precision, and what the file was measured to be worth."""

    target: str
    precision: str
    keep_float: tuple[str, ...] = ()
    """Layers by name, the most sensitive for their size first."""
    agreement: Share | None = None
    """With PyTorch's float32, on the calibration pictures: top-1, or IoU. None: of features there is none."""
    snr_db: float | None = None
    """The least over the pictures."""
    total_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    images: Annotated[int, msgspec.Meta(ge=0)] = 0
    measured_on: str = ""
    reached: bool | None = True
    """Whether it meets the goal. None: its runtime is not there, and nobody knows."""


@dataclass(frozen=True)
class Plan:
    schema_version: Literal[1]
    model: str
    max_drop: float | None
    """In points of agreement; None: each kind of network's own."""
    cells: tuple[Cell, ...]

    def cell(self, target: str, precision: str) -> Cell | None:
        return next((c for c in self.cells if (c.target, c.precision) == (target, precision)), None)


def read(path: str) -> Plan:
    """Raises ``BadRequest`` where there is none."""
    try:
        return decode(Path(path).read_bytes(), Plan)
    except OSError as error:
        raise BadRequest(f"--plan '{path}' cannot be read ({error.strerror}). Name a {PLAN_NAME}.") from None
    except Malformed as error:
        raise BadRequest(
            f"--plan '{path}' is no plan of vitexport's ({error}). Make one by an export without --plan."
        ) from None


def spared(source: SourceModel, cell: Cell, known: Sequence[Layer]) -> SourceModel:
    """``source`` with the cell's layers marked as to be left float. ``known``: all that it has.

    Raises ``BadRequest`` where one of them is not there.
    """
    by_name = {layer.name: layer for layer in known}
    for name in cell.keep_float:
        if name not in by_name:
            raise BadRequest(
                f"The plan keeps '{name}' float, and {source.name} has no such layer. Make a plan of this model, by an "
                "export without --plan."
            )
    kept = frozenset(by_name[name].fingerprint for name in cell.keep_float)
    return replace(source, keep_float={**source.keep_float, cell.precision: kept})
