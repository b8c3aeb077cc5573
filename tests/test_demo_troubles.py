"""What goes wrong with the demo's engine, brought about: it ends in a sentence and a way on, or is mended by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import demo_engine as engine
import web_bundles

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A tiny network, whole; and what can be wrong with its bundle."""
    whole = web_bundles.whole("tiny_mask")
    folder = tmp_path_factory.mktemp("bundles")

    def without(path: str) -> Any:
        return lambda copy: (copy / path).unlink()

    broken = {
        "damaged": web_bundles.changed(whole, _made(folder / "1"), web_bundles.flip_a_bit("model_fp32.onnx", 400)),
        "wrong": web_bundles.changed(
            whole, _made(folder / "2"), web_bundles.flip_a_bit("golden/0.24x32.mask.f32", 3), rehash=True
        ),
    }
    cut = web_bundles.changed(whole, _made(folder / "3"), without("model_fp32.onnx"))
    mounts = {f"/{name}/": each.directory for name, each in {"tiny": whole, **broken, "cut": cut}.items()}
    mounts["/classifier/"] = web_bundles.whole("tiny").directory
    with engine.engine_page(mounts) as page:
        page.evaluate("async () => { globalThis.engine = await import('/driver.js'); }")
        yield page


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def start(page: Page, *faults: str) -> None:
    page.evaluate(
        """([look, faults]) => {
            globalThis.driver?.close();
            globalThis.driver = new engine.Driver(look, faults);
        }""",
        [engine.LOOK, list(faults)],
    )


def load(page: Page, model: str, **wishes: Any) -> dict[str, Any]:
    """The ``model`` notice."""
    answer: dict[str, Any] = page.evaluate("([url, wishes]) => driver.load(url, wishes)", [f"/{model}/", wishes])
    return answer


def trouble(page: Page, model: str, **wishes: Any) -> dict[str, Any]:
    answer: dict[str, Any] = page.evaluate(
        """async ([url, wishes]) => {
            const trouble = driver.trouble();
            driver.post({ type: 'model', model: { from: 'url', url }, wishes });
            return trouble;
        }""",
        [f"/{model}/", wishes],
    )
    assert answer["sentence"].endswith(".")
    assert answer["wayOn"].endswith(".")
    assert not answer["recovers"]
    return answer


def reasons(notice: dict[str, Any]) -> dict[str, str]:
    return {each["step"]: each["reason"] for each in notice["steps"]}


def test_a_model_that_is_missing_damaged_or_no_segmenter_is_told_and_the_next_one_runs(page: Page) -> None:
    start(page)
    assert trouble(page, "nowhere")["code"] == "model-missing"
    cut = trouble(page, "cut", step="wasm-2d")
    assert (cut["code"], "404" in cut["sentence"]) == ("model-missing", True)
    damaged = trouble(page, "damaged", step="wasm-2d", precision="fp32")
    assert damaged["code"] == "model-damaged"
    assert "SHA-256" in damaged["sentence"]
    assert trouble(page, "classifier")["code"] == "model-unsuited"
    assert load(page, "tiny")["facts"]["step"] == "wasm-2d"


def test_a_step_that_computes_something_else_than_pytorch_is_not_used(page: Page) -> None:
    """The golden answer is another: so is every step's."""
    start(page)
    wrong = trouble(page, "wrong", step="webgpu-fp32")
    assert wrong["code"] == "no-step"
    for step in ("webgpu-fp32", "wasm-2d"):
        assert f"{step}: it computes something else here than PyTorch did" in wrong["sentence"]


def test_the_measured_budget_decides(page: Page) -> None:
    """The software adapter passes for a real one: too slow for a camera, quick enough for whoever has a minute."""
    start(page, "hardware")
    strict = load(page, "tiny", budgetMs=1)
    chosen = {each["step"]: each for each in strict["steps"]}
    assert chosen["webgpu-fp16"]["reason"] == "the adapter has no shader-f16"
    measured = {step: each["medianMs"] for step, each in chosen.items() if step != "webgpu-fp16"}
    assert all(ms > 1 for ms in measured.values())
    assert strict["facts"]["step"] == min(measured, key=lambda step: measured[step])
    assert "no step is quicker" in chosen[strict["facts"]["step"]]["reason"]

    patient = load(page, "tiny", budgetMs=60_000)
    assert patient["facts"]["step"] == "webgpu-fp32"
    assert "keeps the budget of 60000 ms" in reasons(patient)["webgpu-fp32"]
    assert reasons(patient)["wasm-2d"] == "not needed: an earlier step keeps the budget"


