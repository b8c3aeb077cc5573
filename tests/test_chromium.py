"""Chromium started for a proof: what it is asked for, how often, and what stays of it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Chromium's socket lies in the system's own folder")
def test_a_long_path_to_temporary_files_keeps_no_chromium_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert open_page(_chromium.executable(), _BLANK, gpu=False) == _BLANK


_INTERRUPTED = """
import asyncio, signal
from vitexport.errors import Interrupted
from vitexport_targets import _chromium
from vitexport_targets._browser import BrowserThread

def interrupt(number, frame):
    raise Interrupted(number)

signal.signal(signal.SIGINT, interrupt)
with BrowserThread() as browser:
    browser.call(browser.open(_chromium.executable(), "about:blank", gpu=False), 60)
    print("open", flush=True)
    browser.call(asyncio.sleep(60), 60)
"""


def _is_open(process: subprocess.Popen[str], folder: Path) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "open\n"


def _is_being_launched(process: subprocess.Popen[str], folder: Path) -> bool:
    end = time.monotonic() + 60
    while not any(folder.glob("*/*")) and time.monotonic() < end:
        time.sleep(0.01)
    return time.monotonic() < end


@pytest.mark.parametrize("reached", [_is_being_launched, _is_open])
def test_ctrl_c_in_a_terminal_leaves_no_temporary_files(reached: Callable[..., bool]) -> None:
    """It reaches the driver, too."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", _INTERRUPTED],
            env={**os.environ, "TMPDIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert reached(process, Path(folder))
        os.killpg(process.pid, signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
        assert complaint.rstrip().endswith("Interrupted: Interrupted.")
        assert os.listdir(folder) == []
