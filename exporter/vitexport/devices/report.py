"""What a device measured of a bundle by itself, taken back: believed in nothing that can be checked here.

A ``DeviceReport`` comes from outside: a page posted it, or a phone's tests wrote it. Its size, its counts, its texts
and its numbers are bounded before anything is made of it, and its figures are judged again, by the manifest that is
here. A device that says it failed has failed; one that says it passed has passed only if its figures say so too.
"""

from __future__ import annotations

import hashlib
import math
import re
import statistics
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from vitexport import bench, parity, proof, registry, spread
from vitexport.bundle import read_golden
from vitexport.contract import (
    Bundle,
    Device,
    DeviceCell,
    DeviceReport,
    Measurement,
    Parity,
    Report,
    Result,
    Variant,
)
from vitexport.errors import BadRequest, did_you_mean
from vitexport.manifest import MANIFEST_NAME, REPORT_NAME, Malformed, decode

#: Seven precisions of five sizes on four providers, each with a thousand times of 20 characters, are 2.8 MB.
LARGEST_BYTES = 4 * 2**20

#: Of any one list or object. Ten seconds of runs of half a millisecond are 20,000 times.
MOST_ENTRIES = 20_000
MOST_CELLS = 512

#: A reason names an output, a photo and two figures; an adapter's description, a driver and its version.
LONGEST_TEXT = 1000

#: One hour. What takes longer for one inference is no measurement of one.
LONGEST_MS = 3_600_000.0
LONGEST_S = 86_400.0
MOST_MEMORY_BYTES = 2**44

#: What stands in for a device, whatever it says of itself: adapters that emulate a GPU, and Xcode's simulators.
_STAND_IN = re.compile(r"swiftshader|llvmpipe|lavapipe|basic render|simulator|emulator", re.IGNORECASE)

_PROVIDER = re.compile(r"[a-z0-9][a-z0-9_.:+-]{0,39}")


def accept(raw: bytes, bundles: Sequence[Bundle], called: str = "") -> tuple[Result, ...]:
    """The results of a ``DeviceReport`` in JSON, of the one of ``bundles`` that it was measured on, at each size.

    The bundles' files must be whole (:func:`vitexport.bundle.damage`). Raises ``BadRequest`` where ``raw`` is too
    large, malformed, of another export, or holds what no device can have measured. A stand-in's figures are kept as
    such, and never as a device's. ``called`` is what its owner calls it, in place of its own name.
    """
    report = _bounded(_decoded(raw))
    bundles = _of_export(report, bundles)
    device = _described(report.device)
    if called:
        device = replace(device, name=called, facts={**device.facts, "model": device.name})
    exams = {bundle.rung.size: _Exam.of(bundle) for bundle in bundles}
    seen = set()
    results = []
    for cell in report.cells:
        exam = exams.get(cell.size)
        if exam is None:
            known = ", ".join(map(str, exams))
            raise _refused(f"it ran at {cell.size}, and this export has {known}")
        key = (cell.precision, cell.provider, cell.size)
        if key in seen:
            raise _refused(f"it has {cell.precision} on {cell.provider} at {cell.size} twice")
        seen.add(key)
        results.append(_result(cell, device, exam))
    return tuple(results)


def read(path: Path) -> bytes:
    """A report's file, or no more of it than tells that it is too large."""
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise BadRequest(
            f"'{path}' cannot be read ({error.strerror}). Name the JSON file that the device wrote."
        ) from None


# ------------------------------------------------------------------------------------------------- what is let in


def _refused(why: str) -> BadRequest:
    return BadRequest(f"This device report is not taken: {why}. Let the device measure this export again.")


def _decoded(raw: bytes) -> DeviceReport:
    if len(raw) > LARGEST_BYTES:
        raise _refused(f"it is larger than {LARGEST_BYTES // 2**20} MiB")
    try:
        return decode(raw, DeviceReport)
    except Malformed as error:
        if _is_an_exports(raw):
            raise BadRequest(
                f"This is an export's own {REPORT_NAME}, and no device's. Name the JSON file that a device wrote, "
                "such as the one of a Core ML bundle's Swift package; for a browser's, run vitexport bench --device "
                "browser."
            ) from None
        raise _refused(f"it is not in the form of one ({error})") from error


