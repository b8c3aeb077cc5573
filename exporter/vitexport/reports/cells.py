"""A report's results as rows to be read, the same for the page, for Markdown and for the terminal."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from vitexport.bench import SOFTWARE_ADAPTER
from vitexport.contract import Report, Result
from vitexport.reports.file import device_of

#: ``timed``: latency was measured, and parity was not asked for.
Shown = Literal["passed", "failed", "not run", "timed"]


#: As :func:`vitexport.spread.warning` puts it. A dozen such sentences in a report are one figure beside each median.
_WIDE = re.compile(r"wide spread: the median is (\S+ to \S+) ms \(95% confidence\)")

#: The machine that exported, as names and heads call it: a report is read anywhere.
HOST = "the host"


@dataclass(frozen=True)
class Held:
    """The figure that was judged, and its bound: noise is judged as the SNR that it is."""

    figure: Literal["drift", "snr_db"]
    bound: float

    @property
    def shown(self) -> str:
        """Beside the figure itself."""
        return f"≤ {self.bound:.1e}" if self.figure == "drift" else f"≥ {self.bound:.1f}"

    @property
    def says(self) -> str:
        return f"drift {self.shown}" if self.figure == "drift" else f"SNR {self.shown} dB"


@dataclass(frozen=True)
class Row:
    """One result. Texts are as they are in the report: whoever shows them escapes them."""

    result: Result
    name: str
    """No other row's: with its device, where that is not the host or rows would read alike, and with what ran it there
    where they would still."""
    verdict: Shown
    why: str
    """Why it failed or was not run."""
    bytes: int
    ran_on: str
    """The device that it was timed on, else what computed its answers; empty where the host could not."""
    runtime: str
    twin: str
    """``runtime``, and on how many threads, where another row of the same device reads alike; else empty."""
    stand_in: str
    """Why its figures are no device's; empty where they are."""
    held: Held | None
    """None where nothing was judged."""
    interval: str
    """Where the median lies, in milliseconds, of runs that spread widely; else empty."""
    warning: str
    """What else there is to take the times with care for."""

    @property
    def fallen(self) -> str:
        return fallen(self.result)


@dataclass(frozen=True)
class Group:
    """What one device ran, or could not."""

    device: str
    """Its own name."""
    is_host: bool
    rows: tuple[Row, ...]


def rows(report: Report) -> tuple[Row, ...]:
    """In the report's own order."""
    same = Counter((_plain_name(result), device_of(result)) for result in report.results)
    devices = Counter(name for name, _ in same)
    return tuple(
        _row(result, devices[_plain_name(result)] > 1, same[_plain_name(result), device_of(result)] > 1)
        for result in report.results
    )


def groups(report: Report) -> tuple[Group, ...]:
    """Of the host first, then of the devices as they came."""
    found: dict[str, list[Row]] = {}
    for row in rows(report):
        found.setdefault(device_of(row.result), []).append(row)
    host = report.host.get("cpu", "")
    return tuple(Group(device or host, not device, tuple(found[device])) for device in sorted(found, key=bool))


def _row(result: Result, is_elsewhere: bool, is_twice: bool) -> Row:
    parity, latency, device = result.parity, result.latency, device_of(result)
    verdict = shown(result)
    runtime = latency.runtime or parity.runtime.removesuffix(f" on {device}")
    twin = runtime + _threads(result) if is_twice else ""
    apart = [device] if device else [HOST] if is_elsewhere else []
    interval, warning = _spread(latency.warning)
    return Row(
        result,
        ", ".join([_plain_name(result), *apart, *([twin] if twin else [])]),
        verdict,
        "" if verdict in ("passed", "timed") else parity.reason,
        sum(file.bytes for file in result.files),
        latency.device.removesuffix(f" ({SOFTWARE_ADAPTER})") or device or parity.runtime,
        runtime,
        twin,
        stand_in(result),
        held(result),
        interval,
        warning,
    )


def _threads(result: Result) -> str:
    """Where neither the runtime nor the device says so already."""
    latency = result.latency
    number = latency.facts.get("threads", "")
    said = not number or "thread" in f"{latency.device} {latency.runtime}"
    return "" if said else f", {number} thread{'' if number == '1' else 's'}"


