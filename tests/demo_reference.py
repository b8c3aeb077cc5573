"""The demo's pipeline in numpy, in float64: the formulas of the shaders in ``web-demo/src/engine/wgsl``, written anew.

Arrays are (height, width, ...), colours 0..1. ``rgbp``: red, green, blue and the person's probability.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from vitexport import preprocess
from vitexport.contract import Preprocessing, Size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bytes = NDArray[np.uint8]

QUIET, MOVED, SLACK = (0.012, 0.03), (0.02, 0.06), 0.05
RADIUS, EPSILON, RESIDUAL = 2, 1e-4, 1e-3
FAINT, WRAP = 0.001, (0.25, 0.75)
SHRUNK_SIDE, WIDEST, REACH = 180, 0.05, 3
TIME_CONSTANT_MS = 150


def now(image: Bytes, how: Preprocessing, output: Floats, person: int | None) -> Floats:
    """``output`` (classes, h, w): logits, of which ``person`` is one; None: the probability itself. -> (h, w, 4)."""
    if person is None:
        probability = output[0].clip(0, 1)
    else:
        powers = np.exp(output - output.max(0))
        probability = powers[person] / powers.sum(0)
    height, width = probability.shape
    pixels = preprocess.fit(image, how).astype(np.float64) / 255
    rows, columns = (
        [(i * full // size, -(-(i + 1) * full // size)) for i in range(size)]
        for full, size in ((pixels.shape[0], height), (pixels.shape[1], width))
    )
    colours = np.array(
        [[pixels[top:bottom, left:right].mean((0, 1)) for left, right in columns] for top, bottom in rows]
    )
    return np.dstack([colours, probability])


def temporal(rgbp: Floats, before: Floats, keep: float) -> Floats:
    counts = ndimage.uniform_filter(np.ones(rgbp.shape[:2]), 3, mode="constant")
    change = np.abs(rgbp[..., :3] - before[..., :3]).mean(2)
    difference = ndimage.uniform_filter(change, 3, mode="constant") / counts
    low = ndimage.minimum_filter(rgbp[..., 3], 3, mode="nearest")
    high = ndimage.maximum_filter(rgbp[..., 3], 3, mode="nearest")
    slack = 1 + (SLACK - 1) * smoothstep(*QUIET, difference)
    remembered = before[..., 3].clip(low - slack, high + slack)
    kept = keep * (1 - smoothstep(*MOVED, difference))
    return np.dstack([rgbp[..., :3], rgbp[..., 3] * (1 - kept) + remembered * kept])


def keep(strength: float, since_ms: float) -> float:
    return float(np.exp(-since_ms / (strength * TIME_CONSTANT_MS)))


def planes(rgbp: Floats, guidance: float) -> Floats:
    """The weighted mean of the guided filter's planes around each pixel, (h, w, 4): a, b."""
    colours, p = rgbp[..., :3], rgbp[..., 3]
    mean, mean_p = _window(colours), _window(p)
    covariance = _window(colours * p[..., None]) - mean * mean_p[..., None]
    products = colours[..., :, None] * colours[..., None, :]
    matrix = _window(products) - mean[..., :, None] * mean[..., None, :] + EPSILON * np.eye(3)
    a = np.linalg.solve(matrix, covariance[..., None])[..., 0]
    b = mean_p - (a * mean).sum(-1)
    unexplained = _window(p * p) - mean_p**2 - (a * covariance).sum(-1)
    weight = (1 / (unexplained.clip(0) + RESIDUAL))[..., None]
    guided = _window(np.dstack([a, b]) * weight) / _window(weight)
    plain = np.dstack([np.zeros_like(colours), p])
    return plain * (1 - guidance) + guided * guidance


def matte(image: Bytes, coefficients: Floats, how: Preprocessing, softness: float) -> Floats:
    """(height, width): how much of each pixel is the person."""
    height, width = image.shape[:2]
    resized = preprocess.resized_size(Size(height, width), how)
    top, left = preprocess.crop_origin(resized, how)
    down, across = height / resized.height, width / resized.width
    rows = (np.arange(height) + 0.5 - top * down) / (how.size.height * down) * coefficients.shape[0] - 0.5
    columns = (np.arange(width) + 0.5 - left * across) / (how.size.width * across) * coefficients.shape[1] - 0.5
    at = np.array(np.meshgrid(rows, columns, indexing="ij"))
    sampled = [ndimage.map_coordinates(band, at, order=1, mode="nearest") for band in np.moveaxis(coefficients, -1, 0)]
    colours = image / 255
    value = sum(sampled[c] * colours[..., c] for c in range(3)) + sampled[3]
    return ((value - 0.5) / softness + 0.5).clip(0, 1)


def blurred(image: Bytes, alpha: Floats, strength: float) -> tuple[Floats, int]:
    """The background's light and how much of it there is, premultiplied, at reduced size: (h, w, 4); the factor."""
    height, width = alpha.shape
    factor = max(1, int(min(height, width) / SHRUNK_SIDE + 0.5))
    light = np.dstack([(image / 255) ** 2, np.ones_like(alpha)]) * (1 - alpha)[..., None]
    tops, lefts = range(0, height, factor), range(0, width, factor)
    small = np.array([[light[y : y + factor, x : x + factor].mean((0, 1)) for x in lefts] for y in tops])
    sigma = strength * WIDEST * min(height, width) / factor
    reach = int(np.ceil(REACH * sigma))
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * max(sigma, 1e-9) ** 2))
    weights /= weights.sum()
    across = ndimage.correlate1d(small, weights, axis=1, mode="nearest")
    return ndimage.correlate1d(across, weights, axis=0, mode="nearest"), factor


def composite(image: Bytes, alpha: Floats, around: Floats, factor: int, behind: Floats | None, wrap: float) -> Floats:
    """``behind``: a picture or a colour; None: the blurred background. 0..1."""
    height, width = alpha.shape
    rows, columns = ((np.arange(size) + 0.5) / factor - 0.5 for size in (height, width))
    at = np.array(np.meshgrid(rows, columns, indexing="ij"))
    near = np.dstack(
        [ndimage.map_coordinates(band, at, order=1, mode="nearest") for band in np.moveaxis(around, -1, 0)]
    )
    colours = image / 255
    if behind is None:
        behind = np.sqrt((near[..., :3] + FAINT * colours**2) / (near[..., 3:] + FAINT))
    light = behind * (wrap * smoothstep(*WRAP, near[..., 3]))[..., None]
    person = 1 - (1 - colours) * (1 - light)
    return behind * (1 - alpha[..., None]) + person * alpha[..., None]


def smoothstep(low: float, high: float, value: Floats) -> Floats:
    t = ((value - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def _window(values: Floats) -> Floats:
    """The mean over the window around each pixel, as much of it as lies in the picture."""
    size = (2 * RADIUS + 1, 2 * RADIUS + 1) + (1,) * (values.ndim - 2)
    counts = ndimage.uniform_filter(np.ones_like(values), size, mode="constant")
    return ndimage.uniform_filter(values, size, mode="constant") / counts