def _is_an_exports(raw: bytes) -> bool:
    try:
        decode(raw, Report)
    except Malformed:
        return False
    return True


def _bounded(report: DeviceReport) -> DeviceReport:
    """The same, with no list too long, no text that is too long or would not print, and no number that is not one."""
    for value in _values(msgspec.to_builtins(report)):
        match value:
            case str() if len(value) > LONGEST_TEXT:
                raise _refused(f"it holds a text of {len(value):,} characters; {LONGEST_TEXT:,} are the most")
            case str() if not _prints(value):
                raise _refused("it holds a text with control characters")
            case float() if not math.isfinite(value):
                raise _refused("it holds a number that is not finite")
            case list() | tuple() | dict() if len(value) > MOST_ENTRIES:
                raise _refused(f"it holds a list of {len(value):,} entries; {MOST_ENTRIES:,} are the most")
    if not 0 < len(report.cells) <= MOST_CELLS:
        raise _refused(f"it has {len(report.cells):,} cells; there must be 1 to {MOST_CELLS}")
    return report


def _values(value: Any) -> Iterator[Any]:
    """Everything in a JSON value, keys of objects too."""
    yield value
    if isinstance(value, dict):
        yield from value
    for held in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _values(held)


def _prints(text: str) -> bool:
    """A terminal and a page show it as it is: no control characters, nothing that turns the direction of writing."""
    return not any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in text)


def _of_export(report: DeviceReport, bundles: Sequence[Bundle]) -> list[Bundle]:
    """Those of ``bundles`` whose manifest is the one that the device had."""
    folders = {bundle.directory for bundle in bundles}
    hashes = {folder: hashlib.sha256((folder / MANIFEST_NAME).read_bytes()).hexdigest() for folder in folders}
    found = [bundle for bundle in bundles if hashes[bundle.directory] == report.manifest_sha256]
    if not found:
        here = ", ".join(sorted(digest[:12] for digest in hashes.values()))
        raise _refused(f"it is of another export (manifest {report.manifest_sha256[:12]}, here {here})")
    return found


def _described(device: Device) -> Device:
    """As it is, but marked as a stand-in where its name says that it is one."""
    if not (device.name.strip() and device.runtime.strip()):
        raise _refused("it does not name the device and its runtime")
    return replace(device, software=device.software or bool(_STAND_IN.search(f"{device.name} {device.runtime}")))


# ----------------------------------------------------------------------------------------------------- the verdict


@dataclass(frozen=True)
class _Exam:
    """A bundle at one size, and how far PyTorch's own answers to its golden photos lie apart."""

    bundle: Bundle
    contrast: float

    @classmethod
    def of(cls, bundle: Bundle) -> _Exam:
        answers = [case.reference for case in read_golden(bundle)]
        return cls(bundle, parity.contrast(bundle.rung.outputs, answers))

    def variant(self, precision: str) -> Variant:
        known = [variant.precision for variant in self.bundle.rung.variants]
        if precision not in known:
            raise _refused(
                f"it ran the precision '{precision}', and this export has {', '.join(known)}."
                f"{did_you_mean(precision, known)}".removesuffix(".")
            )
        return self.bundle.variant(precision)


def _result(cell: DeviceCell, device: Device, exam: _Exam) -> Result:
    if not _PROVIDER.fullmatch(cell.provider):
        raise _refused(f"'{cell.provider}' is no provider's name")
    target = registry.target(exam.bundle.manifest.target)
    variant = exam.variant(cell.precision)
    if cell.software or _STAND_IN.search(cell.latency.facts.get("adapter", "")):
        device = replace(device, software=True)
    blank = proof.blank_result(target, exam.bundle, cell.precision, cell.provider)
    judged = replace(_judged(cell.parity, variant, exam), runtime=f"{device.runtime} on {device.name}")
    placed = proof.on_device(replace(blank, parity=judged, placement=cell.placement), device)
    return replace(placed, latency=_timed(cell, judged, device))


def _judged(claimed: Parity, variant: Variant, exam: _Exam) -> Parity:
    """Parity by the manifest's own tolerance. What a device did not compare on every golden photo does not pass."""
    if claimed.verdict == "not run":
        return Parity("not run", reason=claimed.reason or "the device does not say why")
    _possible(claimed, len(exam.bundle.rung.golden))
    reason = _fault(claimed, variant, exam)
    return replace(
        claimed,
        verdict="failed" if reason else "passed",
        tolerance=variant.tolerance,
        metric=variant.metric,
        contrast=exam.contrast,
        reason=reason,
        gates=(),
    )


