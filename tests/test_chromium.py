"""Chromium started for a proof: what it is asked for, how often, and what stays of it."""

from __future__ import annotations

import gc
from pathlib import Path

import psutil
import pytest

from vitexport.errors import RuntimeUnavailable
from vitexport_targets import _chromium
from vitexport_targets._browser import OPEN_TIMEOUT_S, BrowserThread

pytestmark = pytest.mark.browser

_BLANK = "about:blank"

#: A port that Chromium refuses to ask.
_NO_PAGE = "http://127.0.0.1:9/"


@pytest.fixture
def dies_on_the_gpu(tmp_path: Path) -> Path:
    """Chromium on a machine whose driver kills it: it starts with SwiftShader alone."""
    script = tmp_path / "chromium"
    real = _chromium.executable()
    script.write_text(f'#!/bin/sh\ncase "$*" in *adapter=swiftshader*) exec \'{real}\' "$@" ;; esac\nexit 3\n')
    script.chmod(0o755)
    return script


def open_page(executable: Path, url: str, *, gpu: bool = True) -> str:
    with BrowserThread() as browser:
        page = browser.call(browser.open(executable, url, gpu=gpu), OPEN_TIMEOUT_S)
        return page.url


def test_only_linux_is_asked_for_vulkan() -> None:
    assert _chromium.hardware("linux")[1:] == (
        *("--enable-features=Vulkan", "--use-angle=vulkan", "--disable-vulkan-surface"),
    )
    assert _chromium.hardware("darwin") == _chromium.hardware("win32") == ("--enable-unsafe-webgpu",)


def test_a_gpu_on_which_chromium_dies_leaves_swiftshader(
    dies_on_the_gpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_chromium, "_may_have_gpu", lambda: True)
    monkeypatch.setenv("VITEXPORT_GPU", "auto")
    assert open_page(dies_on_the_gpu, _BLANK) == _BLANK


def test_where_no_attempt_starts_the_last_says_why(dies_on_the_gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITEXPORT_GPU", "hardware")
    with pytest.raises(RuntimeUnavailable, match=r"^chromium does not start \(.*Target page, context or browser"):
        open_page(dies_on_the_gpu, _BLANK)


def test_a_browser_whose_page_does_not_open_is_closed() -> None:
    before = set(psutil.Process().children(recursive=True))
    with BrowserThread() as browser:
        with pytest.raises(RuntimeUnavailable, match="ERR_UNSAFE_PORT"):
            browser.call(browser.open(_chromium.executable(), _NO_PAGE, gpu=False), OPEN_TIMEOUT_S)
        mine = set(psutil.Process().children(recursive=True)) - before
        _, alive = psutil.wait_procs([child for child in mine if "chrom" in child.name().lower()], timeout=5)
        assert not alive


def test_a_browsers_descriptors_go_with_it() -> None:
    gc.collect()
    gc.disable()  # which would close what was left open
    before = psutil.Process().num_fds()
    try:
        open_page(_chromium.executable(), _BLANK, gpu=False)
        assert psutil.Process().num_fds() <= before
    finally:
        gc.enable()
