"""From captured programs to sealed packages: one per precision, with the sizes of a ladder inside or beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitexport.capture import recapture
from vitexport.contract import (
    Artifact,
    CoremlTarget,
    ExportRequest,
    Layout,
    Precision,
    Size,
    SourceModel,
    Traits,
    Variant,
)
from vitexport.errors import LoweringFailed, RuntimeUnavailable, root_line
from vitexport.parity import noise
from vitexport.preprocess import preprocess
from vitexport.progress import step
from vitexport.quantize import calibration, half
from vitexport.quantize.layers import Fingerprint, layers
from vitexport_targets.coreml import compression, floors, inputs, labels, sealing, shelf
from vitexport_targets.coreml.alias import drop_aliases
from vitexport_targets.coreml.ane import in_ane_layout
from vitexport_targets.coreml.apple import coremltools, counting_from_zero, quietly, toolchain
from vitexport_targets.coreml.calibration import ranges
from vitexport_targets.coreml.card import card
from vitexport_targets.coreml.indicators import Indicators
from vitexport_targets.coreml.names import function as function_of
from vitexport_targets.coreml.names import function_name, layout_key, package_name, tolerance_key, unpacked_key
from vitexport_targets.coreml.package import read
from vitexport_targets.coreml.packed import digest
from vitexport_targets.coreml.passes import exact_passes
from vitexport_targets.coreml.ranges import Kept, kept, takes_half
from vitexport_targets.coreml.summary import first_answer
from vitexport_targets.coreml.swift_package import SwiftPackage

#: Specification 8: int8 weights, palettes of 1 to 8 bits, w8a8; runs on every system that still gets security updates.
DEFAULT_TARGET: CoremlTarget = "ios17"


_PHONE = Path(__file__).parent / "phone"


@dataclass(frozen=True)
class Plan:
    """What is made of every source, decided once."""

    ios: CoremlTarget
    kind: inputs.Kind
    multifunction: bool
    """One package for all sizes, with a function each (iOS 18); else a package per size."""
    layout: Layout | None

    @classmethod
    def of(cls, sources: Sequence[SourceModel], request: ExportRequest) -> Plan:
        ios = request.coreml_target or DEFAULT_TARGET
        return cls(ios, inputs.kind(sources[0], request), len(sources) > 1 and ios == "ios18", request.layout)


@dataclass(frozen=True, eq=False)
class _Rung:
    """One size on its way."""

    source: SourceModel
    keep: Kept = field(default_factory=Kept)
    """What float16 cannot hold: see :mod:`.ranges`."""
    single: Path | None = None
    """The finished float32 package, which all others are held to."""
    half: Path | None = None
    """The float16 package, which all but float32 start from."""
    before: str = ""
    """What was counted of the program before its layout was changed (:mod:`.indicators`); empty where it was not."""


def lower(traits: Traits, sources: tuple[SourceModel, ...], request: ExportRequest, into: Path) -> Artifact:
    """Write float32, which all others are proven against, and each precision that was asked for."""
    plan = Plan.of(sources, request)
    compression.check(request.precisions, plan.ios)
    with _workshop(into) as work:
        rungs = [_rung(source, plan, work) for source in sources]
        written = {"fp32": _write(traits.precision("fp32"), plan, rungs, work, into)}
        others = [name for name in request.precisions if name not in written]
        if others:
            singles = [each.package for each in written["fp32"]]
            rungs = [_halved(rung, single, plan, work) for rung, single in zip(rungs, singles, strict=True)]
        written |= {name: _write(traits.precision(name), plan, rungs, work, into) for name in others}
    _accompany(sources, request.precisions, plan, into)
    columns = [[_variant(traits.precision(name), each, into) for each in written[name]] for name in request.precisions]
    notes = half.notes([rung.source for rung in rungs]) if others else ()
    return Artifact(tuple(zip(*columns, strict=True)), toolchain(), input_name=inputs.NAMES[plan.kind], notes=notes)


@contextmanager
def _workshop(into: Path) -> Iterator[Path]:
    """A folder for packages on the way, on the disk that the finished ones go to."""
    work = into / ".work"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _rung(source: SourceModel, plan: Plan, work: Path) -> _Rung:
    if plan.layout is None:
        return _Rung(source)
    with step("lower", f"coreml {source.size} in {plan.layout} layout"), quietly():
        laid_out = recapture(source, in_ane_layout(source.module, source.name))
        package = _convert(_Rung(source), "fp16", plan, work / f"plain_{source.size}.mlpackage")
        before = str(Indicators.of(read(package).functions["main"]))
    return _Rung(laid_out, before=before)


def _halved(rung: _Rung, single: Path, plan: Plan, work: Path) -> _Rung:
    size = rung.source.size
    with step("lower", f"coreml {size} ranges"):
        keep = shelf.of(rung.source).value(("kept", plan), lambda: kept(single, rung.source))
        rung = replace(rung, single=single, keep=keep)
    with step("lower", f"coreml {size} fp16"), quietly():
        return replace(rung, half=_convert(rung, "fp16", plan, work / f"half_{size}.mlpackage"))


@dataclass(frozen=True)
class _Written:
    """A package at one size, and the noise that passes for it."""

    package: Path
    tolerance: float


def _write(held: Precision, plan: Plan, rungs: Sequence[_Rung], work: Path, into: Path) -> list[_Written]:
    """The package of each size; the same one for all of a multifunction ladder."""
    with step("lower", f"coreml {held.name}"), quietly():
        if plan.multifunction:
            singles = [_make(r, held.name, plan, work / package_name(held.name, r.source.size)) for r in rungs]
            merged = _merge(singles, [rung.source.size for rung in rungs], into / package_name(held.name))
            return _finish(merged, rungs, plan, held)
        written = []
        for rung in rungs:
            path = into / package_name(held.name, rung.source.size if len(rungs) > 1 else None)
            written += _finish(_make(rung, held.name, plan, path), [rung], plan, held)
        return written


def _make(rung: _Rung, precision: str, plan: Plan, path: Path) -> Path:
    """One size in one precision, at ``path``; where bits are saved, its unpacked twin beside the float16 package."""
    if rung.half is None:
        return _convert(rung, precision, plan, path)
    if precision == "fp16":
        return shutil.copytree(rung.half, path)
    recipe = compression.RECIPES[precision]
    if recipe.activations and rung.keep.wide:
        raise LoweringFailed(
            f"{rung.source.name} has values beyond float16, and coremltools keeps the ranges of eight-bit activations "
            f"in it. Ask for w8 instead of {precision}."
        )
    with _evaluated(precision):
        seen = _seen(rung, plan) if recipe.activations else compression.Seen()
        compression.compress(rung.half, precision, plan.ios, seen, _kept(rung, precision), path, _twin(rung, precision))
    return path


@contextmanager
def _evaluated(precision: str) -> Iterator[None]:
    """Inside, the evaluator must know the program: fewer bits are chosen, calibrated and held by what it sees."""
    try:
        yield
    except RuntimeUnavailable as reason:
        raise LoweringFailed(f"{precision} cannot be made of a program that cannot be evaluated: {reason}") from reason


def _kept(rung: _Rung, precision: str) -> frozenset[Fingerprint]:
    """Layers that stay float, by what float16 makes of their weights."""
    kept = rung.source.keep_float.get(precision, frozenset())
    known = layers(rung.source.program.module()) if kept else ()
    return frozenset(layer.half for layer in known if layer.fingerprint in kept)


def _twin(rung: _Rung, precision: str) -> Path:
    assert rung.half is not None
    return rung.half.with_name(f"unpacked_{precision}_{rung.source.size}.mlpackage")


def _seen(rung: _Rung, plan: Plan) -> compression.Seen:
    """What activations are on the pictures to calibrate on."""
    assert rung.half is not None
    source, half = rung.source, rung.half
    pictures = calibration.of(source)

    def measure() -> compression.Seen:
        package = read(half)
        samples = [inputs.feed(package, "main", picture, source.preprocessing) for picture in pictures.pictures]
        return compression.Seen(samples, ranges(half, samples, source.observer))

    return shelf.of(source).value(("seen", plan, source.observer, pictures.digest), measure)


def _convert(rung: _Rung, precision: str, plan: Plan, path: Path) -> Path:
    """The float32 or float16 package at ``path``, converted where none is like it."""
    made = shelf.of(rung.source)
    program = made.value(("program", plan.kind), lambda: _decomposed(rung.source, plan.kind))
    key = (precision, plan, rung.keep)
    return made.package(key, lambda kept: _converted(program, rung, precision, plan, kept), path)


def _decomposed(source: SourceModel, kind: inputs.Kind) -> Any:
    """The captured program in coremltools' dialect, fed with what ``kind`` delivers."""
    with quietly(), step("lower", f"coreml {source.size}"):
        program = source.program.run_decompositions({})
        drop_aliases(program)
        if kind == "image":
            rest = inputs.Normalisation.of(source.preprocessing).rest
            program = inputs.divide_first_convolution(program, rest)
        return program


