"""Who is let in: one address for each device, good for one report, until time is up.

The address carries a secret of 256 bits as the first part of its path, so that every file of the site lies behind it
and relative addresses keep it. It is compared in constant time, and a refusal tells nothing of the others.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING

from vitexport.contract import Refused, Taken
from vitexport.errors import BadRequest
from vitexport.manifest import Malformed, decode

if TYPE_CHECKING:
    from vitexport.contract import Result

#: Where the page posts, relative to its address.
REPORT, PROGRESS = "/report", "/progress"

#: A sentence about the cell that runs.
LARGEST_PROGRESS_BYTES = 2048
_LONGEST_LINE = 100


@dataclass(frozen=True)
class Progress:
    """How far a device is: ``done`` of ``of`` cells, and what it does ``now``."""

    done: int
    of: int
    now: str


@dataclass(frozen=True)
class Arrival:
    """What came in through the gate: how far a device is, or its results."""

    guest: str
    what: Progress | tuple[Result, ...]


@dataclass
class _Guest:
    name: str
    token: str
    has_reported: bool = False


@dataclass(eq=False)
class Gate:
    """A :class:`vitexport.contract.Desk`. ``accept`` makes results of a guest's name and report, or raises
    ``BadRequest``; ``deadline`` is of :func:`time.monotonic`. What comes in is to be had from ``arrivals``."""

    names: tuple[str, ...]
    """What each device is called here."""
    accept: Callable[[str, bytes], tuple[Result, ...]]
    largest_bytes: int
    deadline: float
    arrivals: SimpleQueue[Arrival] = field(default_factory=SimpleQueue)

    def __post_init__(self) -> None:
        self._guests = [_Guest(name, secrets.token_urlsafe(32)) for name in self.names]
        self._lock = threading.Lock()

    @property
    def tokens(self) -> tuple[str, ...]:
        """The first part of each device's path, in the order of ``names``."""
        return tuple(guest.token for guest in self._guests)

    def inside(self, path: str) -> str:
        token, slash, rest = path.removeprefix("/").partition("/")
        self._guest(token)
        if not slash:
            raise Refused(404, "The address ends in a slash")
        return f"/{rest}"

    def limit(self, path: str) -> int:
        limits = {REPORT: self.largest_bytes, PROGRESS: LARGEST_PROGRESS_BYTES}
        if path not in limits:
            raise Refused(405, "Nothing is posted here")
        return limits[path]

    def take(self, path: str, outer: str, body: bytes) -> Taken:
        guest = self._guest(outer.removeprefix("/").partition("/")[0])
        if path == PROGRESS:
            heard = Arrival(guest.name, _progress(body))
            return Taken("Heard.", lambda: self.arrivals.put(heard))
        with self._lock:  # of two reports that come at once, one is the second
            if guest.has_reported:
                raise _used()
            try:
                results = self.accept(guest.name, body)
            except BadRequest as error:
                raise Refused(400, str(error)) from error
            guest.has_reported = True
        arrived = Arrival(guest.name, results)
        return Taken("Taken. The report is where vitexport was started.", lambda: self.arrivals.put(arrived))

    def _guest(self, token: str) -> _Guest:
        known = [g for g in self._guests if hmac.compare_digest(g.token.encode(), token.encode("utf-8", "replace"))]
        if not known:
            raise Refused(403, "This address is not complete. Scan the code again")
        if time.monotonic() > self.deadline:
            raise Refused(410, "Time is up: this address is no longer good. Run vitexport bench again")
        if known[0].has_reported:
            raise _used()
        return known[0]


def _used() -> Refused:
    return Refused(410, "This address has brought its report; each is good for one. Run vitexport bench again")


def _progress(body: bytes) -> Progress:
    """Printed on a terminal as it comes, so nothing is let through that a terminal would obey."""
    with suppress(Malformed):
        said = decode(body, Progress)
        if 0 <= said.done <= said.of <= 10_000:
            shown = "".join(c if c.isprintable() else "?" for c in said.now[:_LONGEST_LINE])
            return Progress(said.done, said.of, shown)
    raise Refused(400, "This tells of no progress")
