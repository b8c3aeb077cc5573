"""The demo's engine in its worker: what it shows, what it never does, what it says of itself."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as PILImage
from scipy import ndimage

import demo_engine as engine
import demo_reference as reference
import web_bundles
from vitexport import photos
from vitexport_targets.webgpu.placement import read_placement

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """With the real network for landscape frames, and one of 32x24 pixels that a software adapter is quick at."""
    selfie, tiny = web_bundles.preset("selfie_landscape"), web_bundles.whole("tiny_mask")
    with engine.engine_page({"/selfie/": selfie.directory, "/tiny/": tiny.directory}) as page:
        page.evaluate("async () => { globalThis.engine = await import('/driver.js'); }")
        yield page


def opened(page: Page, model: str, wishes: dict[str, Any], look: dict[str, Any] | None = None) -> dict[str, Any]:
    """A fresh worker with a model; its ``model`` notice."""
    notice: dict[str, Any] = page.evaluate(
        """async ([url, wishes, look]) => {
            globalThis.driver?.close();
            globalThis.driver = new engine.Driver(look);
            return driver.load(url, wishes);
        }""",
        [f"/{model}/", wishes, look or engine.LOOK],
    )
    return notice


def canvas(page: Page) -> engine.Bytes:
    # The size comes with the worker's first frame: it is read after the pixels are.
    pixels, size = page.evaluate("async () => [await driver.pixels(), [driver.canvas.height, driver.canvas.width]]")
    return np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(*size, 4)[..., :3]


def show(page: Page, image: engine.Bytes) -> None:
    page.evaluate(
        """async (png) => { const shown = driver.next('stats'); await driver.still(png); await shown; }""",
        engine.png(image),
    )


def test_the_whole_way_on_webgpu_is_pythons_and_no_node_falls_to_the_cpu(page: Page) -> None:
    """The person photo through the real network and the whole pipeline. The mask it is compared with is PyTorch's."""
    bundle = web_bundles.preset("selfie_landscape")
    log: list[str] = []
    page.on("console", lambda message: log.append(message.text))
    page.evaluate(
        """async () => {
            const { load } = await import('/selfie/vitexport.js');
            const model = await load('/selfie/', { verbose: true, provider: 'webgpu' });
            await model.dispose();
        }"""
    )
    placement = read_placement(line for text in log for line in text.splitlines())
    assert placement is not None
    assert placement.fallback == ()

    look = {**engine.LOOK, "blur": 1, "temporal": 0.5, "edge": {"guidance": 1, "softness": 0.6}}
    notice = opened(page, "selfie", {"step": "webgpu-fp32"}, look)
    assert (notice["facts"]["provider"], notice["facts"]["step"]) == ("webgpu", "webgpu-fp32")
    golden = bundle.rung.golden[0]
    image = np.asarray(PILImage.open(bundle.path(golden.photo)).convert("RGB"))
    show(page, image)
    shown = canvas(page).astype(np.float64)

    how = bundle.rung.preprocessing
    mask = np.fromfile(bundle.path(golden.outputs["mask"]), "<f4").reshape(1, how.size.height, how.size.width)
    rgbp = reference.now(image, how, mask.astype(np.float64), None)
    alpha = reference.matte(image, reference.planes(rgbp, 1), how, 0.6)
    around, factor = reference.blurred(image, alpha, 1)
    expected = 255 * reference.composite(image, alpha, around, factor, None, 0)

    person, background = alpha > 254.5 / 255, alpha < 0.5 / 255
    edge = ndimage.binary_dilation(alpha > 0.5, iterations=2) & ~ndimage.binary_erosion(alpha > 0.5, iterations=2)
    assert np.abs(shown - expected).mean(2)[~edge].mean() < 2
    assert np.abs(shown - expected).mean() < 1
    assert person.mean() > 0.25
    assert np.array_equal(shown[person], image[person])
    assert background.mean() > 0.15

    def detail(picture: engine.Bytes) -> float:
        """Variance of what is smaller than 8 pixels."""
        smooth = ndimage.uniform_filter(picture.astype(np.float64), (8, 8, 1))
        return float((picture - smooth)[ndimage.binary_erosion(background, iterations=6)].var())

    assert detail(shown) < 0.05 * detail(image)


def test_nothing_is_read_back_and_nothing_allocated_for_a_frame_and_a_readback_would_be_counted(page: Page) -> None:
    def counts(step: str, frames: int) -> dict[str, int]:
        opened(page, "tiny", {"step": step}, {**engine.LOOK, "temporal": 0.5, "lightWrap": 0.2})
        # The first frames compile; the check of the golden picture, which reads back, is over.
        before, after = page.evaluate(
            """async (count) => {
                await driver.frames(3, 64, 48);
                const before = await driver.counts();
                await driver.frames(count, 64, 48);
                return [before, await driver.counts()];
            }""",
            frames,
        )
        return {name: after[name] - before[name] for name in before}

    on_page = page.evaluate("engine.counted()")
    assert counts("webgpu-fp32", 30) == {"readbacks": 0, "created": 0, "destroyed": 0, "closed": 30}
    # The network on WebAssembly has to be given its input: one a frame, and no more.
    assert counts("wasm-gpu", 5) == {"readbacks": 5, "created": 0, "destroyed": 0, "closed": 5}
    assert page.evaluate("engine.counted()")["readbacks"] == on_page["readbacks"], "nor does the page"


