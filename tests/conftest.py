from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TESTS = Path(__file__).parent
TINY = f"{TESTS / 'models.py'}:tiny"
TINY_MASK = f"{TESTS / 'models.py'}:tiny_mask"

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def vitexport(tmp_path: Path) -> Command:
    """The command line in a process of its own, in an empty folder, as a user runs it."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vitexport", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def demo_url() -> Iterator[str]:
    """The demo page, built with test bundles and served."""
    import demo_page

    with demo_page.served(demo_page.built()[0]) as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """With a camera that plays the demo's clip, and without a GPU."""
    import demo_page

    with demo_page.with_camera() as launched:
        yield launched
