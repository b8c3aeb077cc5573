"""A report as a person reads it: the table, what its devices are, and the command to type next."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vitexport.contract import Measurement, Parity, Report, Result
from vitexport.reports import again, ways
from vitexport.reports.cells import HOST, Shown, counted, fallen, held, milliseconds, shown
from vitexport.reports.file import device_of

#: Wide enough for every column at its widest. A narrower terminal breaks the rows in two; rich would cut figures and
#: verdicts off.
_WIDTH = 200

#: Letters of a device's name in a row; its note has all.
_LONGEST_DEVICE = 24

_STYLES: dict[Shown, str] = {"passed": "bold green", "failed": "bold red", "not run": "yellow", "timed": ""}


def render(results: Sequence[Result], file: IO[str] | None = None) -> None:
    """One row a cell; devices and reasons below the table, numbered, so that no row has to wrap."""
    console = Console(file=file or sys.stdout, width=_WIDTH, highlight=False)
    notes = _Notes()
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("target", "precision", "provider", "size"):
        table.add_column(name, no_wrap=True)
    for name in ("bytes", "drift", "SNR dB", "agreement", "cold ms", "median ms", "p90 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("device", "verdict"):
        table.add_column(name, no_wrap=True)
    is_of_several = len({device_of(result) for result in results}) > 1
    for result in results:
        device = _short(device_of(result) or HOST) if is_of_several else ""
        table.add_row(*_cells(result, device, notes))
    console.print(table)
    for line in (*notes.lines, *_held(results)):
        console.print(line, style="dim", soft_wrap=True)


def summary(report: Report, command: str = "vitexport") -> str:
    """The closing lines: where it is, what would run the rest, and what to type next. ``command`` is how this program
    was called."""
    verdicts = {result.verdict for result in report.results if not device_of(result)}
    lines = [f"{counted(report)}. Everything is in {report.out}/ (report.html, report.json, proof.png)."]
    if "failed" in verdicts:
        lines.append("The bundle failed its proof: it is kept apart, under that name, for you to look at.")
        return "\n".join(lines)
    if report.request.require_device:
        lines += dict.fromkeys(_absent(result) for result in report.results if result.device_reason)
    lines += rest(report, command)
    if "passed" in verdicts:
        lines.append(f"Next: {_next_step(report, command)}")
    return "\n".join(lines)


def rest(report: Report, command: str = "vitexport") -> list[str]:
    """What would run what was not run, in lines; none where nothing is left, or nothing would."""
    found = ways.all_of(report, command)
    if not found:
        return []
    return ["What was not run, or was stood in for, would run so:", *(f"  {w.where}: {w.command}" for w in found)]


def _next_step(report: Report, command: str) -> str:
    """The page of a bundle that has one; else what a device is to run, where none could judge anything; else latency
    again."""
    targets = dict.fromkeys(result.target for result in report.results)
    if any((Path(report.out) / target / "index.html").is_file() for target in targets):
        return f"{command} preview {again.path(report.out)}"
    found = ways.all_of(report, command)
    if found and all(result.device_verdict == "not run" for result in report.results):
        return found[0].command
    return f"{command} bench {again.path(report.out)}"


def _absent(result: Result) -> str:
    return f"--require-device: {result.target} {result.precision} has no verdict of a device ({result.device_reason})."


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


def _short(device: str) -> str:
    return device if len(device) <= _LONGEST_DEVICE else f"{device[: _LONGEST_DEVICE - 3]}..."


def _cells(result: Result, device: str, notes: _Notes) -> list[str | Text]:
    parity, latency = result.parity, result.latency
    return [
        result.target,
        result.precision,
        result.provider,
        str(result.size),
        f"{sum(f.bytes for f in result.files):,}",
        _judged(result, "drift", _number(parity.drift, ".1e")),
        _judged(result, "snr_db", _number(parity.snr_db, ".1f")),
        _number(parity.agreement, ".4f"),
        *("-" if ms is None else milliseconds(ms) for ms in (latency.cold_ms, latency.median_ms, latency.p90_ms)),
        Text(f"{device} {notes.mark(_device(result)).removeprefix('-')}".strip() or "-"),
        _verdict(result, notes),
    ]


def _judged(result: Result, figure: str, said: str) -> Text:
    """In brackets where it decides nothing: most terminals show what is dim, and no file does."""
    decides = held(result)
    return Text(said) if decides is None or decides.figure == figure else Text(f"({said})", style="dim")


def _held(results: Sequence[Result]) -> Iterable[Text]:
    """What was judged, of which variants."""
    found: dict[str, dict[str, None]] = {}
    for result in results:
        if decides := held(result):
            found.setdefault(decides.says, {})[f"{result.target} {result.precision}"] = None
    if found:
        # Not every terminal, nor every file that it is sent to, has the signs.
        said = "; ".join(
            f"{says.replace('≤', '<=').replace('≥', '>=')} for {', '.join(variants)}"
            for says, variants in found.items()
        )
        yield Text(f"Judged: {said}. In brackets: what decides nothing.")


def _device(result: Result) -> str:
    latency, parity = result.latency, result.parity
    if not latency.device:
        absent = f"; device: {result.device_verdict} ({result.device_reason})" if result.device_reason else ""
        return f"{parity.runtime}{absent}{_people(parity)}{_gates(parity)}" if parity.runtime else ""
    left = fallen(result)
    return f"{_timed(latency)}{f'; {left}' if left else ''}{_people(parity)}{_gates(parity)}"


def _timed(latency: Measurement) -> str:
    """On what, how often, and what else there is to know of the figures."""
    threads = latency.facts.get("threads")
    told = f", {threads} thread{'' if threads == '1' else 's'}" if threads and "thread" not in latency.device else ""
    after = latency.sustained_after_s
    lasting = "" if after is None else f"; {milliseconds(latency.sustained_ms)} ms after {after / 60:g} min of work"
    rest = (("load", latency.load_ms), ("p99", latency.p99_ms))
    also = "".join(f", {name} {milliseconds(ms)} ms" for name, ms in rest if ms is not None)
    care = f"; {latency.warning}" if latency.warning else ""
    return f"{latency.device}, {latency.runtime}, {latency.provider}{told}, {latency.runs} runs{also}{lasting}{care}"


def _people(parity: Parity) -> str:
    """Of a mask of people it is the agreement already."""
    iou = parity.person_iou
    return "" if iou is None or iou == parity.agreement else f"; IoU of people's masks {iou:.4f}"


def _gates(parity: Parity) -> str:
    """Each with its figure, and the bound on it."""
    found = [
        f"{gate.name} {gate.verdict}: {gate.claim}"
        if gate.value is None
        else f"{gate.name} {gate.value:.4g} {gate.unit}".rstrip()
        for gate in parity.gates
    ]
    return f"; gates: {', '.join(found)}" if found else ""


def _verdict(result: Result, notes: _Notes) -> Text:
    verdict, reason = shown(result), result.parity.reason
    text = Text(verdict, style=_STYLES[verdict])
    if reason and verdict != "timed":
        text.append(f" {notes.mark(reason)}")
    return text


def _number(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)
