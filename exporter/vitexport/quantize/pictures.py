"""A user's own pictures to measure activations on, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitexport import photos
from vitexport.contract import Probe, SourceModel
from vitexport.errors import BadRequest
from vitexport.quantize.calibration import PICTURES

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Levels of 255 by which a picture of one colour may vary all the same: JPEG rounds twice.
FLAT = 3

#: Names in one note; a folder of a thousand broken files is told by its first.
_NAMED = 5


@dataclass(frozen=True, eq=False)
class Gathered:
    photos: tuple[Probe, ...] = ()
    notes: tuple[str, ...] = ()
    """What the user should know of them."""


def files(folder: str) -> list[Path]:
    """Raises ``BadRequest`` where ``--calibration`` names no folder, or one without images."""
    otherwise = f"Put {PICTURES} photos or more there, or leave the option out to use those that parity is judged on"
    return photos.images_in(Path(folder), "--calibration", otherwise)


def gather(folder: str | None) -> Gathered:
    """Every image of a folder that can be read; none without a folder. Raises ``BadRequest`` where none can."""
    if folder is None:
        return Gathered()
    found, broken = [], []
    for path in files(folder):
        try:
            found.append(Probe(path.name, "photo", photos.read(path)))
        except BadRequest as error:
            broken.append(str(error))
    if not found:
        raise BadRequest(f"--calibration '{folder}' holds no image that can be read. {broken[0]}")
    notes = [f"Calibration skipped an image: {why}" for why in broken[:_NAMED]]
    if len(broken) > _NAMED:
        notes.append(f"Calibration skipped {len(broken) - _NAMED} images more that cannot be read.")
    return Gathered(tuple(found), (*notes, *_remarks(found)))


def joined(source: SourceModel, gathered: Gathered) -> SourceModel:
    """``source`` with pictures of the user's to measure on, and what is to be said of them."""
    shown = photos.as_inputs(gathered.photos, source.preprocessing)
    return replace(source, calibration=shown, notes=(*source.notes, *gathered.notes))


def _remarks(found: Sequence[Probe]) -> list[str]:
    notes = []
    if len(found) < PICTURES:
        notes.append(
            f"{len(found)} calibration image{'s' if len(found) > 1 else ''}: crops and mirror images fill up to "
            f"{PICTURES}, which show less than as many photos do. Give {PICTURES} or more."
        )
    empty = [probe.name for probe in found if _shows_nothing(probe.image)]
    if len(empty) == len(found):
        notes.append(
            "All calibration images are of one colour: ranges that are measured on them are not those of photos, and "
            "answers may be poor. Give pictures such as the network will see."
        )
    elif empty:
        more = f" and {len(empty) - _NAMED} more" if len(empty) > _NAMED else ""
        notes.append(f"Of one colour, so that calibration learns nothing from it: {', '.join(empty[:_NAMED])}{more}.")
    return notes


def _shows_nothing(image: NDArray[np.uint8]) -> bool:
    return bool(np.ptp(image, axis=(-3, -2)).max() <= FLAT)
