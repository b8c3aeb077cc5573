"""A comparison of two reports as a person reads it in a terminal."""

from __future__ import annotations

import sys
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vitexport.contract import Verdict
from vitexport.reports.compare import Check, Comparison

_WIDTH = 160
_STYLES: dict[Verdict, str] = {"passed": "green", "failed": "bold red", "not run": "yellow"}

_FIGURES = (
    ("bytes", "bytes", "{:+.1f} %", 1.0),
    ("drift", "drift", "x{:.2f}", 1.0),
    ("snr_db", "SNR dB", "{:+.1f}", -1.0),
    ("agreement", "agreement", "{:+.2f}", -1.0),
    ("latency", "median ms", "x{:.2f}", 1.0),
)


def render(made: Comparison, file: IO[str] | None = None) -> None:
    """A row a cell, how each figure changed, and below them each regression in words."""
    console = Console(file=file or sys.stdout, width=_WIDTH, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("target", "precision", "provider", "size", "was", "is", "verdict"):
        table.add_column(name, no_wrap=name != "provider")  # which may name a device
    for _, name, _, _ in _FIGURES:
        table.add_column(name, justify="right", no_wrap=True)
    for cell in made.cells:
        checks = {check.figure: check for check in cell.checks}
        known = (cell.target, cell.precision, cell.where, str(cell.size), cell.was, cell.now)
        changes = (_change(checks.get(name), how, sign) for name, _, how, sign in _FIGURES)
        table.add_row(*(Text(each) for each in known), Text(cell.said, style=_STYLES[cell.verdict]), *changes)
    console.print(table)
    for sentence in made.regressions:
        console.print(Text(f"Regression: {sentence}", style="bold red"), soft_wrap=True)
    for cell in made.cells:
        for check in cell.checks:
            if check.verdict == "not run":
                console.print(Text(f"Not compared: {check.figure} of {cell.name}: {check.reason}"), soft_wrap=True)
    for note in made.notes:
        console.print(Text(f"Note: {note}"), soft_wrap=True)
    if made.verdict == "not run":
        console.print("Nothing could be compared.")
    count = len(made.regressions)
    console.print(f"{count} regressions." if count != 1 else "1 regression.")


def _change(check: Check | None, how: str, sign: float) -> Text:
    if check is None or check.change is None:
        return Text("-")
    # What is not judged is shown as such without colours, too.
    doubt = "?" if check.verdict == "not run" else ""
    return Text(how.format(sign * check.change + 0.0) + doubt, style=_STYLES[check.verdict])
