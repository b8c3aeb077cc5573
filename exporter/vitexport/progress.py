"""Steps of an export, as they happen. Any room may announce one; whoever listens decides how it is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """``seconds`` is None while it runs. ``detail`` is a word or two, such as ``webgpu fp32``."""

    name: str
    detail: str
    seconds: float | None = None


Listener = Callable[[Step], None]

_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Hear of every step within the block."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


@contextmanager
def step(name: str, detail: str = "") -> Iterator[None]:
    """Announce a step before and, if it succeeds, after the block."""
    _announce(Step(name, detail))
    start = time.perf_counter()
    yield
    _announce(Step(name, detail, time.perf_counter() - start))


def _announce(what: Step) -> None:
    for listener in _listeners.get():
        listener(what)
