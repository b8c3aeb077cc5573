from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
