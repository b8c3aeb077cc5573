"""A report as a person reads it: the table, what its devices are, and the command to type next."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vitexport.contract import Measurement, Parity, Report, Result, Verdict

#: Wide enough for every column. A narrower terminal breaks the rows in two; rich would cut figures and verdicts off.
_WIDTH = 132

_STYLES: dict[Verdict, str] = {"passed": "bold green", "failed": "bold red", "not run": "yellow"}


def render(results: Sequence[Result], file: IO[str] | None = None) -> None:
    """One row a cell; devices and reasons below the table, numbered, so that no row has to wrap."""
    console = Console(file=file or sys.stdout, width=_WIDTH, highlight=False)
    notes = _Notes()
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("target", "precision", "provider", "size"):
        table.add_column(name, no_wrap=True)
    for name in ("bytes", "drift", "SNR dB", "agreement", "cold ms", "median ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("device", "verdict"):
        table.add_column(name, no_wrap=True)
    for result in results:
        table.add_row(*_cells(result, notes))
    console.print(table)
    for line in notes.lines:
        console.print(line, style="dim", soft_wrap=True)


def summary(report: Report, command: str = "vitexport") -> str:
    """The closing lines: where it is, and what to type next. ``command`` is how this program was called."""
    out = Path(report.out)
    passed, failed, unrun = (sum(r.verdict == v for r in report.results) for v in ("passed", "failed", "not run"))
    counted = f"{passed} passed, {failed} failed, {unrun} not run."
    lines = [f"{counted} Everything is in {out}/ (report.json, proof.png)."]
    if failed:
        lines.append("The bundle failed its proof: it is kept apart, under that name, for you to look at.")
    elif passed:
        targets = list(dict.fromkeys(r.target for r in report.results))
        shown = next((t for t in targets if (out / t / "index.html").is_file()), None)
        lines.append(f"Next: {command} preview {out / shown}" if shown else f"Next: {command} bench {out / targets[0]}")
    return "\n".join(lines)


class _Notes:
    """Numbered footnotes; the same text gets the same number."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def mark(self, text: str) -> str:
        if not text:
            return "-"
        if text not in self._texts:
            self._texts.append(text)
        return f"[{self._texts.index(text) + 1}]"

    @property
    def lines(self) -> Iterable[Text]:
        return (Text(f"[{i}] {text}") for i, text in enumerate(self._texts, 1))


def _cells(result: Result, notes: _Notes) -> list[str | Text]:
    parity, latency = result.parity, result.latency
    return [
        result.target,
        result.precision,
        result.provider,
        str(result.size),
        f"{sum(f.bytes for f in result.files):,}",
        _number(parity.drift, ".1e"),
        _number(parity.snr_db, ".1f"),
        _number(parity.agreement, ".4f"),
        _number(latency.cold_ms, ",.1f"),
        _number(latency.median_ms, ",.1f"),
        Text(notes.mark(_device(result))),
        _verdict(parity, latency, notes),
    ]


def _device(result: Result) -> str:
    latency = result.latency
    if not latency.device:
        return ""
    fallback = result.placement.fallback if result.placement else ()
    left = f"; {len(fallback)} nodes fell back to the CPU: {', '.join(fallback[:3])}" if fallback else ""
    return f"{latency.device}, {latency.runtime}, {latency.provider}, {latency.runs} runs{left}"


def _verdict(parity: Parity, latency: Measurement, notes: _Notes) -> Text:
    timed_only = parity.verdict == "not run" and latency.verdict == "passed"
    verdict: Verdict = "passed" if timed_only else parity.verdict
    text = Text("timed" if timed_only else verdict, style="" if timed_only else _STYLES[verdict])
    if parity.reason and not timed_only:
        text.append(f" {notes.mark(parity.reason)}")
    return text


def _number(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)
