"""A variant loaded in headless Chromium by the bundle's own loader: the session that proves a web bundle."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from contextlib import AsyncExitStack, ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from vitexport import preview
from vitexport.contract import Bundle, Device, Placement, Run, Session
from vitexport.errors import BadRequest, LoweringFailed, RuntimeUnavailable
from vitexport_targets.webgpu import chromium
from vitexport_targets.webgpu.placement import read_placement
from vitexport_targets.webgpu.site import HARNESS, harness_site, runtime_options

if TYPE_CHECKING:
    from playwright.async_api import Page

    from vitexport.contract import Tensor

T = TypeVar("T")

#: Loading takes 2 s on a quiet machine, most of it compiling WebAssembly; a large model on a loaded one, minutes.
OPEN_TIMEOUT_S = 300.0

#: SwiftShader needs 50 s for the first run of a small hierarchical ViT on two quiet cores.
RUN_TIMEOUT_S = 900.0
CLOSE_TIMEOUT_S = 20.0

#: The loader's error classes, as this side names them. Anything else is the runtime's refusal of the model.
_ERRORS: dict[str, type[Exception]] = {"BundleError": BadRequest, "UnavailableError": RuntimeUnavailable}


def open_in_browser(bundle: Bundle, precision: str, provider: str, taps: tuple[str, ...] = ()) -> Session:
    """Serve ``bundle`` on loopback, load it in Chromium and wait until it can run.

    Raises ``RuntimeUnavailable`` (no adapter, missing device feature, Chromium crashed), ``MissingToolchain`` (no
    Chromium), ``BadRequest`` (a file is damaged), ``LoweringFailed`` (onnxruntime-web refuses the model).
    """
    executable = chromium.executable()
    with ExitStack() as stack:
        site = harness_site(bundle, precision, taps)
        url = stack.enter_context(preview.serve(site))
        browser = stack.enter_context(_BrowserThread())
        page = browser.call(browser.open(executable, f"{url}{HARNESS}", gpu=provider == "webgpu"), OPEN_TIMEOUT_S)
        size = msgspec.to_builtins(bundle.rung.size)
        options = {"size": size, "precision": precision, "provider": provider, **runtime_options(bundle)}
        opened = _checked(browser.call(page.evaluate("options => harness.open(options)", options), OPEN_TIMEOUT_S))
        log = _checked(browser.call(page.evaluate("options => harness.log(options)", options), OPEN_TIMEOUT_S))["lines"]
        version = browser.call(browser.version(), CLOSE_TIMEOUT_S)
        return BrowserSession(
            device=_device(opened, version),
            load_ms=opened["loadMs"],
            placement=read_placement(log),
            page=page,
            browser=browser,
            resources=stack.pop_all(),
        )
    raise AssertionError("unreachable: the block above returns or raises")


class BrowserSession(Session):
    def __init__(
        self,
        *,
        device: Device,
        load_ms: float,
        placement: Placement | None,
        page: Page,
        browser: _BrowserThread,
        resources: ExitStack,
    ) -> None:
        self.device, self.load_ms, self.placement = device, load_ms, placement
        self._page, self._browser, self._resources = page, browser, resources

    def run(self, pixel_values: Tensor) -> Run:
        """One inference on float32 NCHW. ``ms`` is taken in the page, around the call into the runtime."""
        sent = base64.b64encode(np.ascontiguousarray(pixel_values, "<f4").tobytes()).decode()
        answer = self._browser.call(self._page.evaluate("values => harness.run(values)", sent), RUN_TIMEOUT_S)
        outputs = {name: _unpack(packed) for name, packed in _checked(answer)["outputs"].items()}
        return Run(outputs, answer["ms"])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()


class _BrowserThread:
    """Chromium, driven from an event loop in a thread of its own.

    Playwright's blocking interface refuses threads that already run a loop (notebooks), allows itself once a thread,
    and leaves a signal handler that raises in the middle of it with a browser nobody can close.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # Ctrl-C reaches playwright's driver too. That it is gone is said by the call that waits for it, not by asyncio.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._closing = AsyncExitStack()

    def __enter__(self) -> _BrowserThread:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.call(self._closing.aclose(), CLOSE_TIMEOUT_S)
        except RuntimeUnavailable:
            pass  # it is gone, or it hangs and goes with this process: Chromium's driver dies with its pipe
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CLOSE_TIMEOUT_S)

    def call(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Wait for ``work``. Chromium's failures become ``RuntimeUnavailable``."""
        from playwright.async_api import Error

        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            raise RuntimeUnavailable(f"Chromium gave no answer in {timeout_s:.0f} s") from None
        except (Error, CancelledError) as error:
            raise RuntimeUnavailable(f"Chromium stopped ({chromium.first_line(error)})") from error
        finally:
            future.cancel()

    async def open(self, executable: Any, url: str, *, gpu: bool) -> Page:
        from playwright.async_api import async_playwright

        playwright = await self._closing.enter_async_context(async_playwright())
        browser, page = await chromium.start(playwright, executable, url, gpu=gpu)
        self._closing.push_async_callback(browser.close)
        self._browser = browser
        return page

    async def version(self) -> str:
        return self._browser.version


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" not in answer:
        return answer
    name, message = answer["error"]["name"], answer["error"]["message"]
    raise _ERRORS.get(name, LoweringFailed)(message)


def _unpack(packed: dict[str, Any]) -> Tensor:
    return np.frombuffer(base64.b64decode(packed["data"]), "<f4").reshape(packed["dims"])


def _device(opened: dict[str, Any], chromium_version: str) -> Device:
    runtime = f"{opened['runtime']} ({opened['build']}) in Chromium {chromium_version}"
    adapter = opened["adapter"]
    if adapter is None:
        threads = f"{opened['threads']} thread{'s' if opened['threads'] != 1 else ''}"
        return Device(f"CPU (WebAssembly, {threads})", runtime, opened["provider"], facts={"threads": threads})
    parts = (adapter["description"] or adapter["device"], adapter["vendor"], adapter["architecture"])
    name = " ".join(dict.fromkeys(part for part in parts if part)) or "unnamed adapter"
    facts = {"shader-f16": "yes" if "shader-f16" in adapter["features"] else "no"}
    return Device(name, runtime, opened["provider"], software=adapter["software"], facts=facts)