def test_a_step_that_opens_and_shows_no_frame_is_left_with_all_that_it_held(page: Page) -> None:
    start(page, "hardware", "no-upload")
    notice = load(page, "tiny")
    assert notice["facts"]["step"] == "wasm-2d"
    assert {reasons(notice)[step] for step in ("webgpu-fp32", "wasm-gpu")} == {"This picture cannot be copied"}
    counts = page.evaluate("driver.counts()")
    assert counts["created"] == counts["destroyed"] > 0


def test_without_an_adapter_it_runs_on_a_2d_canvas_and_says_why(page: Page) -> None:
    start(page, "no-adapter")
    notice = load(page, "tiny")
    assert notice["facts"]["step"] == "wasm-2d"
    assert reasons(notice)["webgpu-fp32"] == "this browser found no WebGPU adapter"
    page.evaluate("(png) => driver.still(png).then(() => driver.next('stats'))", engine.png(IMAGE))


def test_a_lost_device_comes_back_and_one_that_is_lost_again_and_again_is_left_alone(page: Page) -> None:
    start(page)
    load(page, "tiny", step="webgpu-fp32")

    def lose() -> dict[str, Any]:
        """What the engine says, and what it runs on afterwards."""
        answer: dict[str, Any] = page.evaluate(
            """async () => {
                const trouble = driver.trouble();
                const model = driver.next('model');
                driver.post({ type: 'lose-device' });
                return { trouble: await trouble, step: (await model).facts.step };
            }"""
        )
        assert answer["trouble"]["code"] == "device-lost"
        assert answer["trouble"]["recovers"]
        return answer

    page.evaluate("driver.frames(2, 64, 48)")
    assert lose()["step"] == "webgpu-fp32"
    page.evaluate("driver.frames(3, 64, 48)")
    before = page.evaluate("driver.pixels()")
    assert lose()["step"] == "webgpu-fp32"
    page.evaluate("() => void (globalThis.wanted = driver.next('canvas-wanted'))")
    assert lose()["step"] == "wasm-2d"
    # A canvas that WebGPU has drawn on has no 2-D context: the page puts another in its place.
    page.evaluate("wanted.then(() => driver.freshCanvas())")
    page.evaluate("driver.frames(3, 64, 48)")
    report = page.evaluate("driver.report()")
    assert report["deviceLosses"] == 3
    assert reasons(report)["webgpu-fp32"] == "the GPU was lost 3 times"
    assert page.evaluate("driver.pixels()") != before, "it shows something, and draws it otherwise"


def test_a_gpu_without_memory_is_done_without(page: Page) -> None:
    start(page, "gpu-memory")
    load(page, "tiny", step="webgpu-fp32")
    answer = page.evaluate(
        """async (png) => {
            const [trouble, model, wanted] = [driver.trouble(), driver.next('model'), driver.next('canvas-wanted')];
            await driver.still(png);
            const said = await trouble;
            const { facts } = await model;
            await wanted;
            driver.freshCanvas();
            await driver.next('stats');
            return { ...said, step: facts.step };
        }""",
        engine.png(IMAGE),
    )
    assert (answer["code"], answer["recovers"], answer["step"]) == ("out-of-memory", True, "wasm-2d")


def test_webassembly_without_memory_is_told(page: Page) -> None:
    start(page, "wasm-memory")
    assert trouble(page, "tiny")["code"] == "out-of-memory"


def test_a_hidden_page_computes_nothing_and_goes_on_when_it_is_seen(page: Page) -> None:
    start(page)
    load(page, "tiny", step="wasm-2d")
    shown, hidden, again = page.evaluate(
        """async () => {
            const shown = async () => (await driver.report()).stats?.shown ?? 0;
            await driver.frames(2, 64, 48);
            const first = await shown();
            const paused = driver.phase('paused');
            driver.post({ type: 'visible', visible: false });
            await paused;
            const context = new OffscreenCanvas(64, 48).getContext('2d');
            for (let i = 0; i < 5; i++) {
                const frame = new VideoFrame(context.canvas, { timestamp: i });
                driver.post({ type: 'frame', frame, timestampUs: i }, [frame]);
            }
            await new Promise((resolve) => setTimeout(resolve, 300));
            const still = await shown();
            driver.post({ type: 'visible', visible: true });
            await driver.frames(2, 64, 48);
            return [first, still, await shown()];
        }"""
    )
    assert (shown, hidden, again) == (2, 2, 4)


def test_a_stream_that_ends_is_told(page: Page) -> None:
    start(page)
    load(page, "tiny", step="wasm-2d")
    answer = page.evaluate(
        """async () => {
            const trouble = driver.trouble();
            const frames = new ReadableStream({ start: (controller) => controller.close() });
            driver.post({ type: 'source', source: { from: 'stream', frames } }, [frames]);
            return trouble;
        }"""
    )
    assert answer["code"] == "source-ended"
