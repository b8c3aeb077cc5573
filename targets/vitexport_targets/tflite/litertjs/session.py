"""A ``.tflite`` file loaded in headless Chromium by LiteRT.js: the session that proves it for the web."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from vitexport.contract import Device, Placement, Run, Session, Site
from vitexport.errors import LoweringFailed, first_line
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
from vitexport_targets.tflite.litertjs import VERSION, Accelerator, packages
from vitexport_targets.tflite.litertjs.console import complaint, cpu_provider, read_placement
from vitexport_targets.tflite.structure import read

if TYPE_CHECKING:
    from playwright.async_api import Page

    from vitexport.contract import Tensor

#: Beside the file that is proven; the harness imports modules of the webgpu target's, which lie where they lie here.
_HARNESS = "_vitexport/tflite/litertjs/harness/"

#: How an error begins that says no more than which lines of LiteRT.js's own source it passed.
_PLACE = "ERROR: ["


def open_session(
    path: Path,
    signature: str,
    accelerator: Accelerator,
    feed: Callable[[Tensor], dict[str, Tensor]],
    collect: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> Session:
    """See :func:`vitexport_targets.tflite.litertjs.open_in_litertjs`."""
    executable = _chromium.executable()
    site = _site(path)
    with ExitStack() as stack:
        url = stack.enter_context(serve(site))
        browser = stack.enter_context(BrowserThread())
        page = browser.call(browser.open(executable, f"{url}{_HARNESS}", gpu=accelerator == "webgpu"), OPEN_TIMEOUT_S)
        tab = _Tab(browser, page, f"'{path.name}' on {accelerator}")
        opened = tab.ask("open", {"model": f"/{quote(path.name)}", "accelerator": accelerator}, OPEN_TIMEOUT_S)
        # After LiteRT.js has verified the file, and accepted it.
        graph, ops = _graph_of(path, signature)
        log, whole = tab.ask("log", None, CLOSE_TIMEOUT_S)["lines"], opened["whole"]
        version = browser.call(browser.version(), CLOSE_TIMEOUT_S)
        return LiteRtJsSession(
            device=describe_device(opened | {"runtime": f"LiteRT.js {VERSION}", "provider": accelerator}, version),
            load_ms=opened["loadMs"],
            placement=read_placement(log, ops, graph, whole=whole)
            if accelerator == "webgpu"
            else Placement({cpu_provider(whole=whole): ops[graph]}),
            job=_Job(tab, signature, feed, collect),
            resources=stack.pop_all(),
        )
    raise AssertionError("unreachable: the block above returns or raises")


@dataclass(frozen=True)
class _Tab:
    """The harness page, and what it is busy with."""

    browser: BrowserThread
    page: Page
    subject: str

    def ask(self, verb: str, argument: object, timeout_s: float) -> dict[str, Any]:
        """Raises ``LoweringFailed`` in LiteRT.js's words."""
        asked = self.page.evaluate(f"argument => harness.{verb}(argument)", argument)
        try:
            return checked(self.browser.call(asked, timeout_s))
        except LoweringFailed as thrown:
            log = self.browser.call(self.page.evaluate("harness.log()"), CLOSE_TIMEOUT_S)["lines"]
            words = first_line(thrown)
            if words.startswith(_PLACE):
                words = complaint(log) or words
            raise LoweringFailed(f"LiteRT.js {VERSION} refuses {self.subject} ({words.rstrip('.')}).") from None


@dataclass(frozen=True)
class _Job:
    tab: _Tab
    signature: str
    feed: Callable[[Tensor], dict[str, Tensor]]
    collect: Callable[[dict[str, Tensor]], dict[str, Tensor]]


class LiteRtJsSession(Session):
    def __init__(
        self, *, device: Device, load_ms: float, placement: Placement | None, job: _Job, resources: ExitStack
    ) -> None:
        self.device, self.load_ms, self.placement = device, load_ms, placement
        self._job, self._resources = job, resources

    def run(self, pixel_values: Tensor) -> Run:
        """One inference on float32 NCHW. ``ms`` is taken in the page, from the inputs' copy to the outputs' arrival."""
        inputs = {name: _packed(values) for name, values in self._job.feed(pixel_values).items()}
        answer = self._job.tab.ask("run", {"signature": self._job.signature, "inputs": inputs}, RUN_TIMEOUT_S)
        outputs = {name: _unpacked(packed) for name, packed in answer["outputs"].items()}
        return Run(self._job.collect(outputs), answer["ms"])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()


def _site(path: Path) -> Site:
    core, utils = packages()
    targets = Path(__file__).parents[2]
    return Site(
        path.parent,
        {
            f"/{_HARNESS}": Path(__file__).parent / "harness",
            "/_vitexport/webgpu/": targets / "webgpu",
            "/_litertjs/core/": core,
            "/_litertjs/wasm-utils/": utils,
        },
    )


def _graph_of(path: Path, signature: str) -> tuple[int, list[int]]:
    """Where ``signature``'s graph comes among those that signatures name, and how many ops each of these has."""
    structure = read(path.read_bytes(), path.name)
    graphs = {key: entry.graph for key, entry in structure.signatures.items()}
    if signature not in graphs:
        raise LoweringFailed(f"'{path.name}' has no signature '{signature}'. It has: {', '.join(graphs) or 'none'}.")
    order = sorted(set(graphs.values()))
    return order.index(graphs[signature]), [len(structure.graphs[i].operations) for i in order]


def _packed(values: Tensor) -> dict[str, Any]:
    data = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return {
        "data": base64.b64encode(data.tobytes()).decode(),
        "dims": list(values.shape),
        "dtype": values.dtype.name,
    }


def _unpacked(packed: dict[str, Any]) -> Tensor:
    dtype = np.dtype(packed["dtype"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(packed["data"]), dtype).reshape(packed["dims"])
