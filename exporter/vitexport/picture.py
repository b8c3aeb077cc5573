"""The picture that an export leaves behind: each photo, what PyTorch made of it, what the artifact made of it, and
where the two differ.

For a person's mask also what it is good for: the person kept, the background blurred. For people to look at; the
verdict is parity's.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from vitexport.contract import Case, Exam, Meaning, OutputSpec, Preprocessing
from vitexport.parity import agreement, probabilities
from vitexport.photos import contact_sheet
from vitexport.preprocess import fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vitexport.contract import Image, Tensors

    Floats = NDArray[np.float32]

TILE = 300  # width of a tile, and its greatest height, in pixels
_GAP = 12
_CAPTION = 34
_TITLE = 52
_INK, _FAINT, _PAPER, _BAR = (232, 234, 237), (150, 156, 166), (17, 19, 23), (38, 42, 51)
_TOP = 3
_OVERLAY = 0.55  # opacity of a class's colour over the photo
_BLUR = 1 / 28  # standard deviation of the background's blur, as a share of the photo's longer side


@dataclass(frozen=True, eq=False)
class _Case:
    photo: Image
    reference: Floats
    artifact: Floats
    spec: OutputSpec
    preprocessing: Preprocessing

    def seen(self) -> Image:
        """The part of the photo that the network saw, at the photo's own resolution where nothing was cut off."""
        return self.photo if self.preprocessing.fit == "squash" else fit(self.photo, self.preprocessing)


@dataclass(frozen=True, eq=False)
class _Tile:
    picture: PILImage.Image
    caption: str
    remark: str = ""


def of_exam(exam: Exam, answers: Sequence[tuple[Case, Tensors]]) -> PILImage.Image:
    """:func:`proof` of the photos among ``answers``: cases of ``exam``, each with what an artifact answered to it."""
    source = exam.source
    probes = {id(case): probe for case, probe in zip(exam.cases, source.probes, strict=False)}
    photos = [(case, given) for case, given in answers if case.kind == "photo"]
    return proof(
        [contact_sheet(probes[id(case)].image) for case, _ in photos],
        [case.reference for case, _ in photos],
        [given for _, given in photos],
        source.outputs,
        source.preprocessing,
    )


def proof(
    photos: Sequence[Image],
    reference: Sequence[Tensors],
    artifact: Sequence[Tensors],
    outputs: tuple[OutputSpec, ...],
    preprocessing: Preprocessing,
    title: str = "",
) -> PILImage.Image:
    """One row for each photo, RGB.

    ``photos`` are (h, w, 3) uint8; ``reference`` (PyTorch's) and ``artifact`` give each photo's outputs by name, with a
    batch of 1. The first output is drawn, by its meaning.
    """
    spec = outputs[0]
    rows = [
        _DRAW[spec.meaning](_Case(photo, _floats(ours[spec.name]), _floats(theirs[spec.name]), spec, preprocessing))
        for photo, ours, theirs in zip(photos, reference, artifact, strict=True)
    ]
    return _grid(rows, title)


def background_blurred(image: Image, mask: Floats) -> Image:
    """``image`` (h, w, 3) uint8 with its background blurred where ``mask`` (h, w), 0..1, says there is nobody.

    Where the mask is 1 the pixels are untouched. The blur averages over the background alone, so that the person's
    colours do not bleed into a halo.
    """
    from skimage.filters import gaussian

    alpha, pixels = mask[..., None], image.astype(np.float32)
    sigma = max(image.shape[:2]) * _BLUR
    weight = gaussian(1 - mask, sigma)[..., None]
    background = gaussian(pixels * (1 - alpha), sigma, channel_axis=-1) / np.maximum(weight, 1e-4)
    made: Image = np.clip(np.rint(pixels * alpha + background * (1 - alpha)), 0, 255).astype(np.uint8)
    return made


def _floats(batch: NDArray[Any]) -> Floats:
    """A batch of 1 without its batch axis, float32."""
    single: Floats = np.asarray(batch, np.float32)[0]
    return single


# --------------------------------------------------------------------------------------------- one row, by meaning


