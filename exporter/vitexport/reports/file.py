"""``report.json`` as it lies in a folder: read, added to, and written in one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vitexport.bench import SOFTWARE_ADAPTER
from vitexport.contract import Report, Result
from vitexport.errors import BadRequest
from vitexport.manifest import REPORT_NAME, Malformed, decode, encode


def read_report(place: Path) -> Report:
    """Of the folder that ``vitexport --out`` wrote, or the file itself. Raises ``BadRequest`` where there is none."""
    path = place if place.is_file() else place / REPORT_NAME
    try:
        return decode(path.read_bytes(), Report)
    except OSError:
        raise BadRequest(
            f"'{place}' has no {REPORT_NAME}. Name the folder that vitexport wrote, which holds the bundles."
        ) from None
    except Malformed as error:
        raise BadRequest(f"'{path}' is not a report this version reads ({error}). Export the model again.") from error


def with_results(report: Report, results: Sequence[Result]) -> Report:
    """The report and ``results``: each in place of what the same device said of the same cell before, else last."""
    new = {_cell(result): result for result in results}
    kept = tuple(new.pop(_cell(result), result) for result in report.results)
    return replace(report, results=(*kept, *new.values()))


def timed_again(report: Report, results: Sequence[Result]) -> Report:
    """The report and ``results``, of which latency alone was measured: in place of the latency of the same cell in the
    same runtime on as many threads, whose proof stays, else last."""
    found = list(report.results)
    for result in results:
        if result.latency.verdict != "passed":
            continue
        at = next((i for i, known in enumerate(found) if _clock(known) == _clock(result)), None)
        if at is None:
            found.append(result)
        else:
            found[at] = replace(found[at], latency=result.latency, placement=result.placement or found[at].placement)
    return replace(report, results=tuple(found))


def _clock(result: Result) -> tuple[str | None, ...]:
    return (*_cell(result), result.latency.device, result.latency.facts.get("threads"))


def device_of(result: Result) -> str:
    """The device that measured it by itself, or could not, by its own name; empty where the host that exported did."""
    # Its runtime is said to be "on" it: see vitexport.devices.report.
    runtime, device = result.parity.runtime, result.latency.device.removesuffix(f" ({SOFTWARE_ADAPTER})")
    if device:
        return device if runtime.endswith(f" on {device}") else ""
    return runtime.partition(" on ")[2]


def _cell(result: Result) -> tuple[str, ...]:
    # What computed it names the device as well, where it was not this machine: see vitexport.devices.report.
    where = (result.target, result.precision, result.provider, str(result.size))
    return (result.model, *where, result.parity.runtime)


def write_report(report: Report, directory: Path) -> None:
    """``report.json`` is the old one or the new one, whenever somebody looks. Raises ``WorldFailed``."""
    from vitexport.bundle import whole  # which brings numpy; who reads a report does without

    with whole(directory / REPORT_NAME) as part:
        part.write_bytes(encode(report))
