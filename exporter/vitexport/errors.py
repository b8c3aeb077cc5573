"""Every way vitexport can stop, and the exit code of each.

::

    VitexportError
    ├── BadRequest            2   the request is impossible, or its input is bad
    ├── MissingToolchain      3   a package, an npm module, a browser or an attached device is not there
    ├── LoweringFailed        4   a converter refused the model
    ├── ParityFailed          5   the artifact does not compute what PyTorch computes
    └── WorldFailed           6   disk full, network down, permission withdrawn
    Interrupted         130/143   SIGINT / SIGTERM; a KeyboardInterrupt, so that no library's `except` keeps it
    RuntimeUnavailable        -   this host cannot run the artifact: the verdict is "not run", with this reason

Anything else that escapes is our own bug: exit code 1, and a traceback only with ``--debug``.

Messages say what happened, why, and what to do next, in one or two sentences.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

OK = 0
OUR_BUG = 1


class VitexportError(Exception):
    """An error a user can act on. ``str(error)`` is the whole message."""

    exit_code = OUR_BUG


class BadRequest(VitexportError):
    exit_code = 2


class MissingToolchain(VitexportError):
    exit_code = 3


class LoweringFailed(VitexportError):
    exit_code = 4


class ParityFailed(VitexportError):
    exit_code = 5


class WorldFailed(VitexportError):
    exit_code = 6


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived; ``signal_number`` makes the exit code the shell's own (128 + n). ``leaves`` is a
    sentence on what is there now, by whoever knows it."""

    def __init__(self, signal_number: int, leaves: str = "") -> None:
        super().__init__(f"Interrupted. {leaves}".rstrip())
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number

    def leaving(self, leaves: str) -> Interrupted:
        """The same, on its way through a room that knows what it leaves."""
        return Interrupted(self.signal_number, leaves)


class RuntimeUnavailable(Exception):
    """This host cannot run an artifact. Not a failure: it becomes the verdict ``not run`` with this reason."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the nearest known word, or an empty string."""
    spelt = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(spelt), n=1, cutoff=0.6)
    return f" Did you mean '{spelt[near[0]]}'?" if near else ""


#: Longer lines are lists of what somebody else's code looked at.
LONGEST_LINE = 300


def first_line(error: BaseException) -> str:
    """What ``error``, which another library raised, says first, to stand in a sentence of ours: without its full stop,
    at most ``LONGEST_LINE`` characters. Its type where it says nothing."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return said.rstrip(".")[:LONGEST_LINE]


def root_line(error: BaseException) -> str:
    """:func:`first_line` of the innermost cause: a converter's outer ones are instructions for reporting a bug."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
