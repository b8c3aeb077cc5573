"""The demo page beside MediaPipe's own @mediapipe/selfie_segmentation: the same network, camera, browser and machine.

Part of ``make bench-web``; needs ``web-demo/dist``. A camera plays one clip to both. Ratios above 1 mean that ours
takes more. MediaPipe's ``send()`` returns before the GPU is done, so a pixel is read within its time, as our queue is
waited for within ours. Its frame is composed as its own examples do: on a 2-D canvas, the background by ``filter``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import demo_page
import headless
from vitexport import toolchain
from vitexport.contract import Site
from vitexport.serving import serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DIST = Path(__file__).parents[1] / "web-demo" / "dist"
SIZE = (640, 480)
PATIENCE_MS = 900_000

#: Both pages note when they have shown their first frame, counted from the navigation.
FIRST_FRAME = "globalThis.firstFrameMs"

WATCH_OURS = f"""new MutationObserver(() => {{
    if (document.body?.dataset.state === 'running') {FIRST_FRAME} ??= performance.now();
}}).observe(document, {{ subtree: true, attributes: true, attributeFilter: ['data-state'] }});"""

#: `frame()` segments and composes one frame of the camera; of both, and of the mask alone, the milliseconds.
MEDIAPIPE = f"""<!doctype html><title>MediaPipe</title><canvas></canvas>
<script src="/mediapipe/selfie_segmentation.js" crossorigin="anonymous"></script>
<script type="module">
const [width, height] = {list(SIZE)};
const video = document.createElement('video');
video.srcObject = await navigator.mediaDevices.getUserMedia({{ video: {{ width, height }} }});
await video.play();
const context = Object.assign(document.querySelector('canvas'), {{ width, height }}).getContext('2d');
const pixel = new OffscreenCanvas(1, 1).getContext('2d', {{ willReadFrequently: true }});
const network = new SelfieSegmentation({{ locateFile: (file) => `/mediapipe/${{file}}` }});
network.setOptions({{ modelSelection: 0 }});
let results;
network.onResults((found) => (results = found));
const wait = (source) => {{
  pixel.drawImage(source, 0, 0, 1, 1);
  pixel.getImageData(0, 0, 1, 1);
}};
globalThis.frame = async () => {{
  const started = performance.now();
  await network.send({{ image: video }});
  wait(results.segmentationMask);
  const maskMs = performance.now() - started;
  context.globalCompositeOperation = 'copy';
  context.filter = 'none';
  context.drawImage(results.segmentationMask, 0, 0, width, height);
  context.globalCompositeOperation = 'source-in';
  context.drawImage(results.image, 0, 0, width, height);
  context.globalCompositeOperation = 'destination-over';
  context.filter = 'blur(12px)';
  context.drawImage(results.image, 0, 0, width, height);
  wait(context.canvas);
  return {{ maskMs, frameMs: performance.now() - started }};
}};
await frame();
{FIRST_FRAME} = performance.now();
</script>"""


@dataclass(frozen=True)
class Visit:
    """Of one fresh visit: until the first frame was shown, and what had come over the wire by then."""

    first_frame_ms: float
    total_bytes: int
    gzip_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--frames", type=int, default=20, help="frames timed of each (default: 20; ours times 10 or more)"
    )
    parser.add_argument("--visits", type=int, default=3, help="fresh visits of each (default: 3)")
    parser.add_argument(
        "--step", action="append", help="of ours; repeatable (default: what it chooses, and webgpu-fp32)"
    )
    parser.add_argument("--dist", type=Path, default=DIST, help="the page as it was built (default: web-demo/dist)")
    asked = parser.parse_args()
    if not (asked.dist / "models/models.json").is_file():
        raise SystemExit(f"{asked.dist} is no built page. Run: make bench-web")
    package, version = toolchain.npm_package("@mediapipe/selfie_segmentation", "")
    site = Site(asked.dist, {"/mediapipe/": package}, {"/mediapipe.html": MEDIAPIPE.encode()})
    camera = (demo_page.CAMERA, f"--use-file-for-fake-video-capture={demo_page.clip(SIZE)}")
    with serve(site) as url, headless.browser(*camera, gpu=True) as launched:
        adapter = describe_adapter(launched, url)
        print(f"{SIZE[0]}x{SIZE[1]}, selfie in both, MediaPipe {version}, Chromium {launched.version}; {adapter}")
        visits(launched, url, asked.visits)
        frames(launched, url, asked.frames, asked.step or [None, "webgpu-fp32"])


@contextmanager
def visitor(launched: Browser) -> Iterator[Page]:
    context = launched.new_context(permissions=["camera"])
    context.add_init_script(WATCH_OURS)
    try:
        yield context.new_page()
    finally:
        context.close()


def describe_adapter(launched: Browser, url: str) -> str:
    with visitor(launched) as page:
        page.goto(f"{url}mediapipe.html", wait_until="commit")
        found = page.evaluate(
            """async () => {
                const info = (await navigator.gpu?.requestAdapter({ powerPreference: 'high-performance' }))?.info;
                return info ? [info.vendor, info.architecture, info.isFallbackAdapter] : null;
            }"""
        )
    if found is None:
        return "no WebGPU adapter"
    vendor, architecture, software = found
    said = ", a CPU that plays a GPU: ratios of this machine, no device's figures" if software else ""
    return f"adapter {vendor} {architecture}{said}"


# ------------------------------------------------------------------------------------------------------ first frame


def visits(launched: Browser, url: str, count: int) -> None:
    addresses = {"ours": f"{url}?source=camera&model=selfie", "MediaPipe": f"{url}mediapipe.html"}
    seen: dict[str, list[Visit]] = {name: [] for name in addresses}
    for _ in range(count):
        for name, address in addresses.items():
            seen[name].append(visit(launched, address))
    print(f"\n{'first visit, medians':30} {'ours':>12} {'MediaPipe':>12} {'ratio':>7}")
    for label, of in {
        "navigation to first frame, ms": lambda each: each.first_frame_ms,
        "bytes": lambda each: each.total_bytes,
        "bytes, gzip": lambda each: each.gzip_bytes,
    }.items():
        ours, theirs = (statistics.median(map(of, seen[name])) for name in addresses)
        print(f"{label:30} {ours:12,.0f} {theirs:12,.0f} {ours / theirs:7.2f}")


def visit(launched: Browser, address: str) -> Visit:
    """As a visitor who was never here."""
    with visitor(launched) as page:
        urls: set[str] = set()
        page.on("response", lambda response: urls.add(response.url) if response.ok else None)
        page.goto(address)
        first = first_frame_ms(page)
        fetched = [url for url in sorted(urls) if url.startswith("http")]
    # A body that was compiled as it came in is not kept by the browser; the server still has it.
    bodies = [urllib.request.urlopen(url).read() for url in fetched]
    return Visit(first, sum(map(len, bodies)), sum(len(gzip.compress(body, 6)) for body in bodies))


def first_frame_ms(page: Page) -> float:
    """Playwright's own waiting would evaluate a string in the page, which our page's policy forbids."""
    for _ in range(PATIENCE_MS // 100):
        if (found := page.evaluate(FIRST_FRAME)) is not None:
            return float(found)
        page.wait_for_timeout(100)
    raise SystemExit(f"{page.url} showed no frame in {PATIENCE_MS / 1000:.0f} s")


# ----------------------------------------------------------------------------------------------------------- frames


def frames(launched: Browser, url: str, count: int, steps: list[str | None]) -> None:
    times = mediapipe(launched, url, count)
    mask, frame = (statistics.median(each[name] for each in times) for name in ("maskMs", "frameMs"))
    print(f"\nMediaPipe, {count} frames: mask {mask:.1f} ms, mask and composite {frame:.1f} ms (medians)")
    for step in steps:
        result = ours(launched, url, count, step)
        model, p50 = result["report"]["model"], result["frameMs"]["p50"]
        why = next(each["reason"] for each in result["report"]["steps"] if each["chosen"])
        print(f"\nours, {model['step']} ({why}), {result['frames']} frames:")
        print(
            f"  frame {p50:.1f} ms (p90 {result['frameMs']['p90']:.1f}); ratio to MediaPipe's frame {p50 / frame:.2f}"
        )
        stages = result["stages"]
        for name, ms in stages["p50"].items():
            print(f"  {name:12} {ms:9.2f} ms (p90 {stages['p90'][name]:.2f}, {stages['clock']} clock)")


def mediapipe(launched: Browser, url: str, count: int) -> list[dict[str, float]]:
    with visitor(launched) as page:
        page.goto(f"{url}mediapipe.html")
        first_frame_ms(page)
        times: list[dict[str, float]] = page.evaluate(
            """async (count) => {
                const times = [];
                for (let i = 0; i < count + 2; i++) times.push(await frame());
                return times.slice(2);
            }""",
            count,
        )
        return times


def ours(launched: Browser, url: str, count: int, step: str | None) -> dict[str, Any]:
    with visitor(launched) as page:
        wish = f"&step={step}" if step else ""
        page.goto(f"{url}?source=camera&model=selfie&bench={count}{wish}")
        page.locator("body[data-bench=done]").wait_for(timeout=PATIENCE_MS)
        _, _, result = page.locator("#bench-report").inner_text().partition("\n\n")
        return dict(json.loads(result))


if __name__ == "__main__":
    main()
