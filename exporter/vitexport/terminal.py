"""How every command speaks with a terminal: its mistakes, its progress, its JSON."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from vitexport.errors import BadRequest

if TYPE_CHECKING:
    from vitexport.progress import Step

EXIT_CODES = """\
exit codes: 0 done, nothing failed · 1 our own bug · 2 impossible request or bad input · 3 a toolchain or browser is
missing · 4 lowering failed · 5 parity failed · 6 disk full or network down · 130/143 interrupted
"""


class Parser(argparse.ArgumentParser):
    """argparse's own mistakes, said as ours are."""

    def error(self, message: str) -> NoReturn:
        raise BadRequest(f"{message[0].upper()}{message[1:]}. See vitexport --help.")


class Progress:
    """One line a step on standard error: its name while it runs, its time when it is done."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self, what: Step) -> None:
        name = f"{what.name:<9} {what.detail}"
        if what.seconds is not None:
            elapsed = time.perf_counter() - self._start
            over = "\r" if sys.stderr.isatty() else ""  # the line that said it was running
            print(f"{over}  {name:<52} {what.seconds:7.1f} s   {elapsed:7.1f} s in all", file=sys.stderr, flush=True)
        elif sys.stderr.isatty():
            print(f"\r  {name:<52} ...", end="", file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    from vitexport.manifest import encode

    sys.stdout.write(encode(value).decode())
