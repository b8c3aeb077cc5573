"""Photograph an export's report.html for the README: python tests/report_screenshots.py DIR. A person looks at them,
and then commits."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image as PILImage

import demo_page
import headless

INTO = demo_page.DEMO / "screenshots"
SHOTS = (
    ("report-light", {"width": 1180, "height": 1240}, "light", ""),
    ("report-phone-dark", {"width": 390, "height": 844}, "dark", "latency"),
)


def main() -> None:
    page = (Path(sys.argv[1]) / "report.html").resolve()
    with headless.browser() as chromium:
        for name, viewport, scheme, at in SHOTS:
            with demo_page.fresh_page(
                chromium, viewport=viewport, color_scheme=scheme, reduced_motion="reduce"
            ) as visitor:
                visitor.goto(page.as_uri())
                if at:
                    visitor.evaluate(f"document.getElementById('{at}').scrollIntoView()")
                picture = PILImage.open(io.BytesIO(visitor.screenshot())).convert("RGB")
            file = INTO / f"{name}.webp"
            picture.save(file, quality=82, method=6)
            print(f"{file.name} {file.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
