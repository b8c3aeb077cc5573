"""Preprocessing is held to timm's own transforms and to transformers' processors, pixel for pixel; and the probes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from vitexport import photos, torchvision_schemas
from vitexport.contract import Preprocessing, Size
from vitexport.errors import BadRequest
from vitexport.preprocess import crop_origin, fit, preprocess, resized_size

PHOTO = next(probe.image for probe in photos.probes(None) if probe.name == "coffee")
PHOTOS = {
    "landscape": PHOTO,
    "portrait": PHOTO.transpose(1, 0, 2),
    "square": PHOTO[:260, :260],
    "odd sides": PHOTO[:201, :333],
    "smaller than the network": PHOTO[:99, :80],
    "a strip": PHOTO[:30, :300],
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(params=PHOTOS)
def photo(request: pytest.FixtureRequest) -> np.ndarray:
    return np.ascontiguousarray(PHOTOS[request.param])


@pytest.fixture(autouse=True)
def rows_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of passes that every Pillow before 13 used, and preprocess.py fixes: 13 picks one by cost."""
    at_once = PILImage.Image.resize

    def resize(picture: PILImage.Image, size: tuple[int, int], *filters: object, **more: object) -> PILImage.Image:
        rows = at_once(picture, (size[0], picture.height), *filters, **more)
        return at_once(rows, size, *filters, **more)

    monkeypatch.setattr(PILImage.Image, "resize", resize)


def timm_pixels(photo: np.ndarray, size: Size, crop: float, mode: str, interpolation: str) -> np.ndarray:
    torchvision_schemas.declare()
    data = pytest.importorskip("timm.data")
    shape = (3, size.height, size.width)
    steps = data.create_transform(
        shape, interpolation=interpolation, crop_pct=crop, crop_mode=mode, mean=MEAN, std=STD, is_training=False
    )
    return steps(PILImage.fromarray(photo))[None].numpy()


def like_timm(size: Size, crop: float, mode: str, interpolation: str) -> Preprocessing:
    resize = Size(math.floor(size.height / crop), math.floor(size.width / crop)) if mode == "center" else None
    return Preprocessing(size, MEAN, STD, interpolation, "crop" if mode == "center" else "squash", resize)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop", [0.875, 0.9, 0.95, 1.0])
def test_centre_crop_is_timms(photo: np.ndarray, crop: float, interpolation: str) -> None:
    how = like_timm(Size(96, 96), crop, "center", interpolation)
    assert np.array_equal(preprocess(photo, how), timm_pixels(photo, how.size, crop, "center", interpolation))


@pytest.mark.parametrize("size", [Size(96, 96), Size(144, 256), Size(256, 144)], ids=str)
def test_squash_is_timms(photo: np.ndarray, size: Size) -> None:
    how = like_timm(size, 1.0, "squash", "bicubic")
    assert np.array_equal(preprocess(photo, how), timm_pixels(photo, size, 1.0, "squash", "bicubic"))


def test_centre_crop_to_another_shape_is_timms() -> None:
    for photo in PHOTOS.values():
        for size in (Size(72, 128), Size(128, 72), Size(96, 97)):
            for crop in (0.9, 1.0):
                how = like_timm(size, crop, "center", "bicubic")
                assert np.array_equal(preprocess(photo, how), timm_pixels(photo, size, crop, "center", "bicubic"))


@pytest.mark.parametrize("size", [96, 97])
def test_crop_rounding_down_is_transformers(photo: np.ndarray, size: int) -> None:
    torchvision_schemas.declare()
    transformers = pytest.importorskip("transformers")
    processor = transformers.BitImageProcessor(
        size={"shortest_edge": 110}, crop_size={"height": size, "width": size}, image_mean=MEAN, image_std=STD
    )
    wanted = processor(PILImage.fromarray(photo), return_tensors="np")["pixel_values"]
    how = Preprocessing(Size(size, size), MEAN, STD, "bicubic", "crop", Size(110, 110), crop_rounding="floor")
    # transformers multiplies by 1/255 where torchvision divides by 255: the last bit of values up to 3.
    assert np.abs(preprocess(photo, how) - wanted).max() <= 1e-6


@pytest.mark.parametrize(
    ("margins", "half_even", "floor"),
    [((0, 0), (0, 0), (0, 0)), ((4, 6), (2, 3), (2, 3)), ((1, 3), (0, 2), (0, 1)), ((5, 7), (2, 4), (2, 3))],
)
def test_an_odd_margin_is_halved_as_each_library_does(
    margins: tuple[int, int], half_even: tuple[int, int], floor: tuple[int, int]
) -> None:
    resized = Size(32 + margins[0], 32 + margins[1])
    assert crop_origin(resized, Preprocessing(Size(32, 32), fit="crop")) == half_even
    assert crop_origin(resized, Preprocessing(Size(32, 32), fit="crop", crop_rounding="floor")) == floor


