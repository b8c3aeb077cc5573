"""Run one variant in its own runtime, on one provider: parity first, then latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vitexport import bench, host, parity, registry
from vitexport.bundle import read_golden
from vitexport.contract import (
    Bundle,
    Case,
    CaseKind,
    Device,
    Dynamic,
    Exam,
    FileEntry,
    Gate,
    Gated,
    Hosted,
    Measurement,
    Parity,
    Resident,
    Result,
    Session,
    Target,
    Threaded,
)
from vitexport.dynamic import further_sizes
from vitexport.errors import RuntimeUnavailable
from vitexport.preprocess import preprocess
from vitexport.progress import step

if TYPE_CHECKING:
    from vitexport.contract import SourceModel, Tensor, Tensors

#: On an adapter that emulates a GPU an inference takes seconds, so parity is judged on this many photos and the noise.
PHOTOS_ON_SOFTWARE = 2


@dataclass(frozen=True, eq=False)
class Proof:
    """A result, and what it was judged on: each case that was run, with the artifact's answer."""

    result: Result
    answers: Sequence[tuple[Case, Tensors]] = ()


def exam(source: SourceModel, dynamic: tuple[Dynamic, ...] = ()) -> Exam:
    """One case per probe, in order. What is left open is proven beyond what was traced: the first two photos as one
    batch of two; the first photo at two further sizes, one of another shape."""
    made = [_case(source, p.name, p.kind, preprocess(p.image, source.preprocessing)) for p in source.probes]
    if "batch" in dynamic:
        made.append(_case(source, "batch of 2", "batch", np.concatenate([c.pixel_values for c in made[:2]])))
    if "size" in dynamic:
        photo = source.probes[0]
        for size in further_sizes(source.size, source.size_step):
            how = replace(source.preprocessing, size=size, fit="squash", resize=None)
            made.append(_case(source, f"{photo.name} at {size}", "size", preprocess(photo.image, how)))
    return Exam(source, tuple(made))


def prove(target: Target, bundle: Bundle, precision: str, provider: str, cases: tuple[Case, ...]) -> Proof:
    """Parity on ``cases``, then latency, in one session of the artifact's own runtime."""
    blank = blank_result(target, bundle, precision, provider)
    try:
        with target.open(bundle, precision, provider) as session:
            return in_session(target, bundle, session, blank, cases)
    except RuntimeUnavailable as reason:
        return Proof(not_run(blank, str(reason)))


def in_session(target: Target, bundle: Bundle, session: Session, blank: Result, cases: tuple[Case, ...]) -> Proof:
    """Parity on ``cases``, then latency, of the cell ``blank``, which is loaded: on this machine, or on a device
    attached to it. Raises ``RuntimeUnavailable``."""
    where = f"{target.traits.name} {bundle.rung.size} {blank.precision} on {blank.provider}"
    with step("parity", where):
        asked = _affordable(cases) if session.device.software else cases
        runs = [session.run(case.pixel_values) for case in asked]
        judged = parity.verify(
            bundle.rung.outputs,
            [case.reference for case in asked],
            [run.outputs for run in runs],
            bundle.variant(blank.precision),
            [case.name for case in asked],
            parity.contrast(bundle.rung.outputs, [c.reference for c in cases if c.kind == "photo"]),
        )
        judged = replace(judged, runtime=session.device.runtime)
        if judged.verdict == "failed" and blank.provider in target.traits.older:
            raise RuntimeUnavailable(f"{judged.runtime} computes it wrongly: {judged.reason}")
        if isinstance(session, Gated):
            judged = _gated(judged, session.gates(asked, [run.outputs for run in runs], judged))
    result = on_device(replace(blank, parity=judged, placement=session.placement), session.device)
    if judged.verdict == "failed":
        latency = Measurement("not run", reason="parity failed")
    elif session.device.needs:
        latency = Measurement("not run", reason=f"needs {session.device.needs}")
    else:
        with step("bench", where):
            single = [r for r, case in zip(runs, asked, strict=True) if case.kind in ("photo", "noise")]
            latency = bench.measure(session, cases[0].pixel_values, single)
    return Proof(replace(result, latency=latency), [(case, run.outputs) for case, run in zip(asked, runs, strict=True)])


@dataclass(frozen=True)
class Cell:
    """A variant of a bundle on one of its providers, on that many threads; None: the runtime's own choice."""

    precision: str
    provider: str
    threads: int | None = None