def _spread(warning: str) -> tuple[str, str]:
    """The interval that a warning tells, and what it says beside."""
    said = [part for part in warning.split("; ") if part]
    intervals = [found[1] for part in said if (found := _WIDE.fullmatch(part))]
    return "".join(intervals[:1]), "; ".join(part for part in said if not _WIDE.fullmatch(part))


def _plain_name(result: Result) -> str:
    return f"{result.target} {result.precision} on {result.provider}, {result.size}"


def shown(result: Result) -> Shown:
    timed_only = result.parity.verdict == "not run" and result.latency.verdict == "passed"
    return "timed" if timed_only else result.parity.verdict


def stand_in(result: Result) -> str:
    """Why what ran it is not what users have: an adapter that emulates a GPU, an evaluator of files."""
    if shown(result) == "not run":
        return ""
    if result.device_verdict == "not run" and result.device_reason not in ("", result.parity.reason):
        return result.device_reason
    return "a software adapter" if SOFTWARE_ADAPTER in result.latency.device else ""


def held(result: Result) -> Held | None:
    """What the verdict hangs on."""
    parity = result.parity
    if parity.verdict == "not run" or not parity.tolerance or parity.tolerance < 0:
        return None
    if parity.metric == "drift":
        return Held("drift", parity.tolerance)
    return Held("snr_db", -20 * math.log10(parity.tolerance))


def counted(report: Report) -> str:
    """``5 passed, 0 failed, 1 not run``."""
    verdicts = [shown(result) for result in report.results]
    timed = f", {verdicts.count('timed')} timed" if "timed" in verdicts else ""
    return f"{verdicts.count('passed')} passed, {verdicts.count('failed')} failed, " + (
        f"{verdicts.count('not run')} not run{timed}"
    )


@dataclass(frozen=True)
class Absent:
    """A row, or what of it was not run."""

    row: Row
    parts: tuple[str, ...] = ()
    """Empty: all of it."""

    @property
    def says(self) -> str:
        return f"{self.row.name}: {', '.join(self.parts)}" if self.parts else self.row.name


@dataclass(frozen=True)
class Unrun:
    """What was not run for one reason."""

    reason: str
    absent: tuple[Absent, ...]


def unrun(report: Report) -> tuple[Unrun, ...]:
    """Each reason for which something was not run. Nothing of it has passed."""
    found: dict[str, list[Absent]] = {}
    for row in (row for group in groups(report) for row in group.rows):
        for reason, parts in _unrun_of(row).items():
            found.setdefault(reason or "no reason is known", []).append(Absent(row, tuple(parts)))
    return tuple(Unrun(reason, tuple(absent)) for reason, absent in found.items())


def _unrun_of(row: Row) -> dict[str, list[str]]:
    """By the reason, each part for which it is one; no part where it is that for all."""
    result = row.result
    if row.verdict == "not run":
        return {row.why: []}
    found: dict[str, list[str]] = {}
    for part, verdict, reason in (
        ("parity", result.parity.verdict, result.parity.reason),
        ("latency", result.latency.verdict, result.latency.reason),
        ("a device's verdict", result.device_verdict if result.device_reason else "", result.device_reason),
    ):
        if verdict == "not run":
            found.setdefault(reason, []).append(part)
    return found


def fallen(result: Result) -> str:
    """How many nodes were left to the CPU, and the first of them; empty where none was."""
    if not (result.placement and result.placement.fallback):
        return ""
    nodes, named = result.placement.nodes, result.placement.fallback
    # LiteRT's GPU delegate names what it refuses once a kind, and nothing of what it cuts off.
    count = sum(nodes.values()) - nodes["webgpu"] if "webgpu" in nodes else len(named)
    return f"{count:,} node{'' if count == 1 else 's'} fell back to the CPU: {', '.join(named[:3])}"


def number(value: float | None, how: str) -> str:
    """A dash where there is none."""
    return "–" if value is None else format(value, how)


def milliseconds(ms: float | None) -> str:
    """To three digits, and whole ones in full: ``0.0880``, ``3.21``, ``1,235``. A dash where there is none."""
    if ms is None:
        return "–"
    rounded = float(f"{ms:.3g}") if math.isfinite(ms) else 0.0
    decimals = max(0, 2 - math.floor(math.log10(rounded))) if rounded > 0 else 0
    return f"{ms:,.{decimals}f}"


def megabytes(count: int) -> str:
    """To three digits: ``449 kB``, ``22.5 MB``."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 999.5 * size else f"{count / size:,.0f} {unit}"
    return f"{count} B"