def _converted(program: Any, rung: _Rung, precision: str, plan: Plan, path: Path) -> Path:
    """``ct.convert`` with the outputs' own names, as float32. Raises ``LoweringFailed`` with the converter's words."""
    ct, source = coremltools(), rung.source
    try:
        with counting_from_zero():
            model = ct.convert(
                program,
                inputs=[inputs.input_type(ct, source, plan.kind)],
                outputs=[ct.TensorType(name=output.name, dtype=np.float32) for output in source.outputs],
                minimum_deployment_target=ct.target[plan.ios.replace("ios", "iOS")],
                compute_precision=_compute_precision(ct, precision, rung.keep),
                pass_pipeline=exact_passes(ct),
                skip_model_load=True,
            )
        model.save(str(path))
    except Exception as error:  # coremltools raises whatever its translation raised
        raise LoweringFailed(f"coremltools cannot take {source.name}: {root_line(error)}.") from error
    return path


def _compute_precision(ct: Any, precision: str, keep: Kept) -> Any:
    if precision == "fp32":
        return ct.precision.FLOAT32
    return ct.transform.FP16ComputePrecision(op_selector=takes_half(keep)) if keep else ct.precision.FLOAT16


def _merge(singles: Sequence[Path], sizes: Sequence[Size], path: Path) -> Path:
    """One package with a function for each size, the first being the default; equal weights are stored once."""
    ct = coremltools()
    functions = ct.utils.MultiFunctionDescriptor()
    for single, size in zip(singles, sizes, strict=True):
        functions.add_function(str(single), src_function_name="main", target_function_name=function_name(size))
    functions.default_function_name = function_name(sizes[0])
    try:
        ct.utils.save_multifunction(functions, str(path))
    except Exception as error:
        raise LoweringFailed(f"coremltools cannot merge the sizes of a ladder: {root_line(error)}.") from error
    return path


