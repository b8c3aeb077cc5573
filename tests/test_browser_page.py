"""The bundle's page in a real browser: it takes its own exam, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headless
import web_bundles
from vitexport.contract import Bundle, Site
from vitexport.serving import serve

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return web_bundles.whole("tiny")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with headless.page() as page:
        yield page


def test_the_page_checks_itself_and_shows_the_golden_photos_answer(bundle: Bundle, page: Page) -> None:
    with serve(Site(bundle.directory)) as url:
        assert web_bundles.verdict(page, url) == (
            "passed",
            "This browser computes what PyTorch computes, on 2 photos.",
        )
        page.locator("#status", has_text="in the network").wait_for()
        facts = page.locator("#facts").inner_text()
        bars = page.locator(".bars li").count()
        choices = page.locator("#choices").text_content() or ""
        origin = page.locator("#origin").inner_text()
    assert "WebAssembly" in facts
    assert "not fp16 on webgpu: this browser found no WebGPU adapter" in facts
    assert bars == 5
    assert "fp32 on wasm: chosen, the first that can run here" in choices
    assert origin == "Weights: tests/models.py. Licence: Apache-2.0."


def test_a_picture_of_ones_own_is_answered(bundle: Bundle, page: Page) -> None:
    with serve(Site(bundle.directory)) as url:
        web_bundles.verdict(page, url)
        page.set_input_files("#file", bundle.path(bundle.rung.golden[1].photo))
        page.locator("#status", has_text="1.png").and_(page.locator(":has-text('in the network')")).wait_for()


def test_a_file_that_is_no_picture_gets_a_sentence(bundle: Bundle, page: Page) -> None:
    with serve(Site(bundle.directory)) as url:
        web_bundles.verdict(page, url)
        page.locator("#status", has_text="in the network").wait_for()
        page.set_input_files("#file", bundle.directory / "page.css")
        page.locator("#status", has_text="page.css cannot be read as a picture. Try a PNG").wait_for()


def test_a_mask_is_shown_as_a_composite(page: Page) -> None:
    with serve(Site(web_bundles.whole("tiny_mask", ("fp32",)).directory)) as url:
        assert web_bundles.verdict(page, url)[0] == "passed"
        page.locator("figcaption", has_text="Background blurred by the mask").wait_for()


def test_a_segmenters_person_is_shown_as_a_composite_too(page: Page) -> None:
    with serve(Site(web_bundles.whole("tiny_segmenter", ("fp32",)).directory)) as url:
        assert web_bundles.verdict(page, url)[0] == "passed"
        page.locator("figcaption", has_text="Background blurred by the mask").wait_for()
        page.locator("figcaption", has_text="Classes over the picture").wait_for()


def test_a_damaged_golden_file_fails(bundle: Bundle, page: Page, tmp_path: Path) -> None:
    path = bundle.rung.golden[0].outputs["logits"]
    damaged = web_bundles.changed(bundle, tmp_path, web_bundles.flip_a_bit(path, 3))
    with serve(Site(damaged.directory)) as url:
        assert web_bundles.verdict(page, url) == (
            "failed",
            f"'{path}' is damaged: its SHA-256 is not the one in manifest.json. Copy the bundle again.",
        )


def test_an_answer_that_is_not_pytorchs_fails(bundle: Bundle, page: Page, tmp_path: Path) -> None:
    path = bundle.rung.golden[0].outputs["logits"]
    wrong = web_bundles.changed(bundle, tmp_path, web_bundles.flip_a_bit(path, 2), rehash=True)
    with serve(Site(wrong.directory)) as url:
        verdict, reason = web_bundles.verdict(page, url)
    assert verdict == "failed"
    assert reason.startswith("Output 'logits' on 'astronaut' is off PyTorch's by ")
    assert reason.endswith("(drift; allowed: 0.0001).")


def test_a_damaged_model_byte_is_caught_by_its_hash(bundle: Bundle, page: Page, tmp_path: Path) -> None:
    damaged = web_bundles.changed(bundle, tmp_path, web_bundles.flip_a_bit("model_fp32.onnx", -20))
    with serve(Site(damaged.directory)) as url:
        verdict, reason = web_bundles.verdict(page, url)
    assert (verdict, reason) == (
        "failed",
        "'model_fp32.onnx' is damaged: its SHA-256 is not the one in manifest.json. Copy the bundle again.",
    )


def test_a_missing_file_is_named(bundle: Bundle, page: Page, tmp_path: Path) -> None:
    incomplete = web_bundles.changed(bundle, tmp_path, lambda folder: (folder / "model_fp32.onnx").unlink())
    with serve(Site(incomplete.directory)) as url:
        verdict, reason = web_bundles.verdict(page, url)
    assert (verdict, reason) == ("failed", f"{url}model_fp32.onnx answered 404. Is the bundle complete?")


def test_a_bundle_without_runtime_says_what_to_do(page: Page) -> None:
    with serve(Site(web_bundles.whole("tiny", ("fp32",), runtime="none").directory)) as url:
        verdict, reason = web_bundles.verdict(page, url)
    assert verdict == "failed"
    assert reason == (
        "This bundle carries no 'wasm' build of its runtime. Pass your own onnxruntime-web as options.ort, "
        "or export the model with --runtime copy."
    )


def test_the_page_reaches_no_other_origin(bundle: Bundle, page: Page) -> None:
    with serve(Site(bundle.directory)) as url:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        web_bundles.verdict(page, url)
    assert all(address.startswith((url, "blob:", "data:")) for address in asked)
