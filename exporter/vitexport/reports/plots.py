"""What the page draws: bytes against accuracy, latency run by run, SNR block by block. Places alone; the page draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from vitexport.contract import Measurement, Report
from vitexport.parity import SNR_CEILING_DB
from vitexport.reports import labels
from vitexport.reports.axes import HEIGHT, Axis, Tick, spanning
from vitexport.reports.cells import Row, megabytes, milliseconds, number, rows

if TYPE_CHECKING:
    from vitexport.diff.trace import Trace

#: More marks than this look like a line, and every one of them is bytes of the page.
_MOST_RUNS = 200

#: Shapes for targets, so that nothing hangs on colour: as many as the page has marks for.
SHAPES = 6


# ------------------------------------------------------------------------------------------ bytes against accuracy


@dataclass(frozen=True)
class Point:
    x: float
    """Percent."""
    y: float
    """Pixels from the top."""
    shape: int
    label: str
    """Empty where there is no room for it."""
    says: str
    """The figures, in words."""
    failed: bool
    lift: float
    """How far its label is from it, in pixels upwards."""
    leftwards: bool
    """Whether its label ends where it is."""


@dataclass(frozen=True)
class Scatter:
    title: str
    unit: str
    points: tuple[Point, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class _Variant:
    """One file; of what its providers made of it, the worst."""

    target: str
    label: str
    bytes: int
    value: float
    failed: bool


@dataclass(frozen=True)
class _Figure:
    """A field of a parity, as an axis shows it."""

    name: str
    title: str
    unit: str
    how: str
    share: bool = False


_SNR = _Figure("snr_db", "SNR beside PyTorch", "dB", ".1f")
_AGREEMENT = _Figure("agreement", "Agreement with PyTorch", "", ".4f", share=True)


def shapes(report: Report) -> dict[str, int]:
    """A mark for each target, in the order of the report."""
    targets = dict.fromkeys(result.target for result in report.results)
    return {target: index % SHAPES for index, target in enumerate(targets)}


def scatters(report: Report) -> tuple[Scatter, ...]:
    """SNR, and where it tells variants apart agreement too; none where nothing was judged."""
    made = []
    for figure in (_SNR, _AGREEMENT):
        variants = _variants(report, figure.name)
        if variants and (not figure.share or len({v.value for v in variants}) > 1):
            made.append(_scatter(figure, variants, shapes(report)))
    return tuple(made)


def _variants(report: Report, figure: str) -> list[_Variant]:
    sizes = {result.size for result in report.results}
    found: dict[str, _Variant] = {}
    for row in rows(report):
        result = row.result
        value = getattr(result.parity, figure)
        if value is None or not math.isfinite(value) or row.verdict not in ("passed", "failed") or not row.bytes:
            continue
        label = f"{result.target} {result.precision}" + (f" {result.size}" if len(sizes) > 1 else "")
        failed = row.verdict == "failed"
        seen = found.get(label)
        if seen:
            value, failed = min(value, seen.value), failed or seen.failed
        found[label] = _Variant(result.target, label, row.bytes, value, failed)
    return list(found.values())


def _scatter(figure: _Figure, variants: Sequence[_Variant], shape_of: dict[str, int]) -> Scatter:
    x_axis = spanning([v.bytes for v in variants], log=True)
    y_axis = spanning([v.value for v in variants], share=figure.share)
    ranked = sorted(variants, key=lambda v: (-v.value, v.bytes))
    places = [(100 * x_axis.share(v.bytes), HEIGHT * (1 - y_axis.share(v.value))) for v in ranked]
    named = labels.placed([v.label for v in ranked], places)
    points: list[Point] = []
    for variant, (x, y), label in zip(ranked, places, named, strict=True):
        says = f"{variant.label}: {variant.bytes:,} bytes, {variant.value:{figure.how}} {figure.unit}".rstrip() + (
            ", failed" if variant.failed else ""
        )
        lift, leftwards = (y - label.middle, label.leftwards) if label else (0.0, False)
        said = variant.label if label else ""
        points.append(Point(x, y, shape_of[variant.target], said, says, variant.failed, lift, leftwards))
    return Scatter(
        figure.title,
        figure.unit,
        tuple(points),
        tuple(Tick(100 * x_axis.share(t), megabytes(round(t))) for t in x_axis.ticks(5)),
        tuple(Tick(HEIGHT * (1 - y_axis.share(t)), f"{t:g}") for t in y_axis.ticks()),
    )


# ----------------------------------------------------------------------------------------------- latency, run by run


@dataclass(frozen=True)
class Strip:
    """One measurement; places are percent of the width."""

    row: Row
    runs: tuple[float, ...]
    cold: float | None
    median: float | None
    says: str
    also: str


@dataclass(frozen=True)
class Latencies:
    """Of one device: only these may be compared with one another."""

    device: str
    stand_in: str
    strips: tuple[Strip, ...]
    ticks: tuple[Tick, ...]


def latencies(report: Report) -> tuple[Latencies, ...]:
    """Devices first, what stands in for one last."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows(report):
        if row.result.latency.verdict == "passed" and row.result.latency.median_ms:
            groups.setdefault((row.ran_on, row.stand_in), []).append(row)
    made = [_latencies(device, stand_in, found) for (device, stand_in), found in groups.items()]
    return tuple(sorted(made, key=lambda group: bool(group.stand_in)))


