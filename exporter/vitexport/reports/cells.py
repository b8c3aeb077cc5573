"""A report's results as rows to be read, the same for the page, for Markdown and for the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vitexport.bench import SOFTWARE_ADAPTER
from vitexport.contract import Report, Result

#: ``timed``: latency was measured, and parity was not asked for.
Shown = Literal["passed", "failed", "not run", "timed"]


@dataclass(frozen=True)
class Row:
    """One result. Texts are as they are in the report: whoever shows them escapes them."""

    result: Result
    verdict: Shown
    why: str
    """Why it failed or was not run."""
    bytes: int
    ran_on: str
    """The device that it was timed on, else what computed its answers; empty where this machine could not."""
    runtime: str
    stand_in: str
    """Why its figures are no device's; empty where they are."""

    @property
    def name(self) -> str:
        r = self.result
        return f"{r.target} {r.precision} on {r.provider}, {r.size}"


def rows(report: Report) -> tuple[Row, ...]:
    """In the report's own order."""
    return tuple(map(row, report.results))


def row(result: Result) -> Row:
    parity, latency = result.parity, result.latency
    verdict = shown(result)
    return Row(
        result,
        verdict,
        "" if verdict in ("passed", "timed") else parity.reason,
        sum(file.bytes for file in result.files),
        latency.device.removesuffix(f" ({SOFTWARE_ADAPTER})") or parity.runtime,
        latency.runtime or parity.runtime,
        stand_in(result),
    )


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


def counted(report: Report) -> str:
    """``5 passed, 0 failed, 1 not run``."""
    verdicts = [shown(result) for result in report.results]
    timed = f", {verdicts.count('timed')} timed" if "timed" in verdicts else ""
    return f"{verdicts.count('passed')} passed, {verdicts.count('failed')} failed, " + (
        f"{verdicts.count('not run')} not run{timed}"
    )


@dataclass(frozen=True)
class Unrun:
    """What was not run for one reason."""

    reason: str
    rows: tuple[Row, ...]
    what: tuple[str, ...]
    """Of each row in words: the variant, or its latency, or a device's verdict on it."""


def unrun(report: Report) -> tuple[Unrun, ...]:
    """Each reason for which something was not run. Nothing of it has passed."""
    found: dict[str, list[tuple[Row, str]]] = {}

    def add(reason: str, each: Row, what: str) -> None:
        found.setdefault(reason or "no reason is known", []).append((each, what))

    for each in rows(report):
        result = each.result
        if each.verdict == "not run":
            add(each.why, each, each.name)
            continue
        if each.verdict == "timed":
            add(result.parity.reason, each, f"parity of {each.name}")
        if result.latency.verdict == "not run":
            add(result.latency.reason, each, f"latency of {each.name}")
        if result.device_verdict == "not run" and result.device_reason:
            add(result.device_reason, each, f"a device's verdict on {each.name}")
    return tuple(
        Unrun(reason, tuple(row for row, _ in these), tuple(what for _, what in these))
        for reason, these in found.items()
    )


def where(result: Result) -> str:
    """The device that ran it, or did not, by its own name; empty where that is this machine."""
    # What computed it names the device as well: see vitexport.devices.report and with_results in .file.
    return result.parity.runtime.partition(" on ")[2]


def number(value: float | None, how: str) -> str:
    """A dash where there is none."""
    return "–" if value is None else format(value, how)


def megabytes(count: int) -> str:
    """To three digits: ``449 kB``, ``22.5 MB``."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 999.5 * size else f"{count / size:,.0f} {unit}"
    return f"{count} B"
