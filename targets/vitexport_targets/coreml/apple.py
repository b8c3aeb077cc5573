"""coremltools, imported without what it says about this machine."""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
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


@contextmanager
def counting_from_zero() -> Iterator[None]:
    """coremltools numbers the values that it has no name for, on and on through a process: inside, it starts afresh, so
    that a package does not depend on what was converted before it."""
    coremltools()
    from coremltools.converters.mil.mil.builder import Builder

    before = Builder.name_count
    Builder.name_count = defaultdict(int)
    try:
        yield
    finally:
        Builder.name_count = before