def _latencies(device: str, stand_in: str, found: Sequence[Row]) -> Latencies:
    times = [ms for row in found for ms in _times(row.result.latency) if ms > 0 and math.isfinite(ms)]
    axis = spanning(times, log=True, room=0.03)
    ticks = tuple(Tick(100 * axis.share(ms), f"{ms:g}") for ms in axis.ticks(7))
    return Latencies(device, stand_in, tuple(_strip(row, axis) for row in found), ticks)


def _times(latency: Measurement) -> list[float]:
    known = (latency.cold_ms, latency.median_ms)
    return [*latency.times_ms, *(ms for ms in known if ms is not None)]


def _strip(row: Row, axis: Axis) -> Strip:
    latency = row.result.latency

    def at(ms: float | None) -> float | None:
        return None if ms is None else round(100 * axis.share(ms), 2)

    every = math.ceil(len(latency.times_ms) / _MOST_RUNS) or 1
    runs = tuple(100 * axis.share(ms) for ms in sorted(latency.times_ms)[::every])
    figures = (
        ("cold", latency.cold_ms),
        ("median", latency.median_ms),
        ("p90", latency.p90_ms),
        ("p99", latency.p99_ms),
    )
    says = " · ".join(f"{name} {milliseconds(ms)}" for name, ms in figures if ms is not None)
    return Strip(row, runs, at(latency.cold_ms), at(latency.median_ms), f"{says} ms", _also(latency))


def _also(latency: Measurement) -> str:
    said = [] if latency.load_ms is None else [f"loaded in {milliseconds(latency.load_ms)} ms"]
    said.append(f"{latency.runs} runs")
    if "threads" in latency.facts:
        said.append(f"threads: {latency.facts['threads']}")
    if latency.sustained_ms is not None:
        said.append(f"{milliseconds(latency.sustained_ms)} ms after {number(latency.sustained_after_s, ',.0f')} s")
    if latency.peak_memory_bytes:
        said.append(f"{megabytes(latency.peak_memory_bytes)} at most")
    return " · ".join(said)


# ------------------------------------------------------------------------------------------------ SNR, block by block


@dataclass(frozen=True)
class Place:
    x: float
    y: float | None
    """None: it could not be compared."""
    name: str
    first: bool


@dataclass(frozen=True)
class Walk:
    trace: Trace
    places: tuple[Place, ...]
    y_ticks: tuple[Tick, ...]

    @property
    def lines(self) -> Iterable[tuple[Place, Place]]:
        known = [place for place in self.places if place.y is not None]
        return pairwise(known)


def walks(traces: Sequence[Trace]) -> tuple[Walk, ...]:
    """Of those that were run."""
    return tuple(_walk(trace) for trace in traces if trace.rows)


def _walk(trace: Trace) -> Walk:
    known = [min(max(row.snr_db, 0.0), SNR_CEILING_DB) for row in trace.rows if row.snr_db is not None]
    axis = Axis(0.0, max([20.0, *known]) * 1.05)
    places = tuple(
        Place(
            100 * (index + 0.5) / len(trace.rows),
            None if row.snr_db is None else HEIGHT * (1 - axis.share(row.snr_db)),
            row.place,
            row.place == trace.first,
        )
        for index, row in enumerate(trace.rows)
    )
    return Walk(trace, places, tuple(Tick(HEIGHT * (1 - axis.share(t)), f"{t:g}") for t in axis.ticks()))
