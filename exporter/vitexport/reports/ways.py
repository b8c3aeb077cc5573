"""What would run what was not run, and what made the rows of devices: commands, and what they take, told alike on the
page, in Markdown and below the terminal's table."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vitexport import registry
from vitexport.contract import Remote, Report, Result, Target
from vitexport.errors import BadRequest
from vitexport.reports import again, cells
from vitexport.reports.file import device_of

#: What a device that is attached has to be, and the command's last words, by how it is reached.
_ATTACHED = {
    "adb": ("On an Android device that is attached, its GPU too", "--device adb --benchmark-model PATH"),
    "ios": ("On a Mac that an iPhone or iPad is attached to", "--device ios --team ID"),
}

_THERE = "On a machine that has what is missing"

#: A missing toolchain's sentence says how to get it: see :mod:`vitexport.toolchain`.
_SAYS_WHAT_TO_INSTALL = re.compile(r"\b(Run: |Install )")

#: What a runtime says of the file itself, which it would say on any machine. "parity failed" is the file's fault, too.
_NOWHERE = re.compile(r"^parity failed|\bwrongly\b|\brefuses\b|\bcrashes on it\b")


@dataclass(frozen=True)
class Way:
    where: str
    """What it takes; a command follows it."""
    command: str
    """One line for a POSIX shell."""


def all_of(report: Report, program: str = "vitexport") -> tuple[Way, ...]:
    """Each once, however much it would run. ``program`` is how this one is called."""
    found = dict.fromkeys(way for unrun in cells.unrun(report) for way in ways(report, unrun, program))
    return _sorted(found)


def ways(report: Report, unrun: cells.Unrun, program: str = "vitexport") -> tuple[Way, ...]:
    """Of what was not run for one reason; none where no machine would run it, or a device did already."""
    found: dict[Way, None] = {}
    for each in unrun.absent:
        found |= dict.fromkeys(_ways(report, each.row.result, unrun.reason, program))
    return _sorted(found)


def _sorted(found: Iterable[Way]) -> tuple[Way, ...]:
    """What files its figures first."""
    return tuple(sorted(found, key=lambda way: way.where == _THERE))


def _ways(report: Report, result: Result, reason: str, program: str) -> Iterator[Way]:
    target = _known(result.target)
    if target is None or _NOWHERE.search(reason):
        return
    bundle = again.path(report.out, result.target)
    if _SAYS_WHAT_TO_INSTALL.search(reason):
        yield Way("With what is missing installed", f"{program} check {bundle}")
        return
    if result.provider in target.traits.older:
        return
    if cells.shown(result) == "timed" and not device_of(result):  # by bench, which proves nothing
        if result.provider in target.traits.providers:
            yield Way("To prove it", f"{program} check {bundle}")
        return
    if isinstance(target, Remote):
        if not _ran_elsewhere(report, result, {result.provider}):
            yield Way("On a phone, or whatever else has a browser", f"{program} bench {bundle} --device browser --lan")
        return
    if not _ran_elsewhere(report, result, {r.provider for r in report.results}):
        for where, options in (_ATTACHED[way] for way in target.traits.devices if way in _ATTACHED):
            yield Way(where, f"{program} bench {bundle} {options}")
    if not device_of(result):
        yield Way(_THERE, f"{program} check {bundle}")


def of_devices(report: Report) -> tuple[Way, ...]:
    """What made the rows of devices that are not the host, for each way that they came in."""
    found: dict[tuple[str, str], list[Result]] = {}
    for result in report.results:
        way = _came(result) if device_of(result) else ""
        if way:
            found.setdefault((result.target, way), []).append(result)
    return tuple(_again(report, target, way, results) for (target, way), results in found.items())


def _came(result: Result) -> str:
    """``browser``, ``adb``, ``ios``, or ``file``: written by what a bundle brings, and taken back."""
    target = _known(result.target)
    if target is None:
        return ""
    if isinstance(target, Remote):
        return "browser"
    if "adb" in target.traits.devices:
        return "adb"
    # Where a phone is attached, coremltools' model runner drives Core ML, and says so; a Swift package does not.
    return "ios" if "driven by" in result.parity.runtime else "file"


def _again(report: Report, target: str, way: str, results: list[Result]) -> Way:
    devices = list(dict.fromkeys(map(device_of, results)))
    where = f"What ran on {', '.join(devices)}"
    if way == "file":
        return Way(where, f"vitexport report {again.path(report.out)} --add FILE")
    bench = f"vitexport bench {again.path(report.out, target)}"
    if way != "browser":
        return Way(where, f"{bench} {_ATTACHED[way][1]}")
    # Where its owner named a device, its own name is kept beside: see vitexport.devices.report.
    named = {device_of(r) for r in results if "model" in r.latency.facts}
    if named.issuperset(devices):
        return Way(where, " ".join([bench, "--device browser --lan", *(f"--name {shlex.quote(d)}" for d in devices)]))
    return Way(where, f"{bench} --device browser --lan" + (f" --devices {len(devices)}" if len(devices) > 1 else ""))


def _known(name: str) -> Target | None:
    """None where a plug-in brought it, which is not here."""
    try:
        return registry.target(name)
    except BadRequest:
        return None


def _ran_elsewhere(report: Report, result: Result, providers: set[str]) -> bool:
    """Whether a device that is not this machine ran the same file at the same size, on one of ``providers``."""
    cell = (result.target, result.precision, result.size)
    return any(
        device_of(r) and r.device_verdict != "not run" and r.provider in providers
        for r in report.results
        if (r.target, r.precision, r.size) == cell
    )