def _possible(claimed: Parity, cases: int) -> None:
    bounds = {
        "images": (claimed.images, 0, cases),
        "drift": (claimed.drift, 0.0, math.inf),
        "snr_db": (claimed.snr_db, -math.inf, parity.SNR_CEILING_DB),
        "cosine": (claimed.cosine, -1.001, 1.001),
        "agreement": (claimed.agreement, 0.0, 1.0),
        "person_iou": (claimed.person_iou, 0.0, 1.0),
    }
    for name, (value, low, high) in bounds.items():
        if value is not None and not low <= value <= high:
            raise _refused(f"its {name} is {value:g}")


def _fault(claimed: Parity, variant: Variant, exam: _Exam) -> str:
    """Why a device's answers do not pass; empty where they do."""
    if claimed.verdict == "failed":
        return claimed.reason or "the device found it failed, and does not say why"
    cases, outputs = len(exam.bundle.rung.golden), exam.bundle.rung.outputs
    if claimed.images != cases:
        return f"the device compared {claimed.images} of {cases} golden photos."
    if claimed.drift is None or claimed.snr_db is None:
        return "the device gives no drift and SNR that are numbers."
    off = claimed.drift if variant.metric == "drift" else parity.noise(claimed.snr_db)
    if not off <= variant.tolerance:
        return f"{variant.metric} is {off:.3g}; at most {variant.tolerance:.3g} passes."
    floor = parity.MASK_IOU_FLOOR[variant.metric]
    people = variant.metric != "loss" and any(output.person is not None for output in outputs)
    if people and not (claimed.person_iou or 0.0) > floor:
        return f"IoU with PyTorch's masks of people is {_shown(claimed.person_iou)}; more than {floor} passes."
    if any(output.meaning == "mask" for output in outputs) and not (claimed.agreement or 0.0) > floor:
        return f"mask IoU with PyTorch is {_shown(claimed.agreement)}; more than {floor} passes."
    return parity.ill_posed(exam.contrast, variant)


def _shown(figure: float | None) -> str:
    return "not given" if figure is None else f"{figure:.4f}"


def _timed(cell: DeviceCell, judged: Parity, device: Device) -> Measurement:
    """Median and percentiles are taken here, of the raw times: whatever the device makes of them is not read."""
    claimed = cell.latency
    if judged.verdict == "failed":
        return Measurement("not run", reason="parity failed")
    if device.needs:
        return Measurement("not run", reason=f"needs {device.needs}")
    if claimed.verdict != "passed":
        return Measurement("not run", reason=claimed.reason or "the device does not say why")
    times = claimed.times_ms
    if not times:
        raise _refused(f"its {cell.precision} on {cell.provider} is timed, and gives no times")
    for value, most in (
        *((ms, LONGEST_MS) for ms in (claimed.load_ms, claimed.cold_ms, claimed.sustained_ms, *times)),
        (claimed.sustained_after_s, LONGEST_S),
        (claimed.peak_memory_bytes, MOST_MEMORY_BYTES),
    ):
        if value is not None and not 0 <= value <= most:
            raise _refused(f"no device measures {value:g} where {most:g} is the most")
    return replace(
        claimed,
        device=f"{device.name} ({bench.SOFTWARE_ADAPTER})" if device.software else device.name,
        runtime=device.runtime,
        provider=cell.provider,
        median_ms=statistics.median(times),
        p90_ms=bench.percentile(times, 90),
        p99_ms=bench.percentile(times, 99),
        runs=len(times),
        warning=_warning(claimed),
        reason="",
        facts={**device.facts, **claimed.facts},
    )


def _warning(claimed: Measurement) -> str:
    times = claimed.times_ms
    few = len(times) < bench.STEADY_RUNS and sum(times) < bench.BUDGET_S * 1000
    told = f"{len(times)} runs; {bench.STEADY_RUNS} tell more" if few else spread.warning(times)
    said = [claimed.warning, told]
    return "; ".join(text for text in said if text)
