"""How many WebAssembly threads a browser computes with: decided once a page, said as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

import headless
import web_bundles
from vitexport.contract import Site
from vitexport.serving import serve

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

BLANK = {"/blank.html": b"<!doctype html><title>a page of one's own</title>"}

REFUSED = (
    "UnavailableError: onnxruntime-web has 2 WebAssembly threads here already, and cannot be given 1. "
    "Load this model in a worker of its own, or leave options.threads out."
)

#: What `threads` of `info` says of one load after another, or why there is none.
LOAD = """async (wishes) => {
    const { load } = await import('./vitexport.js');
    const said = [];
    for (const wish of wishes) {
        const loaded = load('./', { provider: 'wasm', ...(wish && { threads: wish }) });
        said.push(await loaded.then(({ info }) => info.threads, ({ name, message }) => `${name}: ${message}`));
    }
    return said;
}"""


@pytest.fixture
def page() -> Iterator[Page]:
    """Isolated, so that threads can be had. WebAssembly starts once in it: no two tests share one."""
    bundle = web_bundles.whole("tiny", ("fp32",))
    with serve(Site(bundle.directory, pages=BLANK)) as url, headless.page() as page:
        page.goto(f"{url}blank.html")
        yield page


def test_the_first_load_decides_and_another_wish_is_refused(page: Page) -> None:
    assert page.evaluate(LOAD, [2, 1, 2, None]) == [2, REFUSED, 2, 2]
    assert len(page.workers) == 1  # beside the page's own thread


def test_of_two_wishes_at_once_one_is_kept(page: Page) -> None:
    script = f"(wishes) => Promise.all(wishes.map((wish) => ({LOAD})([wish])))"
    (one,), (other,) = page.evaluate(script, [2, 1])
    kept, refused = (one, other) if isinstance(one, int) else (other, one)
    assert kept in (1, 2)
    assert refused.startswith(f"UnavailableError: onnxruntime-web has {kept} WebAssembly thread")


def test_a_worker_has_threads_of_its_own(page: Page) -> None:
    assert page.evaluate(LOAD, [2]) == [2]
    script = """(load) => new Promise((resolve, reject) => {
        const source = `(${load})([1]).then(postMessage)`.replaceAll('./', new URL('./', location));
        const address = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
        const worker = new Worker(address, { type: 'module' });
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = ({ message }) => reject(new Error(message));
    })"""
    assert page.evaluate(script, LOAD) == [1]


def test_a_page_that_cannot_have_threads_says_one_however_many_are_wished_for(page: Page) -> None:
    page.route("**/alone.html", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    page.goto(page.url.replace("blank", "alone"))
    assert not page.evaluate("crossOriginIsolated")
    assert page.evaluate(LOAD, [4, 4, None]) == [1, 1, 1]


def test_what_the_page_told_its_own_runtime_stands(page: Page) -> None:
    script = """async (wish) => {
        const { load } = await import('./vitexport.js');
        const { runtime } = await (await fetch('./manifest.json')).json();
        const ort = await import(new URL(runtime.builds.wasm.module, document.baseURI));
        ort.env.wasm.numThreads = 2;
        const loaded = load('./', { ort, provider: 'wasm', threads: wish });
        return loaded.then(({ info }) => info.threads, ({ message }) => message);
    }"""
    refused: Any = page.evaluate(script, 1)
    assert refused == REFUSED.removeprefix("UnavailableError: ")
    assert page.evaluate(script, 2) == 2
