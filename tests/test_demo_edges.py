"""What the guided upsampling and the temporal filter are worth: edges, flicker and trails, as the GPU computes them.

The masks are the real network's, on composites whose alpha is known; or that alpha made coarse, for edges alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image as PILImage
from scipy import ndimage

import composites
import demo_engine as engine
import demo_reference as reference
import web_bundles
from demo_engine import Network, Step
from vitexport import preprocess
from vitexport.contract import Preprocessing, Size

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from playwright.sync_api import Page

    Alpha = NDArray[np.float32]

pytestmark = pytest.mark.browser

COUNT, SEED = 6, 5

#: Of 255: a webcam's in a lit room.
NOISE = 2.5


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with engine.engine_page() as page:
        yield page


@cache
def pairs() -> list[tuple[engine.Bytes, Alpha]]:
    dice = np.random.default_rng(SEED)
    return [(noisy(picture, dice), alpha) for picture, alpha in composites.with_alpha(COUNT, SEED)]


def noisy(picture: engine.Bytes, dice: np.random.Generator) -> engine.Bytes:
    return (picture + dice.normal(0, NOISE, picture.shape)).clip(0, 255).astype(np.uint8)


@cache
def selfie() -> tuple[onnxruntime.InferenceSession, Network]:
    bundle = web_bundles.preset("selfie_landscape")
    how = bundle.rung.preprocessing
    session = onnxruntime.InferenceSession(bundle.path(bundle.rung.variants[0].files[0]))
    return session, Network(how, (how.size.height, how.size.width))


def seen(picture: engine.Bytes) -> engine.Floats:
    """(1, height, width): what the network answers."""
    session, network = selfie()
    [mask] = session.run(None, {session.get_inputs()[0].name: preprocess.preprocess(picture, network.preprocessing)})
    return np.asarray(mask[0], np.float32)


def coarse(alpha: Alpha) -> engine.Floats:
    """(1, 96, 96): a quarter of the side, and soft as networks are."""
    small = PILImage.fromarray(alpha).resize((96, 96), PILImage.Resampling.BOX)
    return ndimage.gaussian_filter(np.asarray(small), 0.7).clip(0, 1)[None]


# ----------------------------------------------------------------------------------------------------------- edges


def quality(found: Alpha, true: Alpha) -> NDArray[np.float64]:
    """Boundary F-score, boundary IoU (Cheng et al., CVPR 2021, within 3 pixels), and 1 - mean error at the edge."""
    mask, sought = found > 0.5, true > 0.5
    bands = [each & ~ndimage.binary_erosion(each, np.ones((7, 7)), border_value=1) for each in (mask, sought)]
    iou = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
    edge = ndimage.binary_dilation((true > 0.02) & (true < 0.98), iterations=4)
    return np.array([composites.boundary_f(mask, sought), iou, 1 - np.abs(found - true)[edge].mean()])


@pytest.mark.parametrize("source", ["network", "coarse"])
def test_edges_are_nearer_to_the_true_ones_than_by_bilinear_upsampling(page: Page, source: str) -> None:
    """On average over the composites, by all three measures; and by none of them worse on any by more than a little."""
    network = (
        selfie()[1] if source == "network" else Network(Preprocessing(Size(96, 96), interpolation="bilinear"), (96, 96))
    )
    steps = [Step(picture, seen(picture) if source == "network" else coarse(alpha)) for picture, alpha in pairs()]

    def measured(guidance: float) -> NDArray[np.float64]:
        look = {"edge": {"guidance": guidance, "softness": 1}}
        answers = engine.run(page, network, steps, "matted", look=look)
        return np.array(
            [quality(a.matted()[..., 3] / 255, alpha) for a, (_, alpha) in zip(answers, pairs(), strict=True)]
        )

    plain, guided = measured(0), measured(1)
    print(f"{source}: F, IoU, 1 - error: bilinear {plain.mean(0).round(4)}, guided {guided.mean(0).round(4)}")
    assert (guided.mean(0) > plain.mean(0)).all(), (plain.mean(0), guided.mean(0))
    assert (guided - plain).min() > -0.03, guided - plain


# --------------------------------------------------------------------------------------------------------- flicker


def test_a_still_scene_flickers_less(page: Page) -> None:
    """Mean change of alpha from frame to frame; the camera's noise is all that changes."""
    picture, _ = composites.with_alpha(1, SEED)[0]
    dice = np.random.default_rng(0)
    frames = [noisy(picture, dice) for _ in range(7)]
    steps = [Step(frame, seen(frame), 33 if i else None) for i, frame in enumerate(frames)]

    def flicker(temporal: float) -> float:
        answers = engine.run(page, selfie()[1], steps, "matted", look={"temporal": temporal})
        alphas = np.array([answer.matted()[..., 3] / 255 for answer in answers[2:]])
        return float(np.abs(np.diff(alphas, axis=0)).mean())

    without, default = flicker(0), flicker(0.5)
    print(f"flicker: {without:.5f} without the filter, {default:.5f} with it")
    # Of independent noise, an exponential mean that keeps k leaves (1 - k) / sqrt(1 - k * k) of the changes' size: for
    # k = exp(-33 / 75), 0.46. What the frame's own noise adds in upsampling stays.
    assert default < 0.65 * without


# ---------------------------------------------------------------------------------------------------------- trails

STEP = 3  # mask pixels a frame
FLAT = Network(Preprocessing(Size(48, 64), interpolation="nearest"), (48, 64))


def walk(contrast: int, count: int = 8) -> list[Step]:
    """Somebody of one colour walks before a wall of another; the network is right at every moment."""
    steps = []
    dice = np.random.default_rng(4)
    for i in range(count):
        mask = np.zeros((48, 64), np.float32)
        mask[8:48, 4 + STEP * i : 20 + STEP * i] = 1
        image = 120 + contrast * mask[..., None] + dice.normal(0, 1, (48, 64, 3))
        steps.append(Step(image.clip(0, 255).astype(np.uint8), mask[None], 33 if i else None))
    return steps


def trail(page: Page, steps: list[Step], temporal: float) -> float:
    """The largest part of the mask that is remembered where nobody is any more, in the last frame."""
    last = engine.run(page, FLAT, steps, "steady", look={"temporal": temporal})[-1].planes("steady")[..., 3]
    assert steps[-1].output is not None
    return float(last[steps[-1].output[0] == 0].max())


def test_who_walks_leaves_no_trail(page: Page) -> None:
    """Even at the filter's full strength, whose plain exponential mean would leave four fifths of the last place."""
    assert reference.keep(1, 33) > 0.8
    assert trail(page, walk(contrast=80), 1) < 0.01
    assert trail(page, walk(contrast=30), 1) < reference.SLACK
    # Nearly the wall's own colour: nothing tells that they went but the mask, and the wall shows through as they are.
    assert trail(page, walk(contrast=0), 1) > 0.5, "what cannot be seen to move is remembered: the test can fail"


def test_who_is_gone_is_forgotten(page: Page) -> None:
    """Who looks like the wall, and leaves, is forgotten in a few time constants: 450 ms leave exp(-450 / 75)."""
    gone: list[Any] = [Step(step.image, np.zeros((1, 48, 64), np.float32), 45) for step in walk(0, 1) * 10]
    assert trail(page, [*walk(0, 2), *gone], 0.5) < 0.01