def _mask_row(case: _Case) -> list[_Tile]:
    seen = case.seen()
    ours, theirs = (_resized(mask[0], seen) for mask in (case.reference, case.artifact))
    difference = np.abs(case.reference - case.artifact)[0]
    subject = case.spec.labels[0] if case.spec.labels else "foreground"
    return [
        _Tile(PILImage.fromarray(seen), "photo"),
        _Tile(_grey(ours), "PyTorch's mask", f"{np.mean(ours > 0.5):.1%} {subject}"),
        _Tile(_grey(theirs), "the artifact's mask", f"{np.mean(theirs > 0.5):.1%} {subject}"),
        _Tile(_grey(_resized(_stretched(difference), seen)), "difference", f"white is {difference.max():.1e}"),
        _Tile(PILImage.fromarray(background_blurred(seen, theirs)), "composite", "background blurred by it"),
    ]


def _segmentation_row(case: _Case) -> list[_Tile]:
    seen = case.seen()
    ours, theirs = case.reference.argmax(0), case.artifact.argmax(0)
    differ = float(np.mean(ours != theirs))
    return [
        _Tile(PILImage.fromarray(seen), "photo"),
        _Tile(_overlay(seen, ours), "PyTorch", _class_names(ours, case.spec.labels)),
        _Tile(_overlay(seen, theirs), "the artifact", _class_names(theirs, case.spec.labels)),
        _Tile(_enlarged_to(_grey((ours != theirs).astype(np.float32)), seen), "difference", f"{differ:.2%} of pixels"),
    ]


def _logits_row(case: _Case) -> list[_Tile]:
    same = agreement(case.artifact[None], case.reference[None], case.spec) == 1
    return [
        _Tile(PILImage.fromarray(case.seen()), "photo"),
        _Tile(_ranking(case.reference, case.spec), "PyTorch"),
        _Tile(_ranking(case.artifact, case.spec), "the artifact", "same answer" if same else "another answer"),
    ]


def _features_row(case: _Case) -> list[_Tile]:
    ours, theirs = (_as_rows(features) for features in (case.reference, case.artifact))
    low, high = float(ours.min()), float(ours.max())
    scaled = [(features - low) / max(high - low, 1e-12) for features in (ours, theirs)]
    return [
        _Tile(PILImage.fromarray(case.seen()), "photo"),
        _Tile(_enlarged(_grey(scaled[0])), "PyTorch's features", f"{low:.2f} to {high:.2f}"),
        _Tile(_enlarged(_grey(scaled[1])), "the artifact's", f"max difference {np.abs(ours - theirs).max():.1e}"),
    ]


_DRAW: Mapping[Meaning, Callable[[_Case], list[_Tile]]] = {
    "mask": _mask_row,
    "segmentation": _segmentation_row,
    "logits": _logits_row,
    "features": _features_row,
}


# ---------------------------------------------------------------------------------------------------------- pictures


def _resized(mask: Floats, image: Image) -> Floats:
    """A mask of the network's size at the image's."""
    size = (image.shape[1], image.shape[0])
    picture = PILImage.fromarray(_shown(mask)).resize(size, PILImage.Resampling.BILINEAR)
    return np.asarray(picture, np.float32).clip(0, 1)


def _stretched(difference: Floats) -> Floats:
    """Its largest value at 1: rounding is a millionth of a mask's range, and black to the eye."""
    largest = float(_shown(difference).max())
    return difference / largest if largest > 0 else difference


def _shown(values: Floats) -> Floats:
    """NaN has no grey and no length: it is drawn as 0, and failed by parity."""
    return np.nan_to_num(values)


def _grey(values: Floats) -> PILImage.Image:
    return PILImage.fromarray((_shown(values).clip(0, 1) * 255).astype(np.uint8)).convert("RGB")


def _enlarged(picture: PILImage.Image) -> PILImage.Image:
    return picture.resize((TILE, TILE), PILImage.Resampling.NEAREST)


def _enlarged_to(picture: PILImage.Image, image: Image) -> PILImage.Image:
    return picture.resize((image.shape[1], image.shape[0]), PILImage.Resampling.NEAREST)


