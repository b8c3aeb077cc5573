"""Each stage of the demo's pipeline, as the GPU computes it, against numpy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as PILImage

import demo_engine as engine
import demo_reference as reference
from demo_engine import Network, Step
from vitexport import photos, preprocess
from vitexport.contract import Preprocessing, Size

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

PHOTOS = {probe.name: probe.image for probe in photos.probes(None)[:3]}

#: A matrix of variances (at most 0.75 in all, at least EPSILON) inverted by cofactors in float32: its condition number,
#: 7,500, times 6e-8, times slopes of 5, times 4 for the steps of it.
PLANES = 1e-2

#: Half a step of 8 bits is what rounding takes; as much again is left to the float32, and half float, before it.
STEP = 1 / 255


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with engine.engine_page() as page:
        yield page


def sized(name: str, height: int, width: int) -> engine.Bytes:
    return np.asarray(PILImage.fromarray(PHOTOS[name]).resize((width, height), PILImage.Resampling.BICUBIC))


def blob(height: int, width: int, seed: int = 0) -> engine.Floats:
    """(1, height, width): a soft disc, as a network answers one, with some noise at its edge."""
    y, x = np.mgrid[:height, :width] + 0.5
    distance = np.hypot(y / height - 0.5, (x / width - 0.5) * 1.2)
    rough = np.random.default_rng(seed).normal(0, 0.03, (height, width))
    return (1 / (1 + np.exp((distance + rough - 0.3) * 30)))[None].astype(np.float32)


# ---------------------------------------------------------------------------------------------------- preprocessing

FITTINGS: dict[str, dict[str, Any]] = {
    "squash-bilinear": {"size": Size(48, 64), "interpolation": "bilinear"},
    "crop-bicubic": {"size": Size(56, 56), "fit": "crop", "resize": Size(63, 63), "interpolation": "bicubic"},
    "up-lanczos": {"size": Size(96, 80), "interpolation": "lanczos"},
}


@pytest.mark.parametrize("fitting", FITTINGS.values(), ids=FITTINGS)
@pytest.mark.parametrize("shape", [(120, 160), (160, 120), (75, 99)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_the_networks_input_is_pythons(page: Page, shape: tuple[int, int], fitting: dict[str, Any]) -> None:
    """Three photos at a time; a frame and a bitmap take different ways in. Not a byte differs, and 1 / 255 is asked."""
    how = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), **fitting)
    network = Network(how, (how.size.height, how.size.width))
    images = [sized(name, *shape) for name in PHOTOS]
    steps = [Step(image, kind=kind) for image, kind in zip(images, ("video", "bitmap", "video"), strict=True)]
    for image, answer in zip(images, engine.run(page, network, steps, "input"), strict=True):
        expected = preprocess.preprocess(image, how)
        # WGSL divides to within 2.5 units in the last place of values up to 3 (section "Floating Point Accuracy").
        assert np.abs(answer.input() - expected).max() < 3e-6


@pytest.mark.parametrize("shape", [(90, 160), (160, 90)], ids=["landscape", "portrait"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_noise_comes_through_every_filter_to_the_byte(page: Page, interpolation: Any, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    how = Preprocessing(Size(37, 53), interpolation=interpolation)
    [answer] = engine.run(page, Network(how, (37, 53)), [Step(image)], "input")
    assert np.array_equal(np.rint(answer.input() * 255), np.rint(preprocess.preprocess(image, how) * 255))


# ------------------------------------------------------------------------------------------------------------ mask

SMALL = Network(Preprocessing(Size(48, 64), interpolation="bilinear"), (48, 64))


def test_the_person_is_the_softmax_of_their_class_and_the_guide_the_mean_of_what_was_seen(page: Page) -> None:
    """Logits at a quarter and at an odd part of the input's size, a hundred of them large enough to overflow exp."""
    image = sized("astronaut", 60, 80)
    for mask in ((12, 16), (13, 21)):
        network = Network(SMALL.preprocessing, mask, classes=7, person=3, logits=True)
        logits = np.random.default_rng(1).normal(0, 3, (7, *mask)).astype(np.float32)
        logits[:, :5, :4] *= 40
        [answer] = engine.run(page, network, [Step(image, logits)], "now")
        expected = reference.now(image, network.preprocessing, logits.astype(np.float64), 3)
        # exp is allowed 3 + 2 |x| units in the last place, and x reaches 80.
        assert np.abs(answer.planes("now") - expected).max() < 2e-5


def test_the_temporal_filter_is_numpys(page: Page) -> None:
    """A still scene with noise, then a part of it changed by little, then by much; each with its own mask."""
    dice = np.random.default_rng(2)
    scene = sized("coffee", 48, 64).astype(np.float64)
    images = [(scene + dice.normal(0, 2, scene.shape)).clip(0, 255).astype(np.uint8) for _ in range(4)]
    images[2][10:30, 20:40] = np.clip(images[2][10:30, 20:40].astype(int) + 6, 0, 255)
    images[3][10:30, 20:40] = np.clip(images[3][10:30, 20:40].astype(int) - 60, 0, 255)
    outputs = [blob(48, 64, seed) for seed in range(4)]
    steps = [
        Step(image, output, 33 if i else None) for i, (image, output) in enumerate(zip(images, outputs, strict=True))
    ]
    answers = engine.run(page, SMALL, steps, "steady", look={"temporal": 0.5})
    before = reference.now(images[0], SMALL.preprocessing, outputs[0], None)
    assert np.allclose(answers[0].planes("steady"), before, atol=1e-6), "the first frame has nothing to remember"
    for image, output, answer in zip(images[1:], outputs[1:], answers[1:], strict=True):
        here = reference.now(image, SMALL.preprocessing, output, None)
        before = reference.temporal(here, before, reference.keep(0.5, 33))
        assert np.abs(answer.planes("steady") - before).max() < 1e-5
        assert np.abs(before[..., 3] - here[..., 3]).max() > 0.01, "the filter did something"