def _finish(package: Path, rungs: Sequence[_Rung], plan: Plan, held: Precision) -> list[_Written]:
    """Labels, then what the package says of itself, which includes how it answers at each of its sizes."""
    spec, first = sealing.read_spec(package), rungs[0].source
    if labels.wanted(first, plan.kind):
        labels.attach(spec, first.outputs[0])
    facts: dict[str, str] = {"vitexport.minimum_deployment_target": plan.ios}
    sealing.seal(package, spec, first, facts)
    written = []
    for rung in rungs:
        source = rung.source
        answer = first_answer(package, source, "exact" if held.name == "fp32" else "fp16")
        if held.metric == "loss":
            with _evaluated(held.name):
                written.append(_Written(package, _explained_loss(package, rung, held)))
                facts[unpacked_key(source.size)] = digest(read(_twin(rung, held.name)), "main")
        elif held.name == "fp32":
            written.append(_Written(package, floors.tolerance(source, held, noise(answer.snr_db))))
            facts[tolerance_key(source.size)] = repr(written[-1].tolerance)  # gate A of the others goes by it
        else:
            written.append(_Written(package, held.tolerance))
        facts[f"vitexport.parity.{source.size}"] = str(answer)
        if rung.before:
            facts[layout_key(source.size)] = rung.before
    sealing.seal(package, spec, first, facts)
    return written


def _explained_loss(package: Path, rung: _Rung, held: Precision) -> float:
    assert rung.single is not None
    how, found = rung.source.preprocessing, read(package)
    function = function_of(found, rung.source.size)
    picture = inputs.feed(found, function, preprocess(rung.source.probes[0].image, how), how)
    return floors.explained_loss(found, read(rung.single), function, picture, held)


def _accompany(sources: Sequence[SourceModel], precisions: Sequence[str], plan: Plan, into: Path) -> None:
    """What a phone's developer needs beside the packages."""
    shutil.copyfile(_PHONE / "verify.py", into / "verify.py")
    packages = sorted(path.name for path in into.glob("*.mlpackage"))
    (into / "MODEL_CARD.md").write_text(card(sources, plan.ios, plan.kind, packages), encoding="utf-8")
    SwiftPackage.of(sources, precisions, plan.ios, plan.kind, plan.multifunction).write(into)


def _variant(held: Precision, written: _Written, root: Path) -> Variant:
    """A package is a folder: what a runtime opens is the folder of ``files[0]``."""
    manifest = written.package / "Manifest.json"
    rest = sorted(path for path in written.package.rglob("*") if path.is_file() and path != manifest)
    files = tuple(path.relative_to(root).as_posix() for path in (manifest, *rest))
    return Variant(held.name, files, written.tolerance, metric=held.metric)
