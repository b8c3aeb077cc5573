"""The demo page as it is deployed: built once with test bundles, served by its own local server, a camera that plays a
clip made here."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as PILImage

import headless
import web_bundles
from vitexport import capture, models, photos
from vitexport.contract import ExportRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from playwright.sync_api import Browser, BrowserContext, Page

DEMO = Path(__file__).parents[1] / "web-demo"
VITE = DEMO / "node_modules" / "vite" / "bin" / "vite.js"

#: What a fresh machine needs before the page can be built; the first builds, the second is what the build is made with.
MODELS = ("selfie", "tiny_mask")

#: Small, because a software GPU composes every pixel, and a divisor of Chromium's 4:2:0 planes.
CLIP_SIZE = (320, 240)
CLIP_FRAMES = 24

#: Two busy cores compile WebAssembly for seconds, and a software GPU's shaders for many.
LOAD_MS = 120_000

#: A camera that plays the clip is added to it; whether a page may have it is the visitor's to say.
CAMERA = "--use-fake-device-for-media-stream"


def prepare() -> ModuleType:
    """``web-demo/prepare.py``, which is a script and no package."""
    spec = importlib.util.spec_from_file_location("prepare", DEMO / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _folder(name: str) -> Path:
    folder = Path(mkdtemp(prefix=f"vitexport-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def public() -> Path:
    """What ``prepare.py`` makes, of MediaPipe's real network and of a tiny one; not proven, which takes minutes."""
    folder = _folder("public")
    for file in (DEMO / "public").iterdir():
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    (folder / "models").mkdir()
    _selfie(folder / "models" / "selfie")
    tiny = web_bundles.whole("tiny_mask", ("fp32",), runtime="none").directory
    shutil.copytree(tiny, folder / "models" / "tiny_mask")
    prepare().publish(folder / "models", list(MODELS))
    prepare().write_sample(folder / "sample")
    return folder


def _selfie(into: Path) -> None:
    into.mkdir()
    request = ExportRequest(model="selfie", precisions=("fp32",), runtime="none")
    source = capture.capture(models.build(request), "selfie", photos.probes(None))
    web_bundles.filled(into, request, source)


def build(public_folder: Path) -> subprocess.CompletedProcess[str]:
    """``npm run build`` with another public folder; its output is in ``dist`` beside that."""
    out = public_folder.with_name(f"{public_folder.name}-dist")
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    return subprocess.run(
        ["node", str(VITE), "build", "--outDir", str(out), "--emptyOutDir"],
        cwd=DEMO,
        env={**os.environ, "VITEXPORT_DEMO_PUBLIC": str(public_folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@cache
def built() -> tuple[Path, str]:
    """The deployed folder, and what the build said."""
    done = build(public())
    assert done.returncode == 0, done.stdout + done.stderr
    return public().with_name(f"{public().name}-dist"), done.stdout + done.stderr


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the page, from ``npm run preview``: what ``make web-demo`` serves it with."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    command = ["node", str(VITE), "preview", "--outDir", str(folder), "--port", str(port), "--strictPort"]
    server = subprocess.Popen([*command, "--host", "127.0.0.1"], cwd=DEMO, stdout=subprocess.DEVNULL)
    try:
        _await(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(10)


def _await(url: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + LOAD_MS / 1000
    while time.monotonic() < until:
        assert server.poll() is None, f"the server of {url} has ended: another may have its port"
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise AssertionError(f"{url} is not served")


@contextmanager
def with_camera(*, gpu: bool = False) -> Iterator[Browser]:
    with headless.browser(CAMERA, f"--use-file-for-fake-video-capture={clip()}", gpu=gpu) as launched:
        yield launched


@contextmanager
def fresh_page(launched: Browser, **context: object) -> Iterator[Page]:
    """A visitor who was never here; what the page throws fails the test."""
    with closing(launched.new_context(**context)) as visitor:  # type: ignore[arg-type]
        page = visitor.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        assert errors == []


@contextmanager
def closing(context: BrowserContext) -> Iterator[BrowserContext]:
    try:
        yield context
    finally:
        context.close()


@cache
def clip(size: tuple[int, int] = CLIP_SIZE) -> Path:
    """A real person's photo that sways before another photo, as an uncompressed video of ``size`` (width, height)."""
    file = _folder("clip") / "clip.y4m"
    width, height = size
    header = f"YUV4MPEG2 W{width} H{height} F30:1 Ip A1:1 C420jpeg\n".encode()
    file.write_bytes(header + b"".join(b"FRAME\n" + _planes(frame(i, size)) for i in range(CLIP_FRAMES)))
    return file


def frame(index: int, size: tuple[int, int] = CLIP_SIZE) -> NDArray[np.uint8]:
    """(h, w, 3) RGB: of the portrait what lies inside an ellipse around her, 0.9 of the height, swaying by 8 pixels."""
    person, behind = (probe.image for probe in photos.probes(None)[:2])
    width, height = size
    ground = np.asarray(PILImage.fromarray(behind).resize((width, height), PILImage.Resampling.BILINEAR))
    side = round(0.9 * height)
    cut = np.asarray(PILImage.fromarray(person).resize((side, side), PILImage.Resampling.BILINEAR))
    left = (width - side) // 2 + round(8 * np.sin(2 * np.pi * index / CLIP_FRAMES))
    y, x = np.mgrid[0:side, 0:side] / side
    # She sits left of the middle, and is cut by the photo's lower edge.
    inside = ((x - 0.42) / 0.34) ** 2 + ((y - 0.72) / 0.74) ** 2 < 1
    picture = ground.copy()
    region = picture[height - side :, left : left + side]
    region[inside] = cut[inside]
    return picture


def _planes(picture: NDArray[np.uint8]) -> bytes:
    """Full-range Y'CbCr of BT.601, as C420jpeg means it, colours halved in both directions."""
    y, cb, cr = np.moveaxis(np.asarray(PILImage.fromarray(picture).convert("YCbCr")), -1, 0)
    halved = [plane.reshape(plane.shape[0] // 2, 2, plane.shape[1] // 2, 2).mean((1, 3)).round() for plane in (cb, cr)]
    return b"".join(plane.astype(np.uint8).tobytes() for plane in (y, *halved))


def running(page: Page) -> None:
    page.locator("body[data-state=running]").wait_for(timeout=LOAD_MS)


def report(page: Page) -> dict[str, Any]:
    return dict(page.evaluate("backgroundBlur.report()"))


def still(page: Page) -> int:
    """How many frames were shown, once none has been for half a second."""
    drawn, since = -1, 0
    for _ in range(LOAD_MS // 100):
        page.wait_for_timeout(100)
        now = int(report(page)["stats"]["shown"])
        drawn, since = now, since + 1 if now == drawn else 0
        if since == 5:
            return drawn
    raise AssertionError("frames are shown all the time")


def until(page: Page, true_of: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first report that this is true of."""
    for _ in range(LOAD_MS // 100):
        if true_of(found := report(page)):
            return found
        page.wait_for_timeout(100)
    raise AssertionError(f"never true of {found}")
