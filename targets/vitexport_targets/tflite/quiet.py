"""LiteRT's tools talk, from Python and from C++, of each step they take."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def quietly() -> Iterator[None]:
    """Inside, nothing of this process reaches the terminal, whoever says it."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in (1, 2):
                os.dup2(nowhere, number)
            yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)
        logging.disable(before)


@cache
def quiet_at_exit() -> None:
    """LiteRT takes leave of each accelerator after Python has ended, at no level that could be turned off."""

    def close() -> None:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    atexit.register(close)