@pytest.mark.parametrize("step", ["webgpu-fp32", "wasm-2d"])
def test_what_is_transparent_is_black_and_shows_no_earlier_picture(page: Page, step: str) -> None:
    """One of 255 is what may be between two ways to round the product of two bytes."""
    opened(page, "tiny", {"step": step}, {**engine.LOOK, "mode": "off"})
    image = np.random.default_rng(7).integers(0, 256, (48, 64, 4), dtype=np.uint8)
    show(page, np.full((48, 64, 3), 255, np.uint8))
    show(page, image)
    expected = np.asarray(photos.on_black(PILImage.fromarray(image)), int)
    assert np.abs(canvas(page) - expected).max() <= 1


@pytest.mark.parametrize("step", ["webgpu-fp32", "wasm-2d"])
def test_a_call_gets_what_is_shown_neither_mirrored_nor_compared(page: Page, step: str) -> None:
    opened(page, "tiny", {"step": step}, {**engine.LOOK, "mode": "colour", "mirror": True})
    image = np.random.default_rng(6).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    show(page, image)
    mirrored = canvas(page)
    page.evaluate("(look) => driver.post({ type: 'look', look })", {**engine.LOOK, "mode": "colour", "compare": 0.5})
    pixels = page.evaluate(
        """() => new Promise((resolve) => {
            const write = (frame) => {
                const context = new OffscreenCanvas(frame.codedWidth, frame.codedHeight).getContext('2d');
                context.drawImage(frame, 0, 0);
                frame.close();
                resolve([...context.getImageData(0, 0, 64, 48).data]);
            };
            const writable = new WritableStream({ write });
            driver.post({ type: 'share', writable }, [writable]);
        })"""
    )
    shared = np.array(pixels, np.uint8).reshape(48, 64, 4)[..., :3]
    # Drawing a video frame on a canvas may go through Y'CbCr's rounding.
    assert np.abs(shared.astype(int) - mirrored[:, ::-1]).max() <= 2
    assert np.abs(shared.astype(int) - image).mean() > 10


def worker_heap(page: Page) -> Callable[[], int]:
    """Bytes of the newest worker's JS heap, ArrayBuffers included, after a collection."""
    session = page.context.new_cdp_session(page)
    attached: list[str] = []
    answers: dict[int, dict[str, int]] = {}

    def receive(event: dict[str, str]) -> None:
        message = json.loads(event["message"])
        if "id" in message:  # events have none
            answers[message["id"]] = message["result"]

    session.on("Target.attachedToTarget", lambda event: attached.append(event["sessionId"]))
    session.on("Target.receivedMessageFromTarget", receive)
    session.send("Target.setAutoAttach", {"autoAttach": True, "waitForDebuggerOnStart": False, "flatten": False})
    numbers = itertools.count(1)

    def ask(method: str) -> dict[str, int]:
        number = next(numbers)
        message = json.dumps({"id": number, "method": method})
        session.send("Target.sendMessageToTarget", {"sessionId": attached[-1], "message": message})
        while number not in answers:
            page.wait_for_timeout(20)
        return answers[number]

    def measure() -> int:
        ask("HeapProfiler.collectGarbage")
        usage = ask("Runtime.getHeapUsage")
        return usage["usedSize"] + usage["backingStorageSize"]

    return measure


def test_300_frames_leave_nothing_behind(page: Page) -> None:
    """In modes and sizes that alternate. WebAssembly's memory is a backing store of the heap."""
    opened(page, "tiny", {"step": "webgpu-fp32"}, {**engine.LOOK, "temporal": 0.5})
    heap = worker_heap(page)

    def after(frames: int) -> tuple[int, int]:
        page.evaluate(
            """async (count) => {
                for (let i = 0; i < count; i += 20) {
                    const mode = ['blur', 'colour', 'mask', 'off'][(i / 20) % 4];
                    driver.post({ type: 'look', look: { ...engine.DEFAULT_LOOK, mode } });
                    await driver.frames(20, ...((i / 20) % 2 ? [64, 48] : [48, 64]));
                }
            }""",
            frames,
        )
        counts = page.evaluate("driver.counts()")
        return counts["created"] - counts["destroyed"], heap()

    # The first frames fill the rings of the last thirty figures.
    (first_live, first_heap), (last_live, last_heap) = after(80), after(300)
    assert last_live == first_live
    # While code warms up, V8 itself adds 0.7 KB a frame for 700 frames, and then 0.03 KB. The smallest array of a
    # frame, a mask of 32x24, has 3 KB.
    assert last_heap - first_heap < 300 * 1500
