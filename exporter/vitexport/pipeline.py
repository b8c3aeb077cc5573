"""The whole product on one screen: check -> capture -> lower -> bundle -> parity -> bench -> report."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vitexport import bundle as bundles
from vitexport import registry
from vitexport.contract import ExportRequest, Report, Result, Target
from vitexport.errors import OK, BadRequest, ParityFailed, did_you_mean
from vitexport.manifest import REPORT_NAME, encode
from vitexport.progress import Step, listen, step
from vitexport.toolchain import find

if TYPE_CHECKING:
    from vitexport.contract import SourceModel
    from vitexport.proof import Case, Proof


def export(request: ExportRequest) -> Report:
    """Export, prove and publish. The report's ``out`` is the folder that holds it all.

    A bundle that fails its proof goes to ``<out>.failed``, never to ``out``. Raises :class:`VitexportError`.
    """
    out = Path(request.out) if request.out else default_out(request)
    plan = check(request, out)  # before torch is imported: a wrong word should not cost seconds
    seconds: Counter[str] = Counter()

    def add_up(what: Step) -> None:
        seconds[what.name] += what.seconds or 0.0  # type: ignore[assignment]  # a Counter of floats adds just as well

    with listen(add_up), bundles.staging(out) as stage:
        source, cases = _capture(request)
        proofs = [proof for target, asked in plan for proof in _produce(target, asked, source, cases, stage)]
        results = tuple(proof.result for proof in proofs)
        report = _report(request, out, source, results, {name: round(s, 3) for name, s in seconds.items()})
        _picture(stage / "proof.png", source, cases, proofs)
        (stage / REPORT_NAME).write_bytes(encode(report))
        bundles.publish(stage, Path(report.out))
    return report


def exit_code(report: Report) -> int:
    """0, or that of a failed parity; ``require_proof`` counts ``not run`` as failed."""
    bad = {"failed", "not run"} if report.request.require_proof else {"failed"}
    return ParityFailed.exit_code if any(r.verdict in bad for r in report.results) else OK


def default_out(request: ExportRequest) -> Path:
    """``exports/<model>``, with the size where one was asked for."""
    name = request.model.rpartition(":")[2] or request.model
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "model"
    return Path("exports") / (f"{slug}-{request.size}" if request.size else slug)


def check(request: ExportRequest, out: Path) -> list[tuple[Target, ExportRequest]]:
    """Each target with the request as it concerns it: precisions filled in, options it honours, toolchain at hand."""
    bundles.claim(out, force=request.force)
    plan = [(target, _asked_of(target, request)) for target in registry.resolve(request.targets)]
    for target, _ in plan:
        for need in target.traits.needs:
            find(need)
    return plan


def _asked_of(target: Target, request: ExportRequest) -> ExportRequest:
    traits = target.traits
    offered = [p.name for p in traits.precisions]
    for name in request.precisions:
        if name not in offered:
            raise BadRequest(
                f"Target '{traits.name}' has no precision '{name}'.{did_you_mean(name, offered)} "
                f"It offers: {', '.join(offered)}."
            )
    defaults = ExportRequest(model=request.model)
    for option in ("dynamic", "max_file_bytes"):
        if getattr(request, option) != getattr(defaults, option) and option not in traits.options:
            flag = "--max-file" if option == "max_file_bytes" else f"--{option}"
            raise BadRequest(f"Target '{traits.name}' cannot honour {flag}. Leave it out, or export that target alone.")
    wanted = request.precisions or tuple(p.name for p in traits.precisions if p.default)
    return replace(request, precisions=tuple(dict.fromkeys(wanted)))


def _capture(request: ExportRequest) -> tuple[SourceModel, tuple[Case, ...]]:
    from vitexport import capture, models, photos, proof

    probes = photos.probes(request.images, request.seed)
    with step("capture", request.model):
        network = models.build(request)
        source = capture.capture(network, request.model, probes, dynamic_batch="batch" in request.dynamic)
        return source, proof.cases(source, second_batch="batch" in request.dynamic)


def _produce(
    target: Target, asked: ExportRequest, source: SourceModel, cases: tuple[Case, ...], stage: Path
) -> list[Proof]:
    from vitexport import proof

    folder = stage / target.traits.name
    folder.mkdir()
    artifact = target.lower(source, asked, folder)
    golden = [(p, c.pixel_values, c.reference) for p, c in zip(source.probes, cases, strict=False)]
    batch = 0 if "batch" in asked.dynamic else 1
    bundle = bundles.complete(folder, target.traits.name, source, artifact, batch, golden)
    return [
        proof.prove(target, bundle, variant.precision, provider, cases)
        for variant in artifact.variants
        for provider in target.traits.providers
    ]


def _report(
    request: ExportRequest, out: Path, source: SourceModel, results: tuple[Result, ...], steps_s: dict[str, float]
) -> Report:
    from vitexport import __version__
    from vitexport.bench import host_facts

    report = Report(1, __version__, request, str(out), source.provenance, host_facts(), steps_s, results)
    return replace(report, out=f"{out}.failed") if report.verdict == "failed" else report


def _picture(path: Path, source: SourceModel, cases: tuple[Case, ...], proofs: list[Proof]) -> None:
    """What the first artifact that ran saw and answered, for a person to look at."""
    from vitexport import picture

    shown = next((p for p in proofs if p.answers), None)
    if shown is None:
        return
    photos = [p.image for p in source.probes if p.kind == "photo"][: len(shown.answers)]
    references = [case.reference for case in cases[: len(photos)]]
    picture.proof(photos, references, shown.answers[: len(photos)], source.outputs, source.preprocessing).save(path)