def cells(
    bundle: Bundle, threads: Sequence[int] = (), precision: str | None = None, provider: str | None = None
) -> tuple[Cell, ...]:
    """What there is to be timed of a bundle here: each variant on every provider that it is proven on and on those that
    this machine has beside them, or those named alone; where a provider can be told, once for each number of
    ``threads``."""
    target = registry.target(bundle.manifest.target)
    further = target.further_providers() if isinstance(target, Hosted) else ()
    return tuple(
        Cell(variant.precision, way, number)
        for variant in bundle.rung.variants
        if precision in (None, variant.precision)
        for way in (*target.traits.providers, *further)
        if provider in (None, way)
        for number in (threads if threads and way in target.traits.threaded else (None,))
    )


def time_only(target: Target, bundle: Bundle, cell: Cell, sustained_s: float | None = None) -> Result:
    """Latency alone, on the first golden input; after ``sustained_s`` seconds of work as well, where it is given."""
    blank = blank_result(target, bundle, cell.precision, cell.provider)
    pixel_values = read_golden(bundle)[0].pixel_values
    threads = f", {cell.threads} thread{'' if cell.threads == 1 else 's'}" if cell.threads else ""
    tells_memory = host.forget_peak_memory()
    try:
        with (
            opened(target, bundle, cell) as session,
            step("bench", f"{target.traits.name} {bundle.rung.size} {cell.precision} on {cell.provider}{threads}"),
        ):
            if session.device.needs:
                raise RuntimeUnavailable(f"latency needs {session.device.needs}")
            latency = bench.measure(session, pixel_values, sustained_s=sustained_s)
            if tells_memory and isinstance(session, Resident):
                latency = replace(latency, peak_memory_bytes=host.peak_memory_bytes())
            unproven = Parity(
                "not run",
                runtime=session.device.runtime,
                reason="bench measures latency; vitexport check proves parity",
            )
            return replace(blank, parity=unproven, latency=latency, placement=session.placement)
    except RuntimeUnavailable as reason:
        return not_run(blank, str(reason))


def opened(target: Target, bundle: Bundle, cell: Cell) -> Session:
    """A cell in its runtime. Raises ``RuntimeUnavailable`` where that cannot be told how many threads to use, and as
    :meth:`Target.open` does."""
    if cell.threads is None:
        return target.open(bundle, cell.precision, cell.provider)
    if not isinstance(target, Threaded) or cell.provider not in target.traits.threaded:
        raise RuntimeUnavailable(f"{cell.provider} cannot be told how many threads to use")
    return target.open_threaded(bundle, cell.precision, cell.provider, cell.threads)


def on_device(result: Result, device: Device) -> Result:
    """The verdict again, for the runtime and the hardware that users have."""
    if device.needs or device.software:
        missing = device.needs or "the hardware itself: software stood in for it"
        return replace(result, device_verdict="not run", device_reason=f"needs {missing}")
    return replace(result, device_verdict=result.parity.verdict, device_reason=result.parity.reason)


def _gated(judged: Parity, gates: tuple[Gate, ...]) -> Parity:
    """The comparison with PyTorch comes first: where it fails, its reason is the one to read."""
    shut = next((gate for gate in gates if gate.verdict == "failed"), None)
    if judged.verdict == "passed" and shut:
        judged = replace(judged, verdict="failed", reason=f"gate {shut.name} ({shut.claim}): {shut.reason}")
    return replace(judged, gates=gates)


def not_run(blank: Result, reason: str) -> Result:
    return replace(
        blank,
        parity=Parity("not run", reason=reason),
        latency=Measurement("not run", reason=reason),
        device_reason=reason,
    )


def blank_result(target: Target, bundle: Bundle, precision: str, provider: str) -> Result:
    """The cell of one variant on one provider, before anything has run."""
    manifest = bundle.manifest
    known = {f.path: f for f in manifest.files}
    files = tuple(
        FileEntry(f"{target.traits.name}/{path}", known[path].bytes, known[path].sha256)
        for path in bundle.variant(precision).files
    )
    unknown = "not run yet"
    return Result(
        manifest.model,
        target.traits.name,
        precision,
        provider,
        bundle.rung.size,
        files,
        Parity("not run", reason=unknown),
        Measurement("not run", reason=unknown),
    )


def _affordable(cases: tuple[Case, ...]) -> tuple[Case, ...]:
    photos = [case for case in cases if case.kind == "photo"][:PHOTOS_ON_SOFTWARE]
    return tuple(case for case in cases if case.kind != "photo" or case in photos)


def _case(source: SourceModel, name: str, kind: CaseKind, pixel_values: Tensor) -> Case:
    return Case(name, kind, pixel_values, source.forward(pixel_values))
