"""The page for everybody: axe finds nothing, keys reach everything, it fits a phone, and moves where one likes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import demo_page
from demo_page import report, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

AXE = (demo_page.DEMO / "node_modules" / "axe-core" / "axe.min.js").read_text()
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


def violations(page: Page) -> list[str]:
    """All of axe's rules, best practices too: each as the rule, and what breaks it."""
    page.evaluate(f"() => {{ {AXE} }}")
    # A colour that is on its way to another has no contrast to judge.
    page.wait_for_timeout(500)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [f"{rule['id']}: {node['html']}" for rule in found["violations"] for node in rule["nodes"]]


@pytest.mark.parametrize(("scheme", "viewport"), [("light", DESKTOP), ("dark", PHONE)], ids=["light", "dark"])
def test_axe_finds_nothing_before_during_and_after_a_trouble(
    chromium: Browser, demo_url: str, scheme: str, viewport: dict[str, int]
):
    with demo_page.fresh_page(chromium, color_scheme=scheme, viewport=viewport) as page:
        page.goto(f"{demo_url}?model=tiny_mask")
        page.locator("#welcome").wait_for()
        assert violations(page) == []
        page.locator("#start-sample").click()
        running(page)
        page.locator("#comparing").check()
        page.locator("#advanced summary").click()
        page.locator("#instruments summary").click()
        page.locator("#stages tbody tr").first.wait_for(timeout=demo_page.LOAD_MS)
        for mode in ("picture", "colour", "blur"):
            page.locator(f"input[name=mode][value={mode}]").check(force=True)
            assert violations(page) == []
        page.locator("#camera").click()
        page.locator("#trouble").wait_for()
        assert violations(page) == []


def test_axe_is_not_deaf(chromium: Browser, demo_url: str):
    with demo_page.fresh_page(chromium) as page:
        page.goto(f"{demo_url}?model=tiny_mask")
        page.locator("#welcome").wait_for()
        page.evaluate("document.querySelector('label[for=strength]').remove()")
        assert any(line.startswith("label: ") for line in violations(page))


def test_everything_is_reached_and_worked_by_keys(chromium: Browser, demo_url: str):
    with demo_page.fresh_page(chromium) as page:
        page.goto(f"{demo_url}?model=tiny_mask")
        page.locator("#welcome").wait_for()
        focused = "(document.activeElement.id || document.activeElement.className || document.activeElement.tagName)"
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "skip"
        assert page.locator(".skip").bounding_box()["y"] >= 0  # type: ignore[index]
        for _ in range(2):
            page.keyboard.press("Tab")
        assert page.evaluate(focused) == "start-camera"
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        running(page)
        reached = []
        for _ in range(20):
            page.keyboard.press("Tab")
            reached.append(page.evaluate(focused))
        order = ["strength", "comparing", "mirror", "camera", "sample", "file", "record", "still"]
        assert [name for name in reached if name in order][: len(order)] == order
        page.locator("input[name=mode][value=blur]").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("input[name=mode]:checked").input_value() == "picture"
        assert demo_page.until(page, lambda found: found["look"]["mode"] == "picture")
        page.locator("#comparing").focus()
        page.keyboard.press("Space")
        assert page.get_by_role("slider", name="Before and after").is_visible()
        page.locator("#advanced summary").focus()
        page.keyboard.press("Enter")
        assert page.locator("#model").is_visible()


@pytest.mark.parametrize("viewport", [PHONE, {"width": 320, "height": 568}], ids=["360", "320"])
def test_nothing_is_wider_than_a_phone(chromium: Browser, demo_url: str, viewport: dict[str, int]):
    with demo_page.fresh_page(chromium, viewport=viewport, has_touch=True, is_mobile=True) as page:
        page.goto(f"{demo_url}?model=tiny_mask")
        page.locator("#welcome").wait_for()
        fits = "document.documentElement.scrollWidth <= innerWidth"
        assert page.evaluate(fits)
        page.locator("#start-sample").click()
        running(page)
        page.locator("#advanced summary").click()
        page.locator("#instruments summary").click()
        page.locator("#figures dt").first.wait_for(timeout=demo_page.LOAD_MS)
        assert page.evaluate(fits)


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_the_sample_holds_still_for_those_who_want_it_and_moves_for_others(
    chromium: Browser, demo_url: str, motion: str
):
    with demo_page.fresh_page(chromium, reduced_motion=motion) as page:
        page.goto(f"{demo_url}?model=tiny_mask&source=sample")
        running(page)
        if motion == "no-preference":
            first = report(page)["stats"]["shown"]
            demo_page.until(page, lambda found: found["stats"]["shown"] > first + 2)
            return
        still = demo_page.still(page)
        page.wait_for_timeout(1000)
        assert report(page)["stats"]["shown"] == still


def test_what_the_page_does_is_said_aloud(chromium: Browser, demo_url: str):
    with demo_page.fresh_page(chromium, service_workers="block") as page:
        page.add_init_script(
            """addEventListener('DOMContentLoaded', () => {
                globalThis.said = [];
                const line = document.querySelector('#status');
                new MutationObserver(() => said.push(line.textContent)).observe(line, { childList: true });
            });"""
        )
        page.goto(f"{demo_url}?model=tiny_mask&source=sample")
        running(page)
        said = page.evaluate("said")
        assert page.locator("#status").get_attribute("aria-live") == "polite"
        assert page.locator("#trouble").get_attribute("role") == "alert"
    assert any(sentence.startswith("Loading the network") for sentence in said)
    assert "Checking that it computes what it should …" in said
    assert said[-1] == ""
