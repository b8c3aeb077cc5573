"""Pictures of the one person that scikit-image's wheel has a photo of, before other photos: an exam for person masks.

The person is cut out along the mask that the float network itself answers, shown whole or in part, larger or smaller,
mirrored or not, before a photo that is likewise another part at each time. What a network in fewer bits is held to is
what the float network makes of the very same picture, so that the cut need not be perfect.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage
from scipy import ndimage

from vitexport import models, photos
from vitexport.capture import capture
from vitexport.contract import ExportRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]
    Mask = NDArray[np.bool_]

#: Height and width of a composite: of the photos themselves, and all networks downsize it.
SIDE = 384

#: Of the person's height in the picture, beside the picture's own.
SCALES = (0.5, 1.1)

#: Pixels within which a contour is still found, at the mask's size: DAVIS 2016 takes 0.8 % of the diagonal (Perazzi et
#: al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", section 5), 2.9 of 256x256.
CLOSE = 0.008


@cache
def person() -> NDArray[np.float32]:
    """(h, w, 4) float32, 0..1: red, green, blue, and how much of a pixel is hers."""
    probes = photos.probes(None)
    source = capture(models.build(ExportRequest(model="selfie")), "selfie", probes)
    from vitexport.preprocess import preprocess

    image = probes[0].image
    mask = source.forward(preprocess(image, source.preprocessing))["mask"][0, 0]
    size = (image.shape[1], image.shape[0])
    alpha = np.asarray(PILImage.fromarray(mask).resize(size, PILImage.Resampling.BILINEAR))
    return np.dstack([image.astype(np.float32) / 255, alpha.clip(0, 1)]).astype(np.float32)


def composites(count: int, seed: int) -> list[Picture]:
    """uint8 (SIDE, SIDE, 3) each; the same for the same seed."""
    return [picture for picture, _ in with_alpha(count, seed)]


def with_alpha(count: int, seed: int) -> list[tuple[Picture, NDArray[np.float32]]]:
    """As ``composites``, each with how much of every pixel is the person: float32 (SIDE, SIDE), 0..1."""
    random = np.random.default_rng(seed)
    behind = [probe.image for probe in photos.probes(None)[1:4]]
    return [_composite(random, behind[i % len(behind)]) for i in range(count)]


def _composite(random: np.random.Generator, photo: Picture) -> tuple[Picture, NDArray[np.float32]]:
    ground = _resized(_part(random, photo.astype(np.float32) / 255), (SIDE, SIDE))
    if random.random() < 0.5:
        ground = ground[:, ::-1]
    her = person() if random.random() < 0.5 else person()[:, ::-1]
    height = round(SIDE * random.uniform(*SCALES))
    her = _resized(her, (height, round(height * her.shape[1] / her.shape[0])))
    left = round(random.uniform(-0.25, 0.75) * (SIDE - her.shape[1] / 2))
    top = SIDE - height + round(max(0, height - SIDE) * random.random())  # as she sits before a camera
    layer = np.zeros((SIDE, SIDE, 4), np.float32)
    rows, columns = (slice(max(0, at), min(SIDE, at + size)) for at, size in ((top, height), (left, her.shape[1])))
    layer[rows, columns] = her[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    alpha = layer[..., 3:]
    picture = ((layer[..., :3] * alpha + ground * (1 - alpha)) * 255).round().astype(np.uint8)
    return picture, layer[..., 3]


def _part(random: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """A square of at least half of the shorter side."""
    side = round(min(image.shape[:2]) * random.uniform(0.5, 1))
    top, left = (int(random.integers(0, size - side + 1)) for size in image.shape[:2])
    return image[top : top + side, left : left + side]


def _resized(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    bands = [PILImage.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(image, -1, 0)]
    return np.dstack([np.asarray(band.resize(size[::-1], PILImage.Resampling.BILINEAR)) for band in bands])


def written(folder: Path, count: int, seed: int) -> Path:
    """As a folder of photos, for ``--calibration`` and ``--images``."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(composites(count, seed)):
        PILImage.fromarray(picture).save(folder / f"{i:03}.png")
    return folder


# ------------------------------------------------------------------------------------------------------ the measure


def boundary_f(mask: Mask, true: Mask) -> float:
    """F of precision and recall of the contour's pixels, within ``CLOSE`` of the diagonal. 1 where neither has any."""
    close = round(CLOSE * float(np.hypot(*true.shape)))
    disk = np.hypot(*np.mgrid[-close : close + 1, -close : close + 1]) <= close
    found, sought = (each & ~ndimage.binary_erosion(each, border_value=1) for each in (mask, true))
    if not found.any() and not sought.any():
        return 1.0
    near_found, near_sought = (ndimage.binary_dilation(each, disk) for each in (found, sought))
    precision = float((found & near_sought).sum() / max(1, found.sum()))
    recall = float((sought & near_found).sum() / max(1, sought.sum()))
    return 2 * precision * recall / max(precision + recall, 1e-12)