@pytest.mark.parametrize("size", [Size(33, 33), Size(20, 60), Size(60, 20)], ids=str)
def test_a_resized_photo_always_covers_the_crop(size: Size) -> None:
    how = Preprocessing(size, fit="crop")
    for height in range(1, 60, 7):
        for width in range(1, 60, 7):
            resized = resized_size(Size(height, width), how)
            assert resized.height >= size.height
            assert resized.width >= size.width
            assert resized.height == size.height or resized.width == size.width


def test_a_photo_of_the_right_size_is_not_resampled() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for how in (Preprocessing(Size(48, 64)), Preprocessing(Size(48, 64), fit="crop")):
        assert np.array_equal(fit(photo, how), photo)


def test_input_is_normalised_float32_in_nchw() -> None:
    white = np.full((8, 8, 3), 255, np.uint8)
    white[..., 2] = 0
    made = preprocess(white, Preprocessing(Size(4, 6), mean=(0.5, 0.0, 0.5), std=(0.5, 1.0, 0.25)))
    assert (made.dtype, made.shape, made.flags.c_contiguous) == (np.float32, (1, 3, 4, 6), True)
    assert [float(made[0, c].min()) for c in range(3)] == [1.0, 1.0, -2.0]


# ------------------------------------------------------------------------------------------------------------ probes


def saved(path: Path, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Path:
    PILImage.new(mode, size).save(path)
    return path


def test_built_in_probes_are_a_person_first_three_more_photos_and_noise() -> None:
    probes = photos.probes(None)
    assert [p.name for p in probes] == ["astronaut", "coffee", "chelsea", "rocket", "noise"]
    assert [p.kind for p in probes] == ["photo"] * 4 + ["noise"]
    assert all(p.image.dtype == np.uint8 and p.image.shape[2] == 3 for p in probes)
    assert all(max(p.image.shape) <= photos.LONGEST_SIDE for p in probes)


def test_noise_follows_the_seed() -> None:
    first, again, other = (photos.probes(None, seed)[-1].image for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_folder_of_the_users_is_read_in_order_whatever_the_mode(tmp_path: Path) -> None:
    saved(tmp_path / "b.png", mode="RGBA")
    saved(tmp_path / "a.JPG")
    saved(tmp_path / "c.png", (1000, 10), mode="L")
    (tmp_path / "notes.txt").write_text("not a photo")
    probes = photos.probes(str(tmp_path))
    assert [p.name for p in probes] == ["a", "b", "c", "noise"]
    assert [p.image.shape for p in probes[:3]] == [(30, 40, 3), (30, 40, 3), (4, 400, 3)]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_blended_on_black(mode: str, tmp_path: Path) -> None:
    """Whatever colour lies under it: an eraser leaves the photo there, an encoder white or nothing."""
    alpha = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgba = PILImage.fromarray(np.dstack([np.full((16, 16, 3), 200, np.uint8), alpha]))
    if mode == "P":
        palette = PILImage.fromarray(alpha, "P")
        palette.putpalette([200] * 768)
        palette.save(tmp_path / "a.png", transparency=bytes(range(256)))
    else:
        rgba.convert(mode).save(tmp_path / "a.png")
    wanted = np.rint(200.0 * alpha / 255)
    assert np.array_equal(photos.read(tmp_path / "a.png"), np.dstack([wanted] * 3))


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], r"--images '.*' holds no image \(.bmp, .gif, .jpeg, .*\)\. Put at least two photos there, or leave"),
        (["one.png"], "--images '.*' holds one image. Parity needs two that differ"),
    ],
)
def test_a_folder_with_too_few_images_is_refused(files: list[str], sentence: str, tmp_path: Path) -> None:
    for name in files:
        saved(tmp_path / name)
    with pytest.raises(BadRequest, match=sentence):
        photos.probes(str(tmp_path))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"--images '.*absent' is not a folder"):
        photos.probes(str(tmp_path / "absent"))


@pytest.mark.parametrize("damage", ["garbage", "cut short", "empty"])
def test_an_unreadable_image_is_named(damage: str, tmp_path: Path) -> None:
    saved(tmp_path / "good.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    PILImage.fromarray(noise).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    content = {"garbage": b"not a picture", "cut short": whole[: len(whole) // 2], "empty": b""}[damage]
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(BadRequest, match=r"'.*bad.png' cannot be read as an image \(.*\)\. Remove or replace it\."):
        photos.probes(str(tmp_path))


def test_an_image_turned_by_its_exif_tag_is_read_upright(tmp_path: Path) -> None:
    """A phone stores a portrait as a landscape and a tag; browsers turn it before anyone sees its pixels."""
    picture = PILImage.fromarray(np.ascontiguousarray(PHOTO[:40, :60]))
    tag = PILImage.Exif()
    tag[0x0112] = 6  # rotate 90 degrees clockwise to show
    picture.save(tmp_path / "turned.png", exif=tag)
    saved(tmp_path / "z.png")
    assert photos.probes(str(tmp_path))[0].image.shape == (60, 40, 3)
