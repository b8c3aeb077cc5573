"""Start headless Chromium with a WebGPU adapter: the machine's GPU where there is one, else SwiftShader.

``VITEXPORT_GPU`` decides: ``auto`` (the default), ``hardware`` (never SwiftShader) or ``software`` (always).
"""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vitexport import toolchain
from vitexport.contract import Need
from vitexport.errors import BadRequest, RuntimeUnavailable, did_you_mean, first_line

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Playwright

#: What a target that is proven in a browser names among its own needs.
NEEDS = (
    Need("python", "playwright", "Run: pip install 'vitexport[webgpu]'"),
    Need(
        "browser",
        "chromium",
        "Install Chromium or Chrome (Debian: apt-get install chromium), or name one with VITEXPORT_CHROMIUM.",
    ),
)

GPU_VARIABLE = "VITEXPORT_GPU"

QUIET = (
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def hardware(system: str) -> tuple[str, ...]:
    """Flags for the GPU of a machine whose ``sys.platform`` is ``system``.

    Chromium takes WebGPU away from headless Linux by default. Vulkan without a surface is what a machine with a GPU and
    no display has: https://developer.chrome.com/blog/supercharge-web-ai-testing. Elsewhere it computes on Metal or
    Direct3D by itself, and its ANGLE has no Vulkan to be asked for.
    """
    vulkan = ("--enable-features=Vulkan", "--use-angle=vulkan", "--disable-vulkan-surface")
    return ("--enable-unsafe-webgpu", *(vulkan if system == "linux" else ()))


HARDWARE = hardware(sys.platform)

#: With fewer of these an adapter appears, but importing a video frame into it fails.
SOFTWARE = (
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--use-vulkan=swiftshader",
    "--use-angle=swiftshader",
)

#: Asked as ``vitexport/device.js`` asks: on an H100 without a display Chromium 156 gives no adapter to whoever does not
#: mind, and the GPU to whoever wants the quick one.
_HAS_HARDWARE_ADAPTER = """async () => {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: 'high-performance' });
    return adapter != null && !adapter.info.isFallbackAdapter;
}"""

_NO_HARDWARE = f"Chromium found no hardware WebGPU adapter; {GPU_VARIABLE}=software allows SwiftShader"


async def start(playwright: Playwright, executable: Path, url: str, *, gpu: bool) -> tuple[Browser, Page]:
    """A browser with one page at ``url``. Raises ``RuntimeUnavailable`` where no attempt brings one: the last says why.

    ``gpu`` False leaves out all that concerns WebGPU, for WebAssembly.
    """
    *first, last = _attempts() if gpu else [()]
    for flags in first:
        with suppress(RuntimeUnavailable):
            return await _launch(playwright, executable, url, flags)
    return await _launch(playwright, executable, url, last)


def _attempts() -> list[tuple[str, ...]]:
    ways: dict[str, list[tuple[str, ...]]] = {
        "auto": [HARDWARE, SOFTWARE] if _may_have_gpu() else [SOFTWARE],
        "hardware": [HARDWARE],
        "software": [SOFTWARE],
    }
    asked = os.environ.get(GPU_VARIABLE, "auto")
    if asked not in ways:
        raise BadRequest(f"{GPU_VARIABLE} is '{asked}'.{did_you_mean(asked, ways)} It may be: {', '.join(ways)}.")
    return ways[asked]


def _may_have_gpu() -> bool:
    """Linux shows a GPU as a device file; trying Chromium on it without one would cost two seconds each time."""
    if sys.platform != "linux":
        return True
    return any(Path("/dev/dri").glob("renderD*")) or Path("/dev/nvidia0").exists()


async def _launch(playwright: Playwright, executable: Path, url: str, flags: tuple[str, ...]) -> tuple[Browser, Page]:
    from playwright.async_api import Error

    try:
        browser = await playwright.chromium.launch(
            executable_path=executable,
            args=[*QUIET, *flags],
            # Root cannot have Chromium's sandbox; everybody else keeps it.
            chromium_sandbox=hasattr(os, "geteuid") and os.geteuid() != 0,
        )
        async with AsyncExitStack() as unless_it_serves:
            unless_it_serves.push_async_callback(browser.close)
            page = await browser.new_page()
            await page.goto(url)
            if flags == HARDWARE and not await page.evaluate(_HAS_HARDWARE_ADAPTER):
                raise RuntimeUnavailable(_NO_HARDWARE)
            unless_it_serves.pop_all()
    except Error as error:
        raise RuntimeUnavailable(f"{executable.name} does not start ({first_line(error)})") from error
    return browser, page


def executable() -> Path:
    """Raises ``MissingToolchain`` where either of ``NEEDS`` is absent."""
    *_, browser = [toolchain.find(need) for need in NEEDS]
    return browser
