"""The pictures that parity is judged on: four public-domain photos and one of noise, or a folder of the user's."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage
from PIL import ImageOps, UnidentifiedImageError

from vitexport.contract import Preprocessing, Probe
from vitexport.errors import BadRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Real photos in scikit-image's wheel, free of copyright: NASA's portrait of Eileen Collins (a person, first so that
#: person masks are not empty), a cat, a cup of coffee (both CC0), a rocket (NASA).
BUILT_IN = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")

#: The longer side of a probe. Large enough that every preset downsizes it, small enough to travel in a bundle.
LONGEST_SIDE = 400

#: Of the photo's sides, the window that a clip pans over it with: two frames share most of what they show, as frames of
#: a video do, and the first and the last do not.
PAN_WINDOW = 0.75

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def probes(images: str | None, seed: int = 0) -> tuple[Probe, ...]:
    """Photos, then one picture of uniform noise: edges and colours that no photo has."""
    photos = _built_in() if images is None else _folder(Path(images))
    noise = np.random.default_rng(seed).integers(0, 256, (256, 320, 3), dtype=np.uint8)
    return (*photos, Probe("noise", "noise", noise))


def as_inputs(found: tuple[Probe, ...], how: Preprocessing) -> tuple[Probe, ...]:
    """``found`` as the network takes them: pictures as they are, or a clip panned over each."""
    if how.clip is None:
        return found
    return tuple(Probe(probe.name, probe.kind, pan(probe.image, how.clip.frames)) for probe in found)


def pan(image: NDArray[np.uint8], frames: int) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 -> (frames, h', w', 3): a window that moves evenly from the top left to the bottom right."""
    height, width = (max(1, round(side * PAN_WINDOW)) for side in image.shape[:2])
    down, across = image.shape[0] - height, image.shape[1] - width
    way = [step / max(1, frames - 1) for step in range(frames)]
    corners = [(round(down * part), round(across * part)) for part in way]
    return np.stack([image[top : top + height, left : left + width] for top, left in corners])


def contact_sheet(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture as it is; of frames (T, h, w, 3) four, evenly spaced, two by two: (2 h, 2 w, 3)."""
    if image.ndim == 3:
        return image
    first, second, third, last = image[np.linspace(0, len(image) - 1, 4).round().astype(int)]
    return np.concatenate([np.concatenate(row, axis=1) for row in ((first, second), (third, last))])


def _built_in() -> tuple[Probe, ...]:
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "data"
    return tuple(Probe(Path(name).stem, "photo", read(folder / name)) for name in BUILT_IN)


def _folder(folder: Path) -> tuple[Probe, ...]:
    files = images_in(
        folder, "--images", "Put at least two photos there, or leave the option out to use the built-in ones"
    )
    if len(files) < 2:
        raise BadRequest(
            f"--images '{folder}' holds one image. Parity needs two that differ: "
            "a network that answers the same to everything would pass on one."
        )
    return tuple(Probe(f.stem, "photo", read(f)) for f in files)


def images_in(folder: Path, option: str, otherwise: str) -> list[Path]:
    """The image files of a folder that ``option`` named, by name. Raises ``BadRequest`` where there are none, which
    ends in ``otherwise``. Hidden ones are none: macOS puts a ``._photo.jpg`` beside each photo on a foreign disk."""
    if not folder.is_dir():
        raise BadRequest(f"{option} '{folder}' is not a folder. Name a folder that holds photos.")
    shown = (p for p in folder.iterdir() if not p.name.startswith("."))
    files = sorted(p for p in shown if p.suffix.lower() in _SUFFIXES and p.is_file())
    if not files:
        raise BadRequest(f"{option} '{folder}' holds no image ({', '.join(sorted(_SUFFIXES))}). {otherwise}.")
    return files


def read(path: Path) -> NDArray[np.uint8]:
    """RGB uint8, the longer side at most ``LONGEST_SIDE``; what is transparent is blended on black, see
    :func:`on_black`. Raises ``BadRequest`` where it is no such picture."""
    try:
        with PILImage.open(path) as opened:
            if opened.mode[0] in "IF":  # Pillow would clip 16 bits to 8, which leaves white
                raise BadRequest(f"'{path}' has more than 8 bits a channel (mode {opened.mode}). Convert it to 8.")
            picture = on_black(ImageOps.exif_transpose(opened))  # upright, as browsers show it
    except (UnidentifiedImageError, OSError, SyntaxError, PILImage.DecompressionBombError) as error:
        raise BadRequest(f"'{path}' cannot be read as an image ({error}). Remove or replace it.") from error
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), PILImage.Resampling.LANCZOS)
    return np.asarray(picture)


def on_black(picture: PILImage.Image) -> PILImage.Image:
    """RGB: each value times alpha, rounded. The rule of every runtime, for a browser's canvas and Core Graphics keep no
    colour where a picture is transparent; ``convert("RGB")`` shows what was left there by chance."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    opaque = PILImage.new("RGBA", picture.size, (0, 0, 0, 255))
    return PILImage.alpha_composite(opaque, picture.convert("RGBA")).convert("RGB")
