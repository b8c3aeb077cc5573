"""Fill a bundle's folder: the model's variants, the page, the loader and the runtime's files."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from vitexport.contract import Artifact, ExportRequest, Precision, SourceModel, Traits, Variant
from vitexport.quantize import half
from vitexport_targets import _onnx_graph
from vitexport_targets._onnx_bits import HALVED, in_precision
from vitexport_targets.webgpu import BESIDE, ONLY, PREFERENCE, REQUIRES, ort_web

_HERE = Path(__file__).parent


def lower(traits: Traits, sources: tuple[SourceModel, ...], request: ExportRequest, into: Path) -> Artifact:
    """Variants in order of preference, whatever order they were asked for in; weights shared between the sizes."""
    asked = {*request.precisions, *(name for each in request.precisions for name in BESIDE.get(each, ()))}
    columns = [
        column
        for each in _sharing(asked)
        for column in _at_every_size(map(traits.precision, each), sources, request, into)
    ]
    # The loader goes to the bundle's root, so that a page says `import './vitexport.js'`; the page lies beside it.
    shutil.copytree(_HERE / "runtime", into, dirs_exist_ok=True)
    shutil.copytree(_HERE / "page", into, dirs_exist_ok=True)
    copied = request.runtime == "copy"
    runtime = ort_web.copy_into(into / "runtime", "runtime") if copied else ort_web.left_to_the_page()
    versions = {**_onnx_graph.toolchain(), ort_web.PACKAGE: ort_web.VERSION}
    notes = half.notes(sources) if "fp16" in request.precisions else ()
    return Artifact(tuple(zip(*columns, strict=True)), versions, runtime, notes=notes)


def _sharing(asked: Collection[str]) -> list[list[str]]:
    """In order of preference; those that are made of the same weights together."""
    found: dict[str, list[str]] = {}
    for name in sorted(asked, key=PREFERENCE.index):
        found.setdefault(HALVED.get(name, name), []).append(name)
    return list(found.values())


def _at_every_size(
    precisions: Iterable[Precision], sources: tuple[SourceModel, ...], request: ExportRequest, into: Path
) -> list[list[Variant]]:
    """Each precision's variant for each source; what is stored of one serves all."""
    held = list(precisions)
    rungs = [(each, source) for each in held for source in sources]
    models = [in_precision(_onnx_graph.to_model(source), each.name, source) for each, source in rungs]
    if len(models) == 1:
        written = [_onnx_graph.save(models[0], into / f"model_{held[0].name}.onnx", request.max_file_bytes)]
    else:
        sizes = [f"_{source.size}" if len(sources) > 1 else "" for _, source in rungs]
        paths = [into / f"model_{each.name}{size}.onnx" for (each, _), size in zip(rungs, sizes, strict=True)]
        written = _onnx_graph.save_ladder(models, paths, f"weights_{held[-1].name}", request.max_file_bytes)
    variants = [_variant(each, files) for (each, _), files in zip(rungs, written, strict=True)]
    return [variants[start : start + len(sources)] for start in range(0, len(variants), len(sources))]


def _variant(held: Precision, files: tuple[str, ...]) -> Variant:
    requires, only = REQUIRES.get(held.name, ()), ONLY.get(held.name, ())
    return Variant(held.name, files, held.tolerance, requires, held.metric, only=only)
