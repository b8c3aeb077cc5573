"""Chromium driven from Python, and what pages driven so answer: shared by the targets that are proven in a browser."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vitexport import host
from vitexport.contract import Device
from vitexport.errors import BadRequest, LoweringFailed, RuntimeUnavailable, first_line
from vitexport_targets import _chromium

if TYPE_CHECKING:
    from playwright.async_api import Page, Playwright

T = TypeVar("T")

#: Loading takes 2 s on a quiet machine, most of it compiling WebAssembly; a large model on a loaded one, minutes.
OPEN_TIMEOUT_S = 300.0

#: SwiftShader needs 50 s for the first run of a small hierarchical ViT on two quiet cores.
RUN_TIMEOUT_S = 900.0
CLOSE_TIMEOUT_S = 20.0

#: Where Node.js and Chromium put their temporary files, on whatever system.
_TEMPORARY = ("TMPDIR", "TMP", "TEMP")

#: Held while they are another folder than this process's.
_environment = threading.Lock()

#: A socket's path has at most 107 characters (unix(7)), and Chromium does not start where it is longer. This is what
#: ``/vitexport-12345678/org.chromium.Chromium.123456/SingletonSocket`` leaves of them.
_LONGEST_FOLDER = 43

#: The pages' error classes, as this side names them. Anything else is the runtime's refusal of the model.
_ERRORS: dict[str, type[Exception]] = {"BundleError": BadRequest, "UnavailableError": RuntimeUnavailable}


class BrowserThread:
    """Chromium, driven from an event loop in a thread of its own.

    Playwright's blocking interface refuses threads that already run a loop (notebooks), allows itself once a thread,
    and leaves a signal handler that raises in the middle of it with a browser nobody can close. Ctrl-C in a terminal
    reaches the driver too, which then dies without tidying up: what it and Chromium leave is in a folder that goes with
    this.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # Ctrl-C reaches playwright's driver too. That it is gone is said by the call that waits for it, not by asyncio.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._closing = AsyncExitStack()

    def __enter__(self) -> BrowserThread:
        self._folder = _temporary_folder()
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
            if not self._thread.is_alive() and not asyncio.all_tasks(self._loop):  # else it goes with this process
                self._loop.close()
            _remove(self._folder)

    def call(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Wait for ``work``. Chromium's failures become ``RuntimeUnavailable``."""
        from playwright.async_api import Error

        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            raise RuntimeUnavailable(f"Chromium gave no answer in {timeout_s:.0f} s") from None
        except (Error, CancelledError) as error:
            raise RuntimeUnavailable(f"Chromium stopped ({first_line(error)})") from error
        finally:
            future.cancel()

    async def open(self, executable: Path, url: str, *, gpu: bool) -> Page:
        from playwright.async_api import async_playwright

        with _temporary_files_in(self._folder):
            starting = asyncio.ensure_future(async_playwright().start())
            self._closing.push_async_callback(_stop, starting)
            playwright = await asyncio.shield(starting)  # who is interrupted here has a driver to stop all the same
        browser, page = await _chromium.start(playwright, executable, url, gpu=gpu)
        self._closing.push_async_callback(browser.close)
        self._browser = browser
        return page

    async def version(self) -> str:
        return self._browser.version


async def _stop(starting: asyncio.Future[Playwright]) -> None:
    with suppress(Exception):  # it did not start, or is gone
        await (await starting).stop()


def _temporary_folder() -> Path:
    usual = tempfile.gettempdir()
    too_long = len(usual) > _LONGEST_FOLDER and os.access("/tmp", os.W_OK)
    return Path(tempfile.mkdtemp(prefix="vitexport-", dir="/tmp" if too_long else usual))


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Of processes that are started meanwhile, and of theirs: playwright has no option for its driver's."""
    with _environment:
        before = {name: os.environ[name] for name in _TEMPORARY if name in os.environ}
        os.environ.update(dict.fromkeys(_TEMPORARY, str(folder)))
        try:
            yield
        finally:
            for name in _TEMPORARY:
                del os.environ[name]
            os.environ.update(before)


def _remove(folder: Path) -> None:
    """For two seconds at most: processes that were just killed may still be writing."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def checked(answer: dict[str, Any]) -> dict[str, Any]:
    """What a harness page answered, or raise what it says went wrong."""
    if "error" not in answer:
        return answer
    name, message = answer["error"]["name"], answer["error"]["message"]
    raise _ERRORS.get(name, LoweringFailed)(message)


def describe_device(opened: dict[str, Any], chromium_version: str) -> Device:
    """This host, as its own browser has it. ``opened``: a page's ``runtime``, ``build``, ``provider``, ``threads`` and
    ``adapter`` (None on WebAssembly)."""
    runtime = f"{opened['runtime']} ({opened['build']}) in Chromium {chromium_version}"
    adapter = opened["adapter"]
    if adapter is None:
        threads = f"{opened['threads']} thread{'s' if opened['threads'] != 1 else ''}"
        facts = host.facts() | {"threads": str(opened["threads"])}
        return Device(f"{host.cpu_name()} (WebAssembly, {threads})", runtime, opened["provider"], facts=facts)
    parts = (adapter["description"] or adapter["device"], adapter["vendor"], adapter["architecture"])
    name = " ".join(dict.fromkeys(part for part in parts if part)) or "unnamed adapter"
    facts = host.facts() | {"shader-f16": "yes" if "shader-f16" in adapter["features"] else "no"}
    return Device(name, runtime, opened["provider"], software=adapter["software"], facts=facts)
