"""Traces as a person reads them: a row a place, and what is found below."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vitexport.diff.trace import Row, Trace

_WIDTH = 132  # as report.py's


def render(traces: Sequence[Trace], file: IO[str] | None = None) -> None:
    console = Console(file=file or sys.stdout, width=_WIDTH, highlight=False)
    for trace in traces:
        console.print(Text(f"{trace.model}: {trace.label}", style="bold"), Text(trace.runtime, style="dim"))
        if trace.rows:
            console.print(_table(trace))
        console.print(
            trace.finding or f"not run: {trace.reason}", style="" if trace.finding else "yellow", soft_wrap=True
        )
        for note in trace.notes:
            console.print(f"Note: {note}", style="dim", soft_wrap=True)
        console.print()


def _table(trace: Trace) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("after", no_wrap=True)
    for name in ("SNR dB", "own SNR", "of branch", "drift", "cosine"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("value in the artifact", no_wrap=True)
    for row in trace.rows:
        table.add_row(*_cells(row), style="bold red" if row.place == trace.first else "")
    return table


def _cells(row: Row) -> list[str]:
    name = {"same": row.value, "nearest": f"{row.value} (the nearest)", "not matched": "not matched"}[row.matched]
    return [
        row.place,
        _number(row.snr_db, ".1f"),
        _number(row.own_snr_db, ".1f"),
        _number(row.branch_snr_db, ".1f"),
        _number(row.drift, ".1e"),
        _number(row.cosine, ".6f"),
        name,
    ]


def _number(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)
