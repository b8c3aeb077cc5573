"""What a browser is shown, as a target describes it, and who decides on what a browser sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class Refused(Exception):
    """A request that is answered with a status other than 200, and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


@dataclass(frozen=True)
class Taken:
    """What a poster is answered, in plain text, and what happens once it has been: the server may end with it."""

    answer: str
    then: Callable[[], None]


class Desk(Protocol):
    """Who may see a site, and what may be posted to it. Called from many threads. Each verb may raise ``Refused``."""

    def inside(self, path: str) -> str:
        """The site's own path for the one that was asked for, both unquoted."""

    def limit(self, path: str) -> int:
        """How many bytes may be posted to ``path``, an inner one. Asked before any is read."""

    def take(self, path: str, outer: str, body: bytes) -> Taken:
        """What was posted to ``path``, which is ``outer`` from outside."""


@dataclass(frozen=True)
class Site:
    """What is served: ``pages`` (path -> bytes), then ``mounts`` (prefix, as ``/ort/``, -> folder), then ``root``."""

    root: Path
    mounts: Mapping[str, Path] = field(default_factory=dict)
    pages: Mapping[str, bytes] = field(default_factory=dict)
    desk: Desk | None = None
