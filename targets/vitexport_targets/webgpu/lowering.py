"""Fill a bundle's folder: the model's variants, the page, the loader and the runtime's files."""

from __future__ import annotations

import shutil
from pathlib import Path

from vitexport.contract import Artifact, ExportRequest, Precision, SourceModel, Traits, Variant
from vitexport.quantize import half
from vitexport_targets import _onnx_graph
from vitexport_targets._onnx_bits import in_precision
from vitexport_targets.webgpu import ONLY, PREFERENCE, REQUIRES, ort_web

_HERE = Path(__file__).parent


def lower(traits: Traits, sources: tuple[SourceModel, ...], request: ExportRequest, into: Path) -> Artifact:
    """Variants in order of preference, whatever order they were asked for in; weights shared between the sizes."""
    precisions = sorted(request.precisions, key=PREFERENCE.index)
    columns = [_at_every_size(traits.precision(name), sources, request, into) for name in precisions]
    # The loader goes to the bundle's root, so that a page says `import './vitexport.js'`; the page lies beside it.
    shutil.copytree(_HERE / "runtime", into, dirs_exist_ok=True)
    shutil.copytree(_HERE / "page", into, dirs_exist_ok=True)
    copied = request.runtime == "copy"
    runtime = ort_web.copy_into(into / "runtime", "runtime") if copied else ort_web.left_to_the_page()
    versions = {**_onnx_graph.toolchain(), ort_web.PACKAGE: ort_web.VERSION}
    notes = half.notes(sources) if "fp16" in request.precisions else ()
    return Artifact(tuple(zip(*columns, strict=True)), versions, runtime, notes=notes)


def _at_every_size(
    held: Precision, sources: tuple[SourceModel, ...], request: ExportRequest, into: Path
) -> list[Variant]:
    """One precision's variant for each source."""
    models = [in_precision(_onnx_graph.to_model(source), held.name, source) for source in sources]
    if len(models) == 1:
        written = [_onnx_graph.save(models[0], into / f"model_{held.name}.onnx", request.max_file_bytes)]
    else:
        paths = [into / f"model_{held.name}_{source.size}.onnx" for source in sources]
        written = _onnx_graph.save_ladder(models, paths, f"weights_{held.name}", request.max_file_bytes)
    requires, only = REQUIRES.get(held.name, ()), ONLY.get(held.name, ())
    return [Variant(held.name, files, held.tolerance, requires, held.metric, only=only) for files in written]