@pytest.mark.parametrize("guidance", [0, 0.5, 1])
@pytest.mark.parametrize("name", PHOTOS)
def test_the_upsampler_is_numpys(page: Page, name: str, guidance: float) -> None:
    image = sized(name, 120, 160)
    look = {"edge": {"guidance": guidance, "softness": 0.6}}
    [answer] = engine.run(page, SMALL, [Step(image, blob(48, 64))], "means", "matted", look=look)
    rgbp = reference.now(image, SMALL.preprocessing, blob(48, 64).astype(np.float64), None)
    planes = reference.planes(rgbp, guidance)
    assert np.abs(answer.planes("means") - planes).max() < PLANES
    alpha = reference.matte(image, planes, SMALL.preprocessing, 0.6)
    difference = np.abs(answer.matted()[..., 3] / 255 - alpha)
    assert difference.max() < STEP
    assert difference.mean() < STEP / 4, "most of it is 0 or 1"
    assert np.array_equal(answer.matted()[..., :3], image)


def test_a_network_that_sees_only_the_middle_gives_a_mask_of_the_middle(page: Page) -> None:
    """Its border is repeated beyond what it saw."""
    how = Preprocessing(Size(48, 48), interpolation="bilinear", fit="crop", resize=Size(56, 56))
    network, image = Network(how, (48, 48)), sized("astronaut", 90, 160)
    [answer] = engine.run(
        page, network, [Step(image, blob(48, 48))], "matted", look={"edge": {"guidance": 0, "softness": 1}}
    )
    rgbp = reference.now(image, how, blob(48, 48).astype(np.float64), None)
    alpha = reference.matte(image, reference.planes(rgbp, 0), how, 1)
    assert np.abs(answer.matted()[..., 3] / 255 - alpha).max() < STEP


# ------------------------------------------------------------------------------------------------------- composite


@pytest.mark.parametrize(("shape", "strength"), [((90, 120), 1), ((303, 275), 0.3), ((75, 60), 0)])
def test_the_composite_is_numpys(page: Page, shape: tuple[int, int], strength: float) -> None:
    """Blur at full, less and no strength, with light that wraps; alpha as the GPU has it: it is not tested twice."""
    image = sized("astronaut", *shape)
    look = {"blur": strength, "lightWrap": 0.5}
    [answer] = engine.run(page, SMALL, [Step(image, blob(48, 64))], "matted", "canvas", look=look)
    alpha = answer.matted()[..., 3] / 255
    around, factor = reference.blurred(image, alpha, strength)
    expected = reference.composite(image, alpha, around, factor, None, 0.5)
    difference = np.abs(answer.canvas() / 255 - expected)
    assert difference.max() < STEP
    # Rounding alone takes a quarter of a step on average.
    assert difference.mean() < STEP / 3


def test_a_colour_and_a_picture_stand_behind_the_person(page: Page) -> None:
    image, output = sized("astronaut", 60, 80), blob(48, 64)
    [colour] = engine.run(page, SMALL, [Step(image, output)], "matted", "canvas", look={"mode": "colour"})
    alpha = colour.matted()[..., 3:] / 255
    behind = np.broadcast_to(engine.LOOK["colour"], image.shape)
    assert np.abs(colour.canvas() / 255 - (image / 255 * alpha + behind * (1 - alpha))).max() < STEP
    # A picture of the frame's shape, as large: pixel upon pixel. One twice as wide: its middle.
    picture = sized("coffee", 60, 80)
    wide = np.concatenate([np.zeros((60, 40, 3), np.uint8), picture, np.zeros((60, 40, 3), np.uint8)], axis=1)
    for each in (picture, wide):
        [answer] = engine.run(page, SMALL, [Step(image, output)], "canvas", look={"mode": "picture"}, picture=each)
        # A sampler weighs with 8 bits.
        assert np.abs(answer.canvas() / 255 - (image * alpha + picture * (1 - alpha)) / 255).max() < 2 * STEP


def test_mask_off_mirror_and_the_slider(page: Page) -> None:
    image, output = sized("astronaut", 60, 80), blob(48, 64)

    def shown(**look: Any) -> engine.Bytes:
        [answer] = engine.run(page, SMALL, [Step(image, output)], "canvas", "matted", look=look)
        if look.get("mode") == "mask":
            assert np.array_equal(answer.canvas()[..., 0], answer.matted()[..., 3])
        return answer.canvas()

    blurred = shown()
    assert np.array_equal(shown(mode="off"), image)
    assert np.array_equal(shown(mode="off", mirror=True), image[:, ::-1])
    assert np.array_equal(shown(mirror=True), blurred[:, ::-1])
    half = shown(compare=0.5)
    assert np.array_equal(half[:, :40], image[:, :40])
    assert np.array_equal(half[:, 40:], blurred[:, 40:])
    assert not np.array_equal(blurred[:, :40], image[:, :40])
    mask = shown(mode="mask")
    assert mask.max() > 250
    assert mask.min() < 5
