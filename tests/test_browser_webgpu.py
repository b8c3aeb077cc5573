"""The bundle's page and loader on WebGPU, on the software adapter that every machine has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

import web_bundles
from vitexport.contract import Bundle
from vitexport.preview import Site, serve

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

BLANK = {"/blank.html": b"<!doctype html><title>a page of one's own</title>"}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return web_bundles.whole("tiny")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with web_bundles.page(gpu=True) as page:
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
            const device = await (await navigator.gpu.requestAdapter()).requestDevice();
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
