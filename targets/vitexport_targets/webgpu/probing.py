"""onnxruntime-web asked, in a browser, where it would put the nodes of any graph: no bundle, no inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from vitexport.contract import Placement, Site
from vitexport.serving import serve
from vitexport_targets import _chromium
from vitexport_targets._browser import OPEN_TIMEOUT_S, BrowserThread, checked
from vitexport_targets.webgpu import ort_web
from vitexport_targets.webgpu.placement import read_placement, without_kernel

if TYPE_CHECKING:
    from playwright.async_api import Page

_HERE = Path(__file__).parent
_MOUNT, _RUNTIME, _GRAPH = "/_vitexport/", "/_onnxruntime-web/", "/graph.onnx"


@dataclass(frozen=True)
class Answer:
    """What the pinned onnxruntime-web said of one graph."""

    missing: frozenset[str]
    """Names of the nodes that its WebGPU provider has no kernel for, before anything is fused for the CPU."""
    placement: Placement | None
    """None where no session was made."""
    refusal: str
    """Why there was none; empty where there was one."""


class Oracle:
    """A page with the runtime in it, which answers for one graph after another."""

    def __init__(self, page: Page, browser: BrowserThread, served: dict[str, bytes]) -> None:
        self._page, self._browser, self._served = page, browser, served
        self._runtime = {"builds": msgspec.to_builtins(ort_web.as_installed().builds), "base": _RUNTIME}

    def place(self, graph: bytes, *, optimised: bool) -> Answer:
        """``graph`` is a whole ONNX file. ``optimised``: as a bundle's graph is run, or node by node as it is stored.

        Raises ``RuntimeUnavailable`` where there is no adapter.
        """
        self._served[_GRAPH] = graph
        work = self._page.evaluate("asked => harness.place(...asked)", [self._runtime, _GRAPH, optimised])
        found: dict[str, Any] = checked(self._browser.call(work, OPEN_TIMEOUT_S))
        return Answer(without_kernel(found["lines"]), read_placement(found["lines"]), found["refusal"])


@contextmanager
def oracle() -> Iterator[Oracle]:
    """Raises ``MissingToolchain`` (no Chromium, another onnxruntime-web), ``RuntimeUnavailable`` (no start)."""
    executable = _chromium.executable()
    served: dict[str, bytes] = {}
    site = Site(_HERE / "harness", {_MOUNT: _HERE, _RUNTIME: ort_web.dist()}, served)
    with ExitStack() as stack:
        url = stack.enter_context(serve(site))
        browser = stack.enter_context(BrowserThread())
        address = f"{url}{_MOUNT.removeprefix('/')}harness/kernels/"
        page = browser.call(browser.open(executable, address, gpu=True), OPEN_TIMEOUT_S)
        yield Oracle(page, browser, served)
