"""The browser's preprocessing against Python's: the same bytes, the same tensor."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from PIL import Image as PILImage

import headless
from vitexport import photos, preprocess
from vitexport.contract import Preprocessing, Site, Size
from vitexport.serving import serve
from vitexport_targets.webgpu.generate_types import RUNTIME

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
ASTRONAUT, COFFEE = (probe.image for probe in photos.probes(None)[:2])

_MAKE = """async ([png, how]) => {
    const { decode, fit, preprocess } = await import('/vitexport/preprocess.js');
    const photo = await decode(await (await fetch(`data:image/png;base64,${png}`)).blob());
    const text = (bytes) => {
        let all = '';
        for (let i = 0; i < bytes.length; i += 4096) all += String.fromCharCode(...bytes.subarray(i, i + 4096));
        return btoa(all);
    };
    return [text(fit(photo, how)), text(new Uint8Array(preprocess(photo, how).buffer))];
}"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with serve(Site(RUNTIME, pages={"/blank.html": b"<!doctype html>"})) as url, headless.page() as page:
        page.goto(f"{url}blank.html")
        yield page


def in_browser(page: Page, image: np.ndarray[Any, Any], how: Preprocessing) -> tuple[bytes, np.ndarray[Any, Any]]:
    file = io.BytesIO()
    PILImage.fromarray(image).save(file, "png")
    png = base64.b64encode(file.getvalue()).decode()
    fitted, tensor = page.evaluate(_MAKE, [png, msgspec.to_builtins(how)])
    return base64.b64decode(fitted), np.frombuffer(base64.b64decode(tensor), "<f4")


def assert_same(page: Page, image: np.ndarray[Any, Any], how: Preprocessing) -> None:
    fitted, tensor = in_browser(page, image, how)
    assert fitted == preprocess.fit(image, how).tobytes()
    # The same float32 steps; 1e-6 leaves room for one rounding in the last place of values up to about 3.
    assert np.abs(tensor - preprocess.preprocess(image, how).ravel()).max() <= 1e-6


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("photo", [ASTRONAUT, COFFEE], ids=["portrait", "landscape"])
@pytest.mark.parametrize(
    "fitting",
    [
        {"size": Size(64, 64), "fit": "squash"},
        {"size": Size(144, 256), "fit": "squash"},
        {"size": Size(64, 64), "fit": "crop", "resize": Size(71, 71)},
        {"size": Size(63, 80), "fit": "crop", "resize": Size(72, 92), "crop_rounding": "floor"},
        {"size": Size(448, 448), "fit": "crop", "resize": Size(512, 512)},
    ],
    ids=["squash-down", "squash-wide", "crop-even", "crop-floor", "crop-up"],
)
def test_a_photo_becomes_the_same_tensor(
    page: Page, photo: np.ndarray[Any, Any], fitting: dict[str, Any], interpolation: Any
) -> None:
    assert_same(page, photo, Preprocessing(mean=IMAGENET[0], std=IMAGENET[1], interpolation=interpolation, **fitting))


@pytest.mark.parametrize("interpolation", FILTERS)
def test_noise_of_any_shape_becomes_the_same_tensor(page: Page, interpolation: Any) -> None:
    """Noise reaches every overshoot and every rounding; odd sizes reach every border."""
    dice = np.random.default_rng(7)
    for _ in range(12):
        height, width, *target = (int(n) for n in dice.integers(1, 130, 4))
        image = dice.integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert_same(page, image, Preprocessing(Size(*target), interpolation=interpolation))


def transparent() -> np.ndarray[Any, Any]:
    """(256, 256, 4): every value of red with every alpha."""
    value, alpha = np.mgrid[:256, :256].astype(np.uint8)
    return np.dstack([value, 255 - value, np.full_like(value, 200), alpha])


@pytest.mark.parametrize("given", ["file", "pixels"])
def test_what_is_transparent_is_blended_on_black_as_python_does(page: Page, given: str, tmp_path: Path) -> None:
    """Both sides round the same product of two bytes to a byte, so one of 255 is all that they may differ by."""
    rgba = transparent()
    PILImage.fromarray(rgba).save(tmp_path / "a.png")
    read = page.evaluate(
        """async ([given, png, width]) => {
            const { decode } = await import('/vitexport/preprocess.js');
            const bytes = Uint8Array.from(atob(png), (c) => c.charCodeAt(0));
            const picture = given === 'file' ? new Blob([bytes]) : new ImageData(new Uint8ClampedArray(bytes), width);
            return [...(await decode(picture)).data];
        }""",
        [given, base64.b64encode((tmp_path / "a.png").read_bytes() if given == "file" else rgba).decode(), 256],
    )
    seen = np.array(read).reshape(256, 256, 4)
    assert np.abs(seen[..., :3] - photos.read(tmp_path / "a.png").astype(int)).max() <= 1
    assert (seen[..., 3] == 255).all()


def test_a_photo_of_the_right_size_is_left_as_it_is(page: Page) -> None:
    image = ASTRONAUT[:48, :64]
    assert in_browser(page, image, Preprocessing(Size(48, 64), interpolation="bicubic"))[0] == image.tobytes()
