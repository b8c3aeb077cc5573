"""Headless Chromium for tests and benchmarks: without an adapter, or with SwiftShader's.

``VITEXPORT_GPU=hardware`` runs what wants an adapter on the machine's own GPU instead, as it does in ``vitexport``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vitexport_targets import _chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

#: The one that is running: playwright allows itself once a thread, and a test may want a browser beside its module's.
_running: list[Playwright] = []


@contextmanager
def _playwright() -> Iterator[Playwright]:
    from playwright.sync_api import sync_playwright

    if _running:
        yield _running[0]
        return
    with sync_playwright() as started:
        _running.append(started)
        try:
            yield started
        finally:
            _running.clear()


@contextmanager
def browser(*flags: str, gpu: bool = False) -> Iterator[Browser]:
    """Without ``gpu`` it finds no adapter."""
    hardware = os.environ.get(_chromium.GPU_VARIABLE) == "hardware"
    adapter = (_chromium.HARDWARE if hardware else _chromium.SOFTWARE) if gpu else ()
    with _playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=_chromium.executable(), args=[*_chromium.QUIET, *adapter, *flags]
        )
        try:
            yield launched
        finally:
            launched.close()


@contextmanager
def page(*, gpu: bool = False) -> Iterator[Page]:
    with browser(gpu=gpu) as launched:
        yield launched.new_page()
