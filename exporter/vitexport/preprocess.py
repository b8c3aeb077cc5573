"""From a photo to a network's input: the reference that every other runtime's preprocessing is held to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage

from vitexport.contract import Preprocessing, Size
from vitexport.errors import BadRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A photo's pixels are whole numbers; what is further from one was never a photo.
_WHOLE = 0.01

_FILTERS = {
    "nearest": PILImage.Resampling.NEAREST,
    "bilinear": PILImage.Resampling.BILINEAR,
    "bicubic": PILImage.Resampling.BICUBIC,
    "lanczos": PILImage.Resampling.LANCZOS,
}


def resized_size(photo: Size, how: Preprocessing) -> Size:
    """The size a photo is resized to before the crop.

    ``crop`` keeps the aspect ratio: the side that is relatively shorter gets its target length, and the other is
    truncated to an integer where the target is square, as torchvision's and transformers' shortest-edge resize do, and
    rounded where it is not, as timm's ``ResizeKeepRatio`` does.
    """
    cover = how.resize or how.size
    if how.fit == "squash":
        return cover
    whole = int if cover.height == cover.width else round
    if cover.height * photo.width >= cover.width * photo.height:
        return Size(cover.height, max(cover.width, whole(cover.height * photo.width / photo.height)))
    return Size(max(cover.height, whole(cover.width * photo.height / photo.width)), cover.width)


def crop_origin(resized: Size, how: Preprocessing) -> tuple[int, int]:
    """(top, left) of the centre crop."""
    margins = (resized.height - how.size.height, resized.width - how.size.width)
    if how.crop_rounding == "floor":
        return margins[0] // 2, margins[1] // 2
    return round(margins[0] / 2.0), round(margins[1] / 2.0)


def fit(image: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.uint8]:
    """Resize and crop: (h, w, 3) uint8 -> (size.height, size.width, 3) uint8."""
    photo = Size(image.shape[0], image.shape[1])
    resized = resized_size(photo, how)
    picture = PILImage.fromarray(image)
    if resized != photo:
        # Rows first, then columns, as every Pillow before 13 did in one call: 13 picks the order by cost, which moves
        # cubic values by up to 18 of 255 between versions (https://github.com/python-pillow/Pillow/pull/9549).
        kernel = _FILTERS[how.interpolation]
        picture = picture.resize((resized.width, photo.height), kernel)
        picture = picture.resize((resized.width, resized.height), kernel)
    top, left = crop_origin(resized, how)
    return np.asarray(picture)[top : top + how.size.height, left : left + how.size.width]


def preprocess(image: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.float32]:
    """(h, w, 3) RGB uint8 -> (1, 3, H, W) float32, normalised; frames (T, h, w, 3) -> (1, ...) in the clip's layout."""
    if how.clip is None:
        return np.ascontiguousarray(_normalised(image, how)[None])
    frames = [_normalised(frame, how) for frame in image]
    return np.stack(frames, axis=0 if how.clip.layout == "TCHW" else 1)[None]


def _normalised(image: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.float32]:
    """(3, H, W)."""
    unit = fit(image, how).astype(np.float32) / np.float32(255)
    mean, std = np.array(how.mean, dtype=np.float32), np.array(how.std, dtype=np.float32)
    normalised: NDArray[np.float32] = (unit - mean) / std
    return normalised.transpose(2, 0, 1)


def pixels(pixel_values: NDArray[np.float32], how: Preprocessing) -> NDArray[np.uint8]:
    """(1, 3, H, W) float32, as :func:`preprocess` made it -> the uint8 (H, W, 3) it came from.

    Raises ``BadRequest`` where it did not come from one.
    """
    mean, std = (np.array(each, np.float64).reshape(3, 1, 1) for each in (how.mean, how.std))
    restored = (pixel_values[0].astype(np.float64) * std + mean) * 255
    whole = np.rint(restored)
    if pixel_values.shape[0] != 1 or whole.min() < 0 or whole.max() > 255 or np.abs(restored - whole).max() > _WHOLE:
        raise BadRequest("This artifact takes a picture; what it was given is no normalised uint8 picture.")
    picture: NDArray[np.uint8] = whole.astype(np.uint8).transpose(1, 2, 0)
    return picture
