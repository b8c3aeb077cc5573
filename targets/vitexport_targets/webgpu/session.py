"""A variant loaded in headless Chromium by the bundle's own loader: the session that proves a web bundle."""

from __future__ import annotations

import base64
import math
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from vitexport.contract import Bundle, Device, Placement, Run, Session
from vitexport.serving import serve
from vitexport_targets import _chromium
from vitexport_targets._browser import (
    CLOSE_TIMEOUT_S,
    OPEN_TIMEOUT_S,
    RUN_TIMEOUT_S,
    BrowserThread,
    checked,
    describe_device,
)
from vitexport_targets.webgpu.placement import read_placement
from vitexport_targets.webgpu.site import HARNESS, harness_site, runtime_options

if TYPE_CHECKING:
    from playwright.async_api import Page

    from vitexport.contract import Tensor


def open_in_browser(
    bundle: Bundle, precision: str, provider: str, taps: tuple[str, ...] = (), threads: int | None = None
) -> Session:
    """Serve ``bundle`` on loopback, load it in Chromium and wait until it can run. With ``taps`` no placement is read;
    ``threads`` are WebAssembly's, onnxruntime-web's own choice where none are given.

    Raises ``RuntimeUnavailable`` (no adapter, missing device feature, Chromium crashed), ``MissingToolchain`` (no
    Chromium), ``BadRequest`` (a file is damaged), ``LoweringFailed`` (onnxruntime-web refuses the model).
    """
    executable = _chromium.executable()
    with ExitStack() as stack:
        site = harness_site(bundle, precision, taps)
        url = stack.enter_context(serve(site))
        browser = stack.enter_context(BrowserThread())
        page = browser.call(browser.open(executable, f"{url}{HARNESS}", gpu=provider == "webgpu"), OPEN_TIMEOUT_S)
        size = msgspec.to_builtins(bundle.rung.size)
        options = {"size": size, "precision": precision, "provider": provider, **runtime_options(bundle)}
        options |= {"threads": threads} if threads else {}
        opened = checked(browser.call(page.evaluate("options => harness.open(options)", options), OPEN_TIMEOUT_S))
        placement = None
        if not taps:  # where a graph with other outputs is placed says nothing of the bundle's, and takes as long again
            log = checked(browser.call(page.evaluate("options => harness.log(options)", options), OPEN_TIMEOUT_S))
            placement = read_placement(log["lines"])
        version = browser.call(browser.version(), CLOSE_TIMEOUT_S)
        return BrowserSession(
            device=describe_device(opened, version),
            load_ms=opened["loadMs"],
            placement=placement,
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
        browser: BrowserThread,
        resources: ExitStack,
    ) -> None:
        self.device, self.load_ms, self.placement = device, load_ms, placement
        self._page, self._browser, self._resources = page, browser, resources

    def run(self, pixel_values: Tensor) -> Run:
        """One inference on float32 NCHW. ``ms`` is taken in the page, around the call into the runtime."""
        sent = base64.b64encode(np.ascontiguousarray(pixel_values, "<f4").tobytes()).decode()
        answer = self._browser.call(self._page.evaluate("values => harness.run(values)", sent), RUN_TIMEOUT_S)
        outputs = {name: _unpack(packed) for name, packed in checked(answer)["outputs"].items()}
        return Run(outputs, answer["ms"])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()


def _unpack(packed: dict[str, Any]) -> Tensor:
    """As float32; outputs are, and what is tapped may be float16."""
    data, count = base64.b64decode(packed["data"]), math.prod(packed["dims"])
    return np.frombuffer(data, "<f2" if len(data) == 2 * count else "<f4").reshape(packed["dims"]).astype(np.float32)
