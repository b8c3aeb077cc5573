"""Photograph the demo page for its README: python tests/demo_screenshots.py. A person looks at them, and then commits.

With the models of ``web-demo/public``, in a browser without a GPU: what is shown is the page and its network's masks.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image as PILImage

import demo_page
import headless

if TYPE_CHECKING:
    from playwright.sync_api import Browser

INTO = demo_page.DEMO / "screenshots"
DESKTOP, PHONE = {"width": 1180, "height": 760}, {"width": 390, "height": 844}

#: Of one picture, for the table of modes.
MODE_WIDTH = 320


def main() -> None:
    INTO.mkdir(exist_ok=True)
    built = demo_page.build(demo_page.DEMO / "public")
    assert built.returncode == 0, built.stdout + built.stderr
    with demo_page.served(demo_page.DEMO / "public-dist") as url, headless.browser() as chromium:
        _shoot_modes(chromium, url)
        for name, viewport, scheme, opened in (
            ("desktop-light", DESKTOP, "light", ()),
            ("desktop-dark", DESKTOP, "dark", ("advanced", "instruments")),
            ("phone-light", PHONE, "light", ()),
            ("phone-dark", PHONE, "dark", ()),
        ):
            _shoot_page(chromium, url, name, viewport, scheme, opened)
        with demo_page.fresh_page(chromium, viewport=PHONE, color_scheme="light") as page:
            page.goto(url)
            page.locator("#status", has_text="Ready.").wait_for(timeout=demo_page.LOAD_MS)
            _save("phone-welcome", page.screenshot())
        with demo_page.fresh_page(chromium, viewport=DESKTOP, color_scheme="light") as page:
            page.goto(f"{url}?source=camera")
            page.locator("#trouble").wait_for()
            _save("trouble", page.screenshot())


def _shoot_modes(chromium: Browser, url: str) -> None:
    with demo_page.fresh_page(chromium, viewport=DESKTOP, reduced_motion="reduce") as page:
        page.goto(f"{url}?source=sample")
        demo_page.running(page)
        for mode in ("blur", "picture", "colour", "mask", "off"):
            page.locator(f"input[name=mode][value={mode}]").check(force=True)
            page.wait_for_timeout(1500)
            _save(f"mode-{mode}", page.locator("#screen").screenshot(), MODE_WIDTH)


def _shoot_page(
    chromium: Browser, url: str, name: str, viewport: dict[str, int], scheme: str, opened: tuple[str, ...]
) -> None:
    with demo_page.fresh_page(chromium, viewport=viewport, color_scheme=scheme) as page:
        page.goto(f"{url}?source=sample")
        demo_page.running(page)
        page.locator("#comparing").check()
        for part in opened:
            page.locator(f"#{part} summary").click()
        if "instruments" in opened:
            page.locator("#stages tbody tr").first.wait_for(timeout=demo_page.LOAD_MS)
        page.locator("#pace", has_text="fps").wait_for(timeout=demo_page.LOAD_MS)
        page.wait_for_timeout(2000)
        page.evaluate("scrollTo(0, 0)")
        _save(name, page.screenshot(full_page=bool(opened)))


def _save(name: str, png: bytes, width: int | None = None) -> None:
    picture = PILImage.open(io.BytesIO(png)).convert("RGB")
    if width is not None:
        picture = picture.resize((width, round(picture.height * width / picture.width)), PILImage.Resampling.LANCZOS)
    file = Path(INTO / f"{name}.webp")
    picture.save(file, quality=82, method=6)
    print(f"{file.name} {file.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
