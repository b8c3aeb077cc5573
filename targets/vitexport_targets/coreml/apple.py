"""coremltools, imported without what it says about this machine."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from importlib.metadata import version
from io import StringIO
from typing import Any

#: What shapes a package.
TOOLCHAIN = ("torch", "coremltools", "numpy")


@cache
def coremltools() -> Any:
    """The module. At import it warns, five times on Linux, that it cannot predict here, and that this torch is newer
    than those it was tested with: the evaluator and the gates are the answer to both."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    import coremltools

    return coremltools


def toolchain() -> dict[str, str]:
    return {name: version(name) for name in TOOLCHAIN}


@contextmanager
def quietly() -> Iterator[None]:
    """Without its progress bars, which know nothing of ours, and without torch's notes to its own maintainers."""
    with warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch|copyreg")
        yield
