"""The whole product on one screen: check -> capture -> lower -> bundle -> parity -> bench -> report."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vitexport import bundle as bundles
from vitexport import host, registry
from vitexport.contract import Exam, ExportRequest, Report, Result, Target
from vitexport.devices import filing
from vitexport.errors import OK, BadRequest, ParityFailed, did_you_mean
from vitexport.manifest import REPORT_NAME, SCHEMA_VERSION, encode
from vitexport.progress import Step, listen, step
from vitexport.quantize import FIXES_RANGES, QUANTISES_ACTIVATIONS
from vitexport.quantize import plan as plans
from vitexport.quantize.decide import decide, followed, not_worth_it, told
from vitexport.quantize.plan import PLAN_NAME
from vitexport.reports.file import device_of
from vitexport.toolchain import find

if TYPE_CHECKING:
    from vitexport.proof import Proof

#: Options that shape one target's files and leave the others' as they are.
_ONE_TARGETS_OWN = {
    "coreml_target": "--coreml-target",
    "image_input": "--image-input or --tensor-input",
    "layout": "--layout",
    "runtime": "--runtime",
}

LARGEST_SEED = 2**63 - 1  # of torch's generator; numpy's takes more

#: Frames of a clip, and of a video per frame of a clip: beyond it a number is a slip of the keyboard.
LARGEST_CLIP = 1024


def export(request: ExportRequest) -> Report:
    """Export, prove and publish. The report's ``out`` is the folder that holds it all.

    A bundle that fails its proof goes to ``<out>.failed``, never to ``out``. Raises :class:`VitexportError`.
    """
    out = bundles.place(str(default_out(request)) if request.out is None else request.out)
    plan = check(request, out)  # before torch is imported: a wrong word should not cost seconds
    seconds: defaultdict[str, float] = defaultdict(float)

    def add_up(what: Step) -> None:
        seconds[what.name] += what.seconds or 0.0

    with listen(add_up), bundles.staging(out) as stage:
        exams = captured(request)
        decided = decide(plan, exams[0], request)
        notes = [note for exam in exams for note in exam.source.notes]
        proofs = [
            proof
            for target, asked in plan
            for proof in _produce(target, asked, followed(decided, target, exams), stage, notes)
        ]
        results = tuple(proof.result for proof in proofs)
        notes += [*told(decided), *not_worth_it(results)]
        report = _report(request, out, exams, results, {name: round(s, 3) for name, s in seconds.items()})
        published = Path(report.out)
        report = filing.kept(replace(report, notes=tuple(dict.fromkeys(notes))), published)
        if decided.cells:
            (stage / PLAN_NAME).write_bytes(encode(decided))
        _picture(stage / "proof.png", exams[0], proofs)
        (stage / REPORT_NAME).write_bytes(encode(report))
        _page(stage, report)
        bundles.claim(published, force=request.force or published != out)  # another export may have come first
        bundles.publish(stage, published)
    return report


def exit_code(report: Report) -> int:
    """0, or that of a failed parity; ``require_proof`` counts ``not run`` as failed, ``require_device`` also a verdict
    that a stand-in gave. What devices measured before is no part of this export."""
    bad = {"failed", "not run"} if report.request.require_proof else {"failed"}
    binding = [r for r in report.results if binds(r) and not device_of(r)]
    failed = any(r.verdict in bad for r in binding)
    absent = report.request.require_device and any(r.device_verdict != "passed" for r in binding)
    return ParityFailed.exit_code if failed or absent else OK


def binds(result: Result) -> bool:
    """Whether ``not run`` may be held against it: what an older runtime cannot run, nobody can require."""
    return result.provider not in registry.target(result.target).traits.older


def default_out(request: ExportRequest) -> Path:
    """``exports/<model>``, with the sizes where some were asked for."""
    name = request.model.rpartition(":")[2] or request.model
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "model"
    return Path("exports") / "-".join([slug, *map(str, dict.fromkeys(request.sizes))])


def shown_name(model: str) -> str:
    """What an artifact calls its model: as it was asked for, but without the folders of this machine, since an artifact
    is published and must be the same wherever it is made."""
    place = model.removeprefix("hf:")
    if ".py:" in place:
        return Path(place).name
    return Path(place).resolve().name if Path(place).is_dir() else model


def check(request: ExportRequest, out: Path) -> list[tuple[Target, ExportRequest]]:
    """Each target with the request as it concerns it: precisions filled in, options it honours, toolchain at hand."""
    if not 0 <= request.seed <= LARGEST_SEED:
        raise BadRequest(f"--seed {request.seed} is not a whole number from 0 to {LARGEST_SEED}.")
    for flag, count in (("--frames", request.frames), ("--frame-stride", request.frame_stride)):
        if count is not None and not 1 <= count <= LARGEST_CLIP:
            raise BadRequest(f"{flag} {count} is not a whole number from 1 to {LARGEST_CLIP}.")
    if request.max_drop is not None and not 0 <= request.max_drop <= 100:
        raise BadRequest(f"--max-drop {request.max_drop:g} is no number of points from 0 to 100.")
    if request.plan is not None:
        plans.read(request.plan)
    bundles.claim(out, force=request.force)
    bundles.claim(_failed(out), force=True)
    targets = registry.resolve(request.targets)
    for option, flag in _given(request, _ONE_TARGETS_OWN):
        if not any(option in target.traits.options for target in targets):
            names = ", ".join(target.traits.name for target in targets)
            raise BadRequest(f"{flag} means nothing to {names}. Leave it out, or name a target that knows it.")
    plan = [(target, _asked_of(target, request)) for target in targets]
    _check_layers_that_stay_float(request, plan)
    _check_calibration(request, {name for _, asked in plan for name in asked.precisions})
    for target, _ in plan:
        for need in target.traits.needs:
            find(need)
    return plan


def _check_layers_that_stay_float(request: ExportRequest, plan: list[tuple[Target, ExportRequest]]) -> None:
    asked = [target.traits.precision(name) for target, wants in plan for name in wants.precisions]
    if any(precision.metric == "loss" for precision in asked):
        return
    for _, flag in _given(request, {"max_drop": "--max-drop", "plan": "--plan"}):
        raise BadRequest(
            f"{flag} says which layers stay float, and in {', '.join(dict.fromkeys(p.name for p in asked))} all do. "
            "Leave it out, or ask for fewer bits, such as --precision w8."
        )


def _check_calibration(request: ExportRequest, precisions: set[str]) -> None:
    if request.observer is not None and not precisions & FIXES_RANGES:
        raise BadRequest(
            f"--observer means nothing to {', '.join(sorted(precisions))}, which fix no range of an activation. "
            f"Leave it out, or ask for {' or '.join(sorted(FIXES_RANGES))}."
        )
    if request.calibration is None:
        return
    if not precisions & QUANTISES_ACTIVATIONS:
        raise BadRequest(
            f"--calibration means nothing to {', '.join(sorted(precisions))}, which leave activations as they are. "
            f"Leave it out, or ask for {' or '.join(sorted(QUANTISES_ACTIVATIONS))}."
        )
    from vitexport.quantize import pictures

    pictures.files(request.calibration)


def _asked_of(target: Target, request: ExportRequest) -> ExportRequest:
    traits = target.traits
    offered = [p.name for p in traits.precisions]
    for name in request.precisions:
        if name not in offered:
            raise BadRequest(
                f"Target '{traits.name}' has no precision '{name}'.{did_you_mean(name, offered)} "
                f"It offers: {', '.join(offered)}."
            )
    for option, flag in _given(request, {"dynamic": "--dynamic", "max_file_bytes": "--max-file"}):
        if option not in traits.options:
            raise BadRequest(f"Target '{traits.name}' cannot honour {flag}. Leave it out, or export that target alone.")
    wanted = request.precisions or tuple(p.name for p in traits.precisions if p.default)
    return replace(request, precisions=tuple(dict.fromkeys(wanted)))


def _given(request: ExportRequest, flags: Mapping[str, str]) -> list[tuple[str, str]]:
    """Those of ``flags`` (field -> option) that were asked for."""
    defaults = ExportRequest(model=request.model)
    return [(field, flag) for field, flag in flags.items() if getattr(request, field) != getattr(defaults, field)]


def captured(request: ExportRequest) -> tuple[Exam, ...]:
    """The PyTorch side of a request: a network at each of its sizes, with what artifacts are held to there."""
    sizes = dict.fromkeys(request.sizes)
    rungs = [replace(request, sizes=(size,)) for size in sizes] or [request]
    exams = {exam.source.size: exam for exam in map(_capture, rungs)}  # --pad-size may make two sizes one
    return _prepared(tuple(exams.values()), request)


def _prepared(exams: tuple[Exam, ...], request: ExportRequest) -> tuple[Exam, ...]:
    """For all targets alike, where a precision that is asked for quantises activations."""
    asked = {name for target in registry.resolve(request.targets) for name in _asked_of(target, request).precisions}
    if not asked & QUANTISES_ACTIVATIONS:
        return exams
    from vitexport.quantize import prepare

    sources = prepare.prepared([exam.source for exam in exams], request.dynamic)
    return tuple(replace(exam, source=source) for exam, source in zip(exams, sources, strict=True))


def _capture(request: ExportRequest) -> Exam:
    from vitexport import capture, models, photos, proof
    from vitexport.quantize import pictures

    probes, measured = photos.probes(request.images, request.seed), pictures.gather(request.calibration)
    with step("capture", f"{request.model} {request.size or ''}".strip()):
        network = models.build(request)
        source = capture.capture(network, shown_name(request.model), probes, request.dynamic)
        source = replace(pictures.joined(source, measured), observer=request.observer)
        return proof.exam(source, request.dynamic)


def _produce(
    target: Target, asked: ExportRequest, exams: tuple[Exam, ...], stage: Path, notes: list[str]
) -> list[Proof]:
    """``notes``: what the target has to say is added."""
    from vitexport import proof

    folder = stage / target.traits.name
    folder.mkdir()
    artifact = target.lower(tuple(exam.source for exam in exams), asked, folder)
    notes += artifact.notes
    made = bundles.complete(folder, target.traits.name, exams, artifact)
    proofs = [
        proof.prove(target, bundle, variant.precision, provider, exam.cases)
        for exam, bundle in zip(exams, made, strict=True)
        for variant in bundle.rung.variants
        for provider in target.traits.providers
    ]
    if target.traits.older:
        bundles.state_oldest(made[0], target.traits, [proven.result for proven in proofs])
    return proofs


def _report(
    request: ExportRequest, out: Path, exams: tuple[Exam, ...], results: tuple[Result, ...], steps_s: dict[str, float]
) -> Report:
    from vitexport import __version__

    provenance = exams[0].source.provenance
    report = Report(SCHEMA_VERSION, __version__, request, str(out), provenance, host.described(), steps_s, results)
    return replace(report, out=str(_failed(out))) if report.verdict == "failed" else report


def _failed(out: Path) -> Path:
    return out.with_name(f"{out.name}.failed")


def _picture(path: Path, exam: Exam, proofs: list[Proof]) -> None:
    """What the first artifact that ran saw and answered, for a person to look at."""
    from vitexport import picture

    shown = next((p for p in proofs if p.answers and p.result.size == exam.source.size), None)
    if shown is not None:
        picture.of_exam(exam, shown.answers).save(path)


def _page(stage: Path, report: Report) -> None:
    from vitexport.reports import page, stored

    (stage / page.PAGE_NAME).write_bytes(page.render(stored.around(stage, report)))
