"""Everything that can go wrong around the page, provoked: a sentence and a way on each time, and never a black page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import demo_page
import headless
from demo_page import LOAD_MS, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = pytest.mark.browser


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """Nothing is allowed yet. Without a service worker, so that every file is asked for where the test sees it."""
    with demo_page.fresh_page(chromium, service_workers="block") as page:
        yield page


def trouble(page: Page) -> tuple[str, str, list[str]]:
    """What the page says over the picture, what one may do, and the buttons for it."""
    page.locator("#trouble").wait_for(timeout=LOAD_MS)
    ways = page.locator("#trouble-ways button").all_inner_texts()
    return page.locator("#trouble-what").inner_text(), page.locator("#trouble-next").inner_text(), ways


def choose_way(page: Page, label: str) -> None:
    page.locator("#trouble").get_by_role("button", name=label).click()


# --------------------------------------------------------------------------------------------------------- the camera


def test_a_camera_that_is_not_allowed(page: Page, demo_url: str):
    page.goto(f"{demo_url}?model=tiny_mask")
    page.locator("#start-camera").click()
    what, following, ways = trouble(page)
    assert what == "The camera was not allowed."
    assert following.startswith("Allow it in the browser’s address bar and try again")
    assert ways == ["Try again", "Show a sample", "Open a file …"]
    page.context.grant_permissions(["camera"])
    choose_way(page, "Try again")
    running(page)
    assert not page.locator("#trouble").is_visible()


def test_no_camera_and_the_sample_instead(demo_url: str):
    with headless.browser() as without_camera, demo_page.fresh_page(without_camera, permissions=["camera"]) as page:
        page.goto(f"{demo_url}?model=tiny_mask&source=camera")
        what, following, _ = trouble(page)
        assert what == "There is no camera here."
        assert following == "Connect one and try again, or use a sample, a picture or a video instead."
        choose_way(page, "Show a sample")
        running(page)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("NotReadableError", "The camera is in use by another program."),
        ("OverconstrainedError", "The camera that was chosen is gone."),
        ("AbortError", "The camera gave no picture."),
    ],
)
def test_what_a_camera_refuses_for(page: Page, demo_url: str, name: str, sentence: str):
    """These no browser can be brought to without a driver: the browser's refusal itself is put in its place."""
    refuse = f"() => Promise.reject(new DOMException('said so', '{name}'))"
    page.add_init_script(f"navigator.mediaDevices.getUserMedia = {refuse}")
    page.goto(f"{demo_url}?model=tiny_mask&source=camera")
    assert trouble(page)[0] == sentence


def test_a_camera_that_is_pulled_out(page: Page, demo_url: str):
    page.add_init_script(
        """const given = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (asked) => (globalThis.stream = await given(asked));"""
    )
    page.context.grant_permissions(["camera"])
    page.goto(f"{demo_url}?model=tiny_mask")
    running(page)
    # `stop()` fires no event; a device that is gone fires this one.
    page.evaluate("stream.getTracks().forEach((track) => (track.stop(), track.dispatchEvent(new Event('ended'))))")
    what, _, ways = trouble(page)
    assert what == "The camera was disconnected."
    assert ways == ["Use my camera", "Show a sample", "Open a file …"]
    choose_way(page, "Use my camera")
    page.locator("#trouble").wait_for(state="hidden")
    running(page)


# ---------------------------------------------------------------------------------------------------------- the files


def test_a_file_that_is_neither_picture_nor_video(page: Page, demo_url: str):
    text = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"hello"}
    page.goto(f"{demo_url}?model=tiny_mask")
    page.locator("#file").set_input_files(text)
    assert trouble(page)[0] == ("notes.txt cannot be read as a picture or a video. Try a PNG, JPEG, WebP, MP4 or WebM.")
    choose_way(page, "Show a sample")
    running(page)
    # With a picture to show, it stays, and the sentence is below it.
    page.locator("#file").set_input_files({"name": "broken.webm", "mimeType": "video/webm", "buffer": b"\x1a\x45"})
    page.locator("#notice", has_text="This browser cannot play broken.webm.").wait_for()
    assert not page.locator("#trouble").is_visible()


def test_files_that_are_no_bundle(page: Page, demo_url: str):
    page.goto(f"{demo_url}?model=tiny_mask&source=sample")
    running(page)
    page.evaluate(
        """() => {
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File(['x'], 'model.onnx'));
            dispatchEvent(new DragEvent('drop', { dataTransfer, cancelable: true }));
        }"""
    )
    page.locator("#notice", has_text="There is no manifest.json in it").wait_for()
    running(page)


def test_a_model_that_is_not_there_and_another_instead(page: Page, demo_url: str):
    page.route("**/tiny_mask/*.onnx", lambda route: route.fulfill(status=404))
    page.goto(f"{demo_url}?model=tiny_mask&source=sample")
    what, following, ways = trouble(page)
    assert what == f"{demo_url}models/tiny_mask/model_fp32.onnx answered 404."
    assert following.startswith("Check the connection and load the model again")
    assert ways == ["Try again", "Use the default model"]
    choose_way(page, "Use the default model")
    running(page)
    assert page.locator("#model").input_value() == "selfie"


