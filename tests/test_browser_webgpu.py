"""The bundle's page and loader on WebGPU, on the software adapter that every machine has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

import headless
import web_bundles
from vitexport.contract import Bundle, Site
from vitexport.serving import serve

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

BLANK = {"/blank.html": b"<!doctype html><title>a page of one's own</title>"}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return web_bundles.whole("tiny")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with headless.page(gpu=True) as page:
        yield page


@pytest.fixture(scope="module")
def elsewhere(bundle: Bundle, page: Page) -> Iterator[Page]:
    """A page that is not the bundle's, which has the bundle under another path."""
    with serve(Site(bundle.directory, {"/models/tiny/": bundle.directory}, BLANK)) as url:
        page.goto(f"{url}blank.html")
        yield page


def test_the_page_passes_on_webgpu_and_names_a_software_adapter_as_such(bundle: Bundle, page: Page) -> None:
    with serve(Site(bundle.directory)) as url:
        verdict, _ = web_bundles.verdict(page, url)
        facts = page.locator("#facts").inner_text()
    assert verdict == "passed"
    assert "WebGPU" in facts
    assert "jspi build" in facts
    assert "fp16 on webgpu: adapter has no shader-f16" in facts
    assert "software adapter, not a device figure" in facts


def check(page: Page, options: dict[str, str]) -> dict[str, Any]:
    """Load the bundle with ``options`` and let it take its exam."""
    result: dict[str, Any] = page.evaluate(
        """async (options) => {
            const { load } = await import('/models/tiny/vitexport.js');
            const model = await load('/models/tiny/', options);
            const { verdict, worst } = await model.selfCheck();
            const { build, provider, precision } = model.info;
            await model.dispose();
            return { verdict, worst, build, provider, precision };
        }""",
        options,
    )
    return result


def test_the_asyncify_build_is_joined_from_its_parts(elsewhere: Page) -> None:
    result = check(elsewhere, {"build": "asyncify"})
    assert (result["verdict"], result["build"], result["provider"]) == ("passed", "asyncify", "webgpu")
    assert result["worst"] < 1e-5


def test_a_device_of_the_pages_own_is_used_and_left_alone(elsewhere: Page) -> None:
    lost = elsewhere.evaluate(
        """async () => {
            const { load } = await import('/models/tiny/vitexport.js');
            const adapter = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' });
            const device = await adapter.requestDevice();
            const model = await load('/models/tiny/', { device, precision: 'fp32' });
            const { verdict } = await model.selfCheck();
            await model.dispose();
            const later = new Promise((resolve) => setTimeout(resolve, 300, false));
            const gone = await Promise.race([device.lost.then(() => true), later]);
            return { verdict, gone };
        }"""
    )
    assert lost == {"verdict": "passed", "gone": False}


def test_it_runs_in_a_worker(elsewhere: Page) -> None:
    """Module, WebAssembly, device and picture decoding: none of it needs a document."""
    source = """
        import { load } from '/models/tiny/vitexport.js';
        const model = await load('/models/tiny/', { provider: 'wasm' });
        const { verdict } = await model.selfCheck();
        postMessage({ verdict, provider: model.info.provider });
    """
    answer = elsewhere.evaluate(
        """(source) => new Promise((resolve, reject) => {
            const script = source.replaceAll("'/models", `'${location.origin}/models`);
            const address = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
            const worker = new Worker(address, { type: 'module' });
            worker.onmessage = ({ data }) => resolve(data);
            worker.onerror = ({ message }) => reject(new Error(message ?? 'the worker did not start'));
        })""",
        source,
    )
    assert answer == {"verdict": "passed", "provider": "wasm"}


def test_what_cannot_run_says_why(elsewhere: Page) -> None:
    message = elsewhere.evaluate(
        """async () => {
            const { load } = await import('/models/tiny/vitexport.js');
            return load('/models/tiny/', { precision: 'fp16', provider: 'webgpu' }).then(
                () => 'loaded', (error) => `${error.name}: ${error.message}`);
        }"""
    )
    assert message == "UnavailableError: fp16 on webgpu: adapter has no shader-f16"


def test_on_buffers_of_the_gpu_it_answers_the_same_and_reads_nothing_back(elsewhere: Page) -> None:
    """The second run allocates no buffer either."""
    answer = elsewhere.evaluate(
        """async () => {
            const { load } = await import('/models/tiny/vitexport.js');
            const adapter = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' });
            const device = await adapter.requestDevice();
            const model = await load('/models/tiny/', { device, precision: 'fp32' });
            const { input_shape: shape, outputs: [output] } = model.info.rung;
            const values = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.sin(i));
            const expected = [...(await model.runTensor(values)).outputs[output.name].data];
            const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
            const buffer = (length, usage) => device.createBuffer({ size: 4 * length, usage });
            const input = buffer(values.length, STORAGE | COPY_SRC | COPY_DST);
            const result = buffer(expected.length, STORAGE | COPY_SRC | COPY_DST);
            const staging = buffer(expected.length, MAP_READ | COPY_DST);
            const calls = { mapAsync: 0, createBuffer: 0 };
            for (const [type, name] of [[GPUBuffer, 'mapAsync'], [GPUDevice, 'createBuffer']]) {
                const original = type.prototype[name];
                type.prototype[name] = function (...rest) { calls[name]++; return original.apply(this, rest); };
            }
            device.queue.writeBuffer(input, 0, values);
            await model.runOnGpu(input, { [output.name]: result });
            calls.createBuffer = 0;
            await model.runOnGpu(input, { [output.name]: result });
            const onGpu = { ...calls };
            await model.runTensor(values);
            const encoder = device.createCommandEncoder();
            encoder.copyBufferToBuffer(result, 0, staging, 0, staging.size);
            device.queue.submit([encoder.finish()]);
            const planted = calls.mapAsync;
            await staging.mapAsync(GPUMapMode.READ);
            const actual = [...new Float32Array(staging.getMappedRange())];
            await model.dispose();
            return { expected, actual, onGpu, planted };
        }"""
    )
    assert answer["actual"] == answer["expected"]
    assert answer["onGpu"] == {"mapAsync": 0, "createBuffer": 0}
    assert answer["planted"] > 0, "a readback would have been counted"


def test_a_bundle_that_lies_on_no_server_is_loaded_from_what_the_page_has(elsewhere: Page) -> None:
    asked, check = elsewhere.evaluate(
        """async () => {
            const { load } = await import('/models/tiny/vitexport.js');
            const asked = [];
            const model = await load('https://nowhere.invalid/dropped/', {
                provider: 'wasm',
                runtime: { builds: (await (await fetch('/models/tiny/manifest.json')).json()).runtime.builds,
                           base: new URL('/models/tiny/', location.href) },
                fetch: ({ pathname }) => {
                    asked.push(pathname);
                    return fetch(pathname.replace('/dropped/', '/models/tiny/'));
                },
            });
            const check = await model.spotCheck();
            await model.dispose();
            return [asked, check];
        }"""
    )
    assert check["verdict"] == "passed", check
    assert check["worst"] <= check["tolerance"]
    # A spot check fetches the photo and the answer, and not the tensor that Python made of the photo.
    assert sorted(asked) == [
        "/dropped/golden/0.32x32.logits.f32",
        "/dropped/golden/0.png",
        "/dropped/manifest.json",
        "/dropped/model_fp32.onnx",
    ]
