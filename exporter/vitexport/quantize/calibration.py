"""The pictures that ranges of activations are measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from vitexport.preprocess import preprocess

if TYPE_CHECKING:
    from vitexport.contract import Preprocessing, Probe, SourceModel, Tensor

#: Ranges of activations settle with some dozens of pictures.
PICTURES = 32

#: Of a photo's sides, what a crop keeps: small enough to be another picture, large enough to show what the photo shows.
CROP = 0.75

#: How far down and across the room that a crop leaves it lies: 0 is the first row or column, 1 the last.
_Corner = tuple[float, float]

_CORNERS: tuple[_Corner | None, ...] = (None, (0.5, 0.5), (0, 0), (1, 1), (0, 1), (1, 0))
_VIEWS = tuple((corner, mirrored) for corner in _CORNERS for mirrored in (False, True))


@dataclass(frozen=True, eq=False)
class Calibration:
    """Pictures as the network takes them, each (1, 3, H, W) float32, or a clip."""

    pictures: tuple[Tensor, ...]
    photos: int
    """How many photos they are views of."""

    @property
    def digest(self) -> str:
        """SHA-256 of all pictures, in order."""
        total = hashlib.sha256()
        for picture in self.pictures:
            total.update(np.ascontiguousarray(picture).tobytes())
        return total.hexdigest()

    def __str__(self) -> str:
        return f"{len(self.pictures)} views of {self.photos} photos, sha256 {self.digest}"


def of(source: SourceModel) -> Calibration:
    """What a source's activations are measured on, by every target alike: the user's pictures where there are any, else
    the photos that parity is judged on."""
    return calibration(source.calibration or source.probes, source.preprocessing)


def calibration(probes: Sequence[Probe], how: Preprocessing, least: int = PICTURES) -> Calibration:
    """Each photo whole, mirrored and cropped to its corners and its middle: view by view, so that every photo takes
    part however few pictures are wanted. All photos are taken whole even where they are more than ``least``."""
    photos = [probe.image for probe in probes if probe.kind == "photo"]
    pictures = (preprocess(_view(photo, *view), how) for view in _VIEWS for photo in photos)
    return Calibration(tuple(islice(pictures, max(least, len(photos)))), len(photos))


def _view(image: Tensor, corner: _Corner | None, mirrored: bool) -> Tensor:
    """Of (..., h, w, 3): whole where no corner is named."""
    if corner is not None:
        height, width = (max(1, round(side * CROP)) for side in image.shape[-3:-1])
        top, left = round((image.shape[-3] - height) * corner[0]), round((image.shape[-2] - width) * corner[1])
        image = image[..., top : top + height, left : left + width, :]
    return image[..., ::-1, :] if mirrored else image
