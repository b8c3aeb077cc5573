"""Lints as a person reads them: a headline a variant, and below it what is not taken, alike findings together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vitexport.contract import Finding, Lint
from vitexport.lint import Linted

_WIDTH = 132  # as report.py's

#: Layers that are named of those with the same finding: a stack of blocks has it in each.
_NAMED = 3


def render(found: Sequence[Linted], file: IO[str] | None = None) -> None:
    console = Console(file=file or sys.stdout, width=_WIDTH, highlight=False)
    for linted in found:
        lint = linted.lint
        subject = f"{linted.model} {linted.size}, {linted.target} {linted.precision}:"
        console.print(Text(subject, style="bold"), end=" ")
        console.print(_headline(lint), style="yellow" if lint.findings else "green", soft_wrap=True)
        if lint.findings:
            console.print(_table(lint.findings))
        for note in filter(None, (f"by {lint.basis}", lint.note)):
            console.print(f"  {note}", style="dim", soft_wrap=True)
        console.print()


def _headline(lint: Lint) -> str:
    if not lint.findings:
        return f"{lint.accelerator} takes all {lint.operations:,} operations"
    share = f"{len(lint.findings):,} of {lint.operations:,} operations"
    if lint.unfit:
        return f"{lint.accelerator} {lint.unfit}, because of {share}"
    return f"{share} {'is' if len(lint.findings) == 1 else 'are'} not taken by {lint.accelerator}"


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 2))
    table.add_column("nodes", justify="right", no_wrap=True)
    for name in ("operation", "why", "layers", "rewrite"):
        table.add_column(name, overflow="fold")
    alike: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((_kind(finding), finding.why, finding.rewrite), []).append(finding)
    for (kind, why, rewrite), those in alike.items():
        table.add_row(f"{len(those):,}", kind, why, _layers(those), rewrite)
    return table


def _kind(finding: Finding) -> str:
    return finding.operation.partition(" (")[0]


def _layers(those: Sequence[Finding]) -> str:
    """Where no layer is known, the operation's own name."""
    named = list(dict.fromkeys(finding.layer or finding.operation for finding in those))
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more