def _overlay(image: Image, classes: NDArray[np.intp]) -> PILImage.Image:
    """Each class in a colour of its own over the photo; class 0 keeps the photo."""
    # Steps of the golden ratio spread any number of hues, neighbours far apart.
    palette = [colorsys.hsv_to_rgb(c * 0.618034 % 1, 0.75, 1.0) for c in range(int(classes.max()) + 1)]
    colours = (np.array(palette) * 255).astype(np.uint8)[classes]
    size = (image.shape[1], image.shape[0])
    painted = PILImage.fromarray(colours).resize(size, PILImage.Resampling.NEAREST)
    opacity = PILImage.fromarray(np.where(classes > 0, _OVERLAY * 255, 0).astype(np.uint8))
    return PILImage.composite(painted, PILImage.fromarray(image), opacity.resize(size, PILImage.Resampling.NEAREST))


def _class_names(classes: NDArray[np.intp], labels: tuple[str, ...]) -> str:
    numbers, counts = np.unique(classes, return_counts=True)
    most = [int(numbers[i]) for i in np.argsort(-counts, kind="stable")[:_TOP]]
    return ", ".join(_label(labels, c) for c in most)


def _ranking(scores: Floats, spec: OutputSpec) -> PILImage.Image:
    """The likeliest classes, with bars as long as their probability."""
    shares = _shown(probabilities(scores[None], spec)[0])
    tile = PILImage.new("RGB", (TILE, TILE), _BAR)
    draw = ImageDraw.Draw(tile)
    step, left, right = TILE // _TOP, 18, TILE - 18
    for place, number in enumerate(np.argsort(-shares, kind="stable")[:_TOP]):
        y = place * step + step // 2
        _text(draw, (left, y - 24), _label(spec.labels, int(number)), 17, _INK, right - left - 62)
        draw.text((right, y - 24), f"{shares[number]:.1%}", _FAINT, ImageFont.load_default(15), anchor="ra")
        draw.rectangle((left, y + 4, right, y + 13), _PAPER)
        draw.rectangle((left, y + 4, left + round((right - left) * float(shares[number])), y + 13), (92, 168, 255))
    return tile


def _label(labels: tuple[str, ...], number: int) -> str:
    return labels[number] if number < len(labels) else f"class {number}"


def _as_rows(features: Floats) -> Floats:
    """(tokens, dim) as it is; (dim,) folded into about a square."""
    if features.ndim == 2:
        return features
    width = max(w for w in range(1, int(np.sqrt(features.size)) + 1) if features.size % w == 0)
    return features.reshape(width, -1)


# ------------------------------------------------------------------------------------------------------------ layout


def _grid(rows: Sequence[Sequence[_Tile]], title: str) -> PILImage.Image:
    """Tiles in rows, each over a dark bar with its caption and remark, on dark paper."""
    scaled = [[_scaled(tile.picture) for tile in row] for row in rows]
    heights = [max(picture.height for picture in row) for row in scaled]
    head, width = _TITLE if title else _GAP, _GAP + len(rows[0]) * (TILE + _GAP)
    sheet = PILImage.new("RGB", (width, head + sum(heights) + len(rows) * (_CAPTION + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        _text(draw, (_GAP, 14), title, 22, _INK, width - 2 * _GAP)
    y = head
    for row, pictures, height in zip(rows, scaled, heights, strict=True):
        for column, (tile, picture) in enumerate(zip(row, pictures, strict=True)):
            x = _GAP + column * (TILE + _GAP)
            draw.rectangle((x, y, x + TILE - 1, y + height + _CAPTION - 1), _BAR)
            sheet.paste(picture, (x + (TILE - picture.width) // 2, y + (height - picture.height) // 2))
            used = _text(draw, (x + 10, y + height + 9), tile.caption, 15, _INK, TILE - 20)
            _text(draw, (x + 20 + used, y + height + 10), tile.remark, 13, _FAINT, TILE - 30 - used)
        y += height + _CAPTION + _GAP
    return sheet


def _scaled(picture: PILImage.Image) -> PILImage.Image:
    """The longer side ``TILE`` pixels."""
    scale = TILE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, PILImage.Resampling.LANCZOS) if size != picture.size else picture


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, ink: tuple[int, int, int], room: int
) -> int:
    """Write one line, cut to ``room`` pixels; the width that it took."""
    font = ImageFont.load_default(size)
    shown = text
    while shown and draw.textlength(shown, font) > room:
        shown = shown[:-2].rstrip() + "…" if len(shown) > 2 else ""
    draw.text(at, shown, ink, font)
    return round(draw.textlength(shown, font))