def test_a_damaged_model_and_the_whole_one_at_the_next_attempt(page: Page, demo_url: str):
    broken = [True]

    def damage(route: Route) -> None:
        content = bytearray(route.fetch().body())
        content[len(content) // 2] ^= broken[0]
        route.fulfill(body=bytes(content))

    page.route("**/tiny_mask/*.onnx", damage)
    page.goto(f"{demo_url}?model=tiny_mask&source=sample")
    what, _, ways = trouble(page)
    assert "'model_fp32.onnx' is damaged: its SHA-256 is not the one in manifest.json." in what
    assert ways == ["Try again", "Use the default model"]
    broken[0] = False
    choose_way(page, "Try again")
    running(page)


def test_no_list_of_models(page: Page, demo_url: str):
    page.route("**/models.json", lambda route: route.fulfill(status=404))
    page.goto(demo_url)
    what, _, ways = trouble(page)
    assert what == "The list of models answered 404. Was the page deployed whole?"
    page.unroute("**/models.json")
    assert ways == ["Try again"]
    choose_way(page, "Try again")
    page.locator("#model option", has_text="selfie").wait_for(state="attached")
    assert page.locator("#start-camera").is_visible()


def test_an_engine_that_cannot_be_loaded(page: Page, demo_url: str):
    page.route("**/assets/worker-*.js", lambda route: route.fulfill(status=404))
    page.goto(f"{demo_url}?model=tiny_mask&source=sample")
    what, following, _ = trouble(page)
    assert what == "The engine stopped."
    assert following.startswith("The browser says: its file could not be loaded.")
    page.unroute("**/assets/worker-*.js")
    choose_way(page, "Start again")
    running(page)


# ---------------------------------------------------------------------------------------------------------- the device


def test_no_webgpu_where_it_was_asked_for_goes_on_without_it(page: Page, demo_url: str):
    page.goto(f"{demo_url}?model=tiny_mask&source=sample&step=webgpu-fp32")
    running(page)
    page.locator("#advanced summary").click()
    assert "this browser found no WebGPU adapter" in page.locator("#ladder").inner_text()
    assert "CPU alone" in page.locator("#ladder [aria-current]").inner_text()
    assert page.locator("#notice").inner_text() == (
        "‘GPU, float32’ cannot be had: this browser found no WebGPU adapter. It runs on ‘CPU alone’ instead."
    )


def test_a_precision_that_the_model_lacks_is_not_offered(page: Page, demo_url: str):
    page.goto(f"{demo_url}?model=tiny_mask&source=sample&precision=w4")
    running(page)
    assert page.locator("#precision option").all_text_contents() == ["Automatic", "fp32"]


def test_out_of_memory(demo_url: str):
    """WebAssembly gets a megabyte: what a phone does with too many tabs."""
    with (
        headless.browser("--js-flags=--wasm-max-mem-pages=16") as small,
        demo_page.fresh_page(small, service_workers="block") as page,
    ):
        page.goto(f"{demo_url}?model=tiny_mask&source=sample")
        what, following, ways = trouble(page)
        assert "memory" in what.lower()
        assert following == "Close other tabs, or choose a smaller model."
        assert ways == ["Start again", "Use the default model"]


def test_a_hidden_tab_computes_nothing_and_says_so(page: Page, demo_url: str):
    page.goto(f"{demo_url}?model=tiny_mask&source=sample")
    running(page)
    turn = """(state) => {
        Object.defineProperty(document, 'visibilityState', { get: () => state, configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    page.evaluate(turn, "hidden")
    page.locator("#status", has_text="Paused while this tab is hidden.").wait_for()
    still = demo_page.still(page)
    page.evaluate(turn, "visible")
    demo_page.until(page, lambda found: found["stats"]["shown"] > still)
    assert page.locator("#status").inner_text() == ""


def test_a_lost_gpu_comes_back_by_itself(demo_url: str):
    """The tiny network on WebGPU, and a small picture: a software adapter pays for each pixel."""
    with (
        demo_page.with_camera(gpu=True) as launched,
        demo_page.fresh_page(launched, permissions=["camera"], service_workers="block") as page,
    ):
        page.goto(f"{demo_url}?model=tiny_mask&step=webgpu-fp32")
        running(page)
        page.evaluate("backgroundBlur.loseDevice()")
        page.locator("#notice", has_text="The GPU was lost").wait_for(timeout=LOAD_MS)
        found = demo_page.until(
            page,
            lambda found: (
                found["deviceLosses"] == 1 and found["model"] is not None and (found["stats"] or {}).get("shown", 0) > 0
            ),
        )
        assert found["model"]["step"] == "webgpu-fp32"
        page.locator("#notice").wait_for(state="hidden", timeout=LOAD_MS)
        assert not page.locator("#trouble").is_visible()
