"""How every command speaks with a terminal: its mistakes, its progress, its JSON."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from vitexport.errors import BadRequest
from vitexport.progress import Step, listen

EXIT_CODES = """\
exit codes: 0 done, nothing failed · 1 our own bug · 2 impossible request or bad input · 3 a toolchain or browser is
missing · 4 lowering failed · 5 parity failed · 6 disk full or network down · 130/143 interrupted
"""


class Parser(argparse.ArgumentParser):
    """argparse's own mistakes, said as ours are."""

    def error(self, message: str) -> NoReturn:
        raise BadRequest(f"{message[0].upper()}{message[1:]}. See {self.prog} --help.")


@contextmanager
def progress() -> Iterator[None]:
    """Within the block, one line a step on standard error: its name while it runs, its time when it is done."""
    lines = _Lines()
    try:
        with listen(lines):
            yield
    finally:
        lines.end()


class _Lines:
    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._is_open = False
        """On a terminal: the line of a step that runs waits for its time."""

    def __call__(self, what: Step) -> None:
        name = f"{what.name:<9} {what.detail}"
        if what.seconds is not None:
            elapsed = time.perf_counter() - self._start
            over = "\r" if self._is_open else ""
            print(f"{over}  {name:<52} {what.seconds:7.1f} s   {elapsed:7.1f} s in all", file=sys.stderr, flush=True)
            self._is_open = False
        elif sys.stderr.isatty():
            self.end()
            print(f"  {name:<52} ...", end="", file=sys.stderr, flush=True)
            self._is_open = True

    def end(self) -> None:
        """What comes next is no step's time, but an error, say, or a step within the step: it has its own line."""
        if self._is_open:
            print(file=sys.stderr, flush=True)
            self._is_open = False


def print_json(value: object) -> None:
    from vitexport.manifest import encode

    sys.stdout.write(encode(value).decode())
