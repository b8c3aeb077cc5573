"""Pictures of digits: 8x8 originals of scikit-learn, drawn large, each a little different.

The held-out originals travel with the package as a picture (``held_out.png``: row = digit), so that the exam needs no
scikit-learn. They are of the UCI set "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, 1998,
https://doi.org/10.24432/C50P49), CC BY 4.0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

HELD_OUT = Path(__file__).with_name("held_out.png")

#: Pixels of a drawn picture, the size that the network is trained at.
SIDE = 96

#: Cells of an original, and of the canvas that it is drawn on: a margin of two on each side.
_ORIGINAL = 8
_CANVAS = 12

#: Originals of each digit that are held out: a fifth of its 174 to 183.
PER_DIGIT = 36

#: The originals count ink in 17 steps; 15 spreads them over a byte.
_GRAY_STEP = 15


@dataclass(frozen=True)
class Variety:
    """How far a drawn copy may be from its original. Drawn evenly from each range; factors by their logarithm."""

    shift: float
    """Fraction of the side, up and down, left and right."""
    rotation_deg: float
    scale: tuple[float, float]
    stretch: float
    """Largest ratio of width to height, or of height to width."""
    contrast: tuple[float, float]
    noise: float
    """Largest standard deviation of Gaussian noise, of a range of 0..1."""

    def towards(self, other: Variety, share: float) -> Variety:
        """``self`` at a share of 0, ``other`` at 1."""

        def mix(own: float, others: float) -> float:
            return own + share * (others - own)

        return Variety(
            shift=mix(self.shift, other.shift),
            rotation_deg=mix(self.rotation_deg, other.rotation_deg),
            scale=(mix(self.scale[0], other.scale[0]), mix(self.scale[1], other.scale[1])),
            stretch=mix(self.stretch, other.stretch),
            contrast=(mix(self.contrast[0], other.contrast[0]), mix(self.contrast[1], other.contrast[1])),
            noise=mix(self.noise, other.noise),
        )


#: What the exam is made of: as a person would hold the pen a little differently.
MILD = Variety(shift=0.05, rotation_deg=10, scale=(0.9, 1.1), stretch=1.08, contrast=(0.6, 1.0), noise=0.06)

#: What the network is trained on. A patch of 16 pixels sees at 64 px what it sees at 96 px of a digit drawn 1.5 times
#: smaller, and at 144 px of one drawn 1.5 times larger: the scale covers both. The stretch covers 96x128.
WIDE = Variety(shift=0.06, rotation_deg=12, scale=(0.65, 1.55), stretch=1.35, contrast=(0.5, 1.0), noise=0.08)


def held_out(count: int = 2000, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The exam: ``count`` mildly varied copies of the 360 held-out originals, in turn, and their digits.

    uint8 (count, 96, 96, 3), RGB, NHWC; int64 (count,), 0..9. The same ``count`` and ``seed`` give the same pictures.
    """
    sheet = np.asarray(Image.open(HELD_OUT))
    originals = sheet.reshape(10, _ORIGINAL, PER_DIGIT, _ORIGINAL).swapaxes(1, 2)  # digit, which, row, column
    turn = np.arange(count)
    digits = turn % 10
    rng = np.random.default_rng(seed)
    copies = [
        draw(originals[digit, index // 10 % PER_DIGIT], MILD, rng) for index, digit in zip(turn, digits, strict=True)
    ]
    return np.stack(copies), digits


def draw(original: NDArray[np.uint8], variety: Variety, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A copy of ``original``, (8, 8) uint8, as a picture: (96, 96, 3) uint8, white on black."""
    margin = (_CANVAS - _ORIGINAL) // 2
    canvas = Image.fromarray(np.pad(original, margin))
    picture = canvas.transform((SIDE, SIDE), Image.Transform.AFFINE, _pose(variety, rng), Image.Resampling.BICUBIC)
    contrast = rng.uniform(*variety.contrast)
    noise = rng.normal(0, rng.uniform(0, variety.noise) * 255, (SIDE, SIDE))
    gray = np.clip(np.asarray(picture) * contrast + noise, 0, 255).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)


def _pose(variety: Variety, rng: np.random.Generator) -> tuple[float, ...]:
    """Pillow's affine coefficients, which lead from a pixel of the picture back to a cell of the canvas."""
    scale = math.exp(rng.uniform(math.log(variety.scale[0]), math.log(variety.scale[1])))
    stretch = math.exp(rng.uniform(-0.5, 0.5) * math.log(variety.stretch))
    angle = math.radians(rng.uniform(-variety.rotation_deg, variety.rotation_deg))
    right, down = rng.uniform(-variety.shift, variety.shift, 2) * SIDE
    cells_per_pixel = _CANVAS / SIDE / scale
    along, across = cells_per_pixel / stretch, cells_per_pixel * stretch
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = SIDE / 2 + right, SIDE / 2 + down  # where the digit's middle comes to lie
    middle = _CANVAS / 2
    return (
        cos * along, sin * along, middle - (cos * x + sin * y) * along,
        -sin * across, cos * across, middle - (cos * y - sin * x) * across,
    )  # fmt: skip


def split(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8]]:
    """scikit-learn's 1,797 originals: 1,437 to train on with their digits, and the held-out ones as a sheet.

    The originals are split before any copy is drawn, so that no copy of a held-out one is ever trained on.
    uint8 (1437, 8, 8), int64 (1437,), uint8 (80, 288).
    """
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    found = load_digits()
    originals = (found.images * _GRAY_STEP).astype(np.uint8)
    digits = found.target.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(digits))
    chosen = np.stack([order[digits[order] == digit][:PER_DIGIT] for digit in range(10)])
    rest = np.setdiff1d(order, chosen)
    sheet = originals[chosen].swapaxes(1, 2).reshape(10 * _ORIGINAL, PER_DIGIT * _ORIGINAL)
    return originals[rest], digits[rest], sheet
