"""The demo page as a visitor has it: the real engine and MediaPipe's real network, in a browser without a GPU."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as PILImage

import demo_page
import web_bundles
from demo_page import LOAD_MS, report, running, until
from vitexport.contract import Site
from vitexport.serving import serve

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from playwright.sync_api import Browser, Page

    Picture = NDArray[np.float32]

pytestmark = pytest.mark.browser

MODES = ("blur", "picture", "colour", "mask", "off")

#: Parts of the sample's first frame, as shares of its height and width: her face, and the wall beside her.
FACE = (slice(0.28, 0.42), slice(0.38, 0.5))
WALL = (slice(0.05, 0.25), slice(0.62, 0.75))

#: Of 255. The browser scales the canvas for the screen, and photographs it; two such pictures of one frame differ by
#: less than one level.
SAME = 2.0

#: Pixels of the screen: the radius of the stage's corners, and its fraction of a pixel.
CORNER = 16

WATCH = "() => self.addEventListener('securitypolicyviolation', (event) => (self.blocked = event.effectiveDirective))"
ATTEMPT = "() => fetch('https://example.com/').then(() => 'reached', (error) => String(error))"


@pytest.fixture(scope="module")
def still(chromium: Browser, demo_url: str) -> Iterator[Page]:
    """The sample, which holds still for visitors who want that."""
    with demo_page.fresh_page(chromium, reduced_motion="reduce", viewport={"width": 1280, "height": 900}) as page:
        page.goto(f"{demo_url}?source=sample")
        running(page)
        yield page


def named(page: Page, model: str) -> dict[str, Any]:
    """A report once this model runs."""
    return until(page, lambda found: found["model"] is not None and found["model"]["name"] == model)


def shown(page: Page) -> Picture:
    """What is on the screen, (h, w, 3) 0..255, its rounded corners aside, once nothing has been drawn for a while."""
    demo_page.still(page)
    return photographed(page)


def photographed(page: Page) -> Picture:
    content = page.locator("#pictures canvas").screenshot()
    return np.asarray(PILImage.open(io.BytesIO(content)).convert("RGB"), np.float32)[CORNER:-CORNER, CORNER:-CORNER]


def part(picture: Picture, where: tuple[slice, slice]) -> Picture:
    height, width = picture.shape[:2]
    rows, columns = where
    return picture[
        round(rows.start * height) : round(rows.stop * height),
        round(columns.start * width) : round(columns.stop * width),
    ]


def apart(a: Picture, b: Picture) -> float:
    return float(np.abs(a - b).mean())


def choose(page: Page, mode: str) -> Picture:
    page.locator(f"input[name=mode][value={mode}]").check(force=True)
    return shown(page)


# ------------------------------------------------------------------------------------------------------- what it does


def test_a_camera_that_is_allowed_is_blurred_without_a_click(chromium: Browser, demo_url: str):
    with demo_page.fresh_page(chromium, permissions=["camera"]) as page:
        page.goto(demo_url)
        running(page)
        assert page.locator("#source-name").inner_text().endswith("clip.y4m")
        assert page.locator("#mirror").is_checked()
        page.locator("#pace", has_text="fps").wait_for()
        picture = photographed(page)
    # Her suit's orange, in the middle below.
    red, green, blue = part(picture, (slice(0.8, 0.95), slice(0.4, 0.6))).mean((0, 1))
    assert red > green > blue


def test_off_shows_the_picture_and_blur_leaves_her_alone_and_takes_detail_from_the_wall(still: Page):
    off, blur = choose(still, "off"), choose(still, "blur")
    assert apart(part(off, FACE), part(blur, FACE)) < SAME
    rocket = (slice(0.1, 0.5), slice(0.8, 0.95))
    detail = [np.abs(np.diff(part(picture, rocket), axis=1)).mean() for picture in (off, blur)]
    assert detail[1] < detail[0] / 2


def test_strength_zero_is_the_picture_as_it_is(still: Page):
    off = choose(still, "off")
    choose(still, "blur")
    still.locator("#strength").fill("0")
    assert apart(shown(still), off) < SAME
    still.locator("#strength").fill("0.5")


def test_a_colour_is_behind_her(still: Page):
    off = choose(still, "off")
    choose(still, "colour")
    still.locator("#colour").fill("#0000ff")
    picture = shown(still)
    assert apart(part(picture, WALL), np.float32([0, 0, 255])) < SAME
    assert apart(part(picture, FACE), part(off, FACE)) < SAME


def test_a_picture_is_behind_her_one_of_ours_or_ones_own(still: Page, tmp_path: Path):
    off, ours = choose(still, "off"), choose(still, "picture")
    assert apart(part(ours, WALL), part(off, WALL)) > 10
    assert apart(part(ours, FACE), part(off, FACE)) < SAME
    PILImage.new("RGB", (64, 48), (255, 0, 0)).save(tmp_path / "red.png")
    still.locator("#backdrop-file").set_input_files(tmp_path / "red.png")
    own = shown(still)
    assert apart(part(own, WALL), np.float32([255, 0, 0])) < SAME


def test_the_mask_is_white_where_she_is_and_black_where_she_is_not(still: Page):
    mask = choose(still, "mask")
    assert part(mask, FACE).min() > 240
    assert part(mask, WALL).max() < 15
    assert still.locator("#pictures canvas").get_attribute("aria-label") == "The mask: white is the person"


def test_before_and_after_is_moved_by_keys_and_shows_both(still: Page):
    off, mask = choose(still, "off"), choose(still, "mask")
    still.locator("#comparing").check()
    line = still.get_by_role("slider", name="Before and after")
    line.focus()
    for key, expected in (("End", 100), ("Home", 0), ("PageUp", 10), ("ArrowRight", 12), ("ArrowLeft", 10)):
        line.press(key)
        assert line.get_attribute("aria-valuenow") == str(expected)
    for _ in range(4):
        line.press("PageUp")
    still.evaluate("document.querySelector('#compare').style.opacity = 0")
    both = shown(still)
    half = both.shape[1] // 2
    # But for five pixels on both sides of the line: the canvas is scaled.
    assert apart(both[:, : half - 5], off[:, : half - 5]) < SAME
    assert apart(both[:, half + 5 :], mask[:, half + 5 :]) < SAME
    still.evaluate("document.querySelector('#compare').style.opacity = 1")
    box = line.bounding_box()
    assert box is not None
    still.mouse.click(box["x"] + box["width"] / 4, box["y"] + 20)
    assert line.get_attribute("aria-valuenow") == "25"
    still.locator("#comparing").uncheck()
    assert not line.is_visible()


def test_mirror_turns_left_and_right(still: Page):
    mask = choose(still, "mask")
    still.locator("#mirror").check()
    assert apart(shown(still)[:, ::-1], mask) < SAME
    still.locator("#mirror").uncheck()


def test_pictures_come_by_choosing_and_by_pasting(chromium: Browser, demo_url: str, tmp_path: Path):
    PILImage.new("RGB", (120, 80), (10, 200, 30)).save(tmp_path / "green.png")
    with demo_page.fresh_page(chromium) as page:
        page.goto(f"{demo_url}?model=tiny_mask")
        page.locator("#file").set_input_files(tmp_path / "green.png")
        running(page)
        assert page.locator("#source-name").inner_text() == "green.png"
        assert apart(choose(page, "off"), np.float32([10, 200, 30])) < SAME
        page.evaluate(
            """async () => {
                const canvas = new OffscreenCanvas(80, 60);
                canvas.getContext('2d').fillRect(0, 0, 80, 60);
                const file = new File([await canvas.convertToBlob()], 'pasted.png', { type: 'image/png' });
                const clipboardData = new DataTransfer();
                clipboardData.items.add(file);
                dispatchEvent(new ClipboardEvent('paste', { clipboardData }));
            }"""
        )
        page.locator("#source-name", has_text="pasted.png").wait_for()
        assert shown(page).max() < SAME


def test_a_recording_is_a_video_that_the_page_itself_opens(chromium: Browser, demo_url: str, tmp_path: Path):
    with demo_page.fresh_page(chromium, permissions=["camera"]) as page:
        page.goto(f"{demo_url}?model=tiny_mask")
        running(page)
        page.locator("#record").click()
        page.locator("#record[aria-pressed=true]").wait_for()
        page.wait_for_timeout(1500)
        with page.expect_download() as download:
            page.locator("#record").click()
        assert download.value.suggested_filename == "background-blur.webm"
        download.value.save_as(tmp_path / "clip.webm")
        page.locator("#file").set_input_files(tmp_path / "clip.webm")
        page.locator("#source-name", has_text="clip.webm").wait_for()
        until(page, lambda found: found["page"]["source"] == "video" and (found["stats"] or {}).get("shown", 0) > 2)


def test_a_track_for_calls_carries_frames(chromium: Browser, demo_url: str):
    with demo_page.fresh_page(chromium, permissions=["camera"]) as page:
        page.goto(f"{demo_url}?model=tiny_mask")
        running(page)
        size = page.evaluate(
            """async () => {
                const video = document.createElement('video');
                video.muted = true;
                video.srcObject = new MediaStream([await backgroundBlur.track()]);
                await video.play();
                await new Promise((resolve) => video.requestVideoFrameCallback(resolve));
                return [video.videoWidth, video.videoHeight];
            }"""
        )
    assert tuple(size) == demo_page.CLIP_SIZE


def test_frames_that_come_too_fast_are_dropped_and_never_queued(chromium: Browser, demo_url: str):
    flood = """const every = setInterval;
        globalThis.setInterval = (work) => every(work, 1);
        globalThis.pushed = 0;
        const post = Worker.prototype.postMessage;
        Worker.prototype.postMessage = function (message, transfer) {
            globalThis.pushed += message.type === 'frame';
            return post.call(this, message, transfer);
        };"""
    with demo_page.fresh_page(chromium, service_workers="block") as page:
        page.add_init_script(flood)
        page.goto(f"{demo_url}?source=sample&model=tiny_mask")
        running(page)
        until(page, lambda found: found["page"]["droppedFrames"] > 100)  # they do come too fast
        for _ in range(2):
            page.wait_for_timeout(1000)
            sent = page.evaluate("pushed")
            stats = report(page)["stats"]  # later, when no fewer are done
            assert sent - stats["shown"] - stats["dropped"] <= 2, "one on its way, and one that waits in the engine"


def test_a_still_is_saved_as_it_is_shown(still: Page):
    choose(still, "colour")
    still.locator("#colour").fill("#00ff00")
    shown(still)
    with still.expect_download() as download:
        still.locator("#still").click()
    saved = np.asarray(PILImage.open(download.value.path()).convert("RGB"), np.float32)
    assert saved.shape[:2] == (480, 640)
    assert apart(part(saved, WALL), np.float32([0, 255, 0])) < SAME


# ------------------------------------------------------------------------------------------------ models, instruments


def test_models_are_those_that_are_listed_and_a_licence_is_shown(chromium: Browser, demo_url: str):
    listed = json.loads((demo_page.built()[0] / "models" / "models.json").read_text())
    listed["models"][1] |= {"id": "other", "licence": "NVIDIA Source Code License (non-commercial)"}
    with demo_page.fresh_page(chromium, service_workers="block") as page:
        page.route("**/models.json", lambda route: route.fulfill(json=listed))
        page.goto(demo_url)
        page.locator("#model option").first.wait_for(state="attached")
        offered = page.locator("#model option").all_text_contents()
        page.locator("#advanced summary").click()
        assert page.locator("#licence").inner_text().startswith("Licence: Apache-2.0. Weights: npm @mediapipe")
        page.locator("#model").select_option("other")
        assert page.locator("#licence strong").inner_text() == "Not for commercial use."
    assert [text.split(" · ")[0] for text in offered] == ["selfie", "other"]


def test_a_bundle_of_ones_own_runs_and_one_without_a_person_is_refused(chromium: Browser, demo_url: str):
    ours = web_bundles.whole("tiny_mask", ("fp32",)).directory
    without = web_bundles.whole("tiny", ("fp32",), runtime="none").directory
    with demo_page.fresh_page(chromium) as page:
        page.goto(f"{demo_url}?source=sample")
        running(page)
        page.locator("#advanced summary").click()
        page.locator("#bundle").set_input_files(ours)
        named(page, "tiny_mask")
        assert page.locator("#model option:checked").text_content() == "tiny_mask (yours)"
        page.locator("#bundle").set_input_files(without)
        trouble = page.locator("#trouble", has_text="no output with a person in it")
        trouble.get_by_role("button", name="Use the default model").click()
        named(page, "selfie")


def test_precision_and_step_can_be_chosen_and_the_ladder_says_why(chromium: Browser, demo_url: str):
    with demo_page.fresh_page(chromium) as page:
        page.goto(f"{demo_url}?source=sample&step=wasm-2d&precision=fp32")
        running(page)
        page.locator("#advanced summary").click()
        chosen = page.locator("#ladder [aria-current]").inner_text()
        assert "CPU alone" in chosen
        assert "asked for" in chosen
        assert page.locator("#step").input_value() == "wasm-2d"
        page.locator("#step").select_option("")
        page.locator("#ladder", has_text="this browser found no WebGPU adapter").wait_for(timeout=LOAD_MS)


def test_the_instruments_split_the_cold_start_and_the_report_says_all_of_it(chromium: Browser, demo_url: str):
    with demo_page.fresh_page(chromium, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.goto(f"{demo_url}?source=sample")
        running(page)
        page.locator("#instruments summary").click()
        page.locator("#stages tbody tr").first.wait_for(timeout=LOAD_MS)
        figures = dict(
            zip(
                page.locator("#figures dt").all_inner_texts(),
                page.locator("#figures dd").all_inner_texts(),
                strict=True,
            )
        )
        page.locator("#copy").click()
        page.locator("#status", has_text="The report is on the clipboard.").wait_for()
        report: dict[str, Any] = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert figures["Runs on"] == "CPU alone"
    assert figures["GPU"] == "none"
    assert {"Frames a second", "Dropped", "Download", "Compile", "First frame", "Model", "Self-check"} < set(figures)
    assert report["model"]["provider"] == "wasm"
    assert report["cold"]["downloadMs"] > 0
    assert report["cold"]["compileMs"] > 0
    assert report["cold"]["firstFrameMs"] > 0
    # WebAssembly's own build of the runtime, and the model; nothing here is compressed.
    assert 14e6 < report["cold"]["downloadedBytes"] < 18e6
    assert report["page"]["crossOriginIsolated"] is True
    assert report["stats"]["stages"]["medianMs"]["inference"] > 0


def test_a_visit_fetches_one_build_of_the_runtime_and_one_variant_of_one_model(chromium: Browser, demo_url: str):
    with demo_page.fresh_page(chromium, service_workers="block") as page:
        asked: list[str] = []
        page.context.on("request", lambda request: asked.append(request.url.removeprefix(demo_url)))
        page.goto(f"{demo_url}?source=sample")
        running(page)
    # Threads of WebAssembly ask for the same files again, from the browser's cache.
    of = {end: {path for path in asked if path.endswith(end)} for end in (".mjs", ".wasm", ".onnx")}
    assert of[".mjs"] == {"models/runtime/ort.wasm.bundle.min.mjs"}
    assert of[".wasm"] == {"models/runtime/ort-wasm-simd-threaded.wasm"}
    assert of[".onnx"] == {"models/selfie/model_fp32.onnx"}
    assert not [path for path in asked if "tiny_mask" in path]


def test_the_benchmark_runs_a_fixed_clip_and_prints_its_quantiles(chromium: Browser, demo_url: str):
    with demo_page.fresh_page(chromium) as page:
        page.goto(f"{demo_url}?bench=12&model=tiny_mask")
        page.locator("body[data-bench=done]").wait_for(timeout=LOAD_MS)
        status, printed = page.locator("#bench-status").inner_text(), page.locator("#bench-report").inner_text()
    assert status.startswith("12 frames: p50 ")
    table, _, result = printed.partition("\n\n")
    assert table.splitlines()[0].split() == ["stage", "(wall)", "p50", "ms", "p90", "ms"]
    assert {"inference", "composite"} <= {line.split()[0] for line in table.splitlines()[1:]}
    times = json.loads(result)
    assert len(times["frameMs"]["all"]) == 12
    assert 0 < times["frameMs"]["p50"] <= times["frameMs"]["p90"]


# ------------------------------------------------------------------------------------------- deployment and isolation


def test_it_runs_below_any_path_of_a_host_that_sends_no_policy(chromium: Browser):
    mounts = {"/deep/er/": demo_page.built()[0]}
    with serve(Site(demo_page.public(), mounts)) as host, demo_page.fresh_page(chromium) as page:
        page.goto(f"{host}deep/er/index.html?source=sample&model=tiny_mask")
        running(page)


def test_the_policy_lets_neither_page_nor_worker_reach_another_host(chromium: Browser, demo_url: str):
    with demo_page.fresh_page(chromium) as page:
        page.goto(f"{demo_url}?source=sample&model=tiny_mask")
        running(page)
        page.evaluate(WATCH)
        assert "Failed to fetch" in page.evaluate(ATTEMPT)
        page.wait_for_function("self.blocked === 'connect-src'")
        engine = next(worker for worker in page.workers if "/assets/worker-" in worker.url)
        engine.evaluate(WATCH)
        assert "Failed to fetch" in engine.evaluate(ATTEMPT)
        assert (
            engine.evaluate("() => new Promise((done) => setTimeout(() => done(self.blocked), 200))") == "connect-src"
        )


def test_nothing_is_asked_of_another_host(chromium: Browser, demo_url: str):
    with demo_page.fresh_page(chromium, permissions=["camera"]) as page:
        asked: list[str] = []
        page.context.on("request", lambda request: asked.append(request.url))
        page.goto(f"{demo_url}?model=tiny_mask")
        running(page)
    assert len(asked) > 8
    assert all(address.startswith((demo_url, "blob:", "data:")) for address in asked)


def test_the_second_visit_needs_no_network(chromium: Browser, demo_url: str):
    with demo_page.fresh_page(chromium) as page:
        page.goto(f"{demo_url}?source=sample")
        running(page)
        page.locator("#kept").wait_for(timeout=LOAD_MS)
        page.context.set_offline(True)
        page.goto(f"{demo_url}?source=sample&again")
        running(page)
        assert page.evaluate("navigator.serviceWorker.controller !== null")
        assert page.evaluate("crossOriginIsolated")
