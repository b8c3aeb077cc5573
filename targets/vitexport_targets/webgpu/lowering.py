"""Fill a bundle's folder: the model's variants, the page, the loader and the runtime's files."""

from __future__ import annotations

import shutil
from pathlib import Path

from vitexport.contract import Artifact, ExportRequest, SourceModel, Traits, Variant
from vitexport_targets import _onnx_graph
from vitexport_targets.webgpu import PREFERENCE, REQUIRES, ort_web

_HERE = Path(__file__).parent


def lower(traits: Traits, source: SourceModel, request: ExportRequest, into: Path) -> Artifact:
    """Variants in order of preference, whatever order they were asked for in."""
    model = _onnx_graph.to_model(source)
    variants = []
    for precision in sorted(request.precisions, key=PREFERENCE.index):
        graph = _onnx_graph.to_fp16(model) if precision == "fp16" else model
        files = _onnx_graph.save(graph, into / f"model_{precision}.onnx", request.max_file_bytes)
        held = traits.precision(precision)
        variants.append(Variant(precision, files, held.tolerance, REQUIRES.get(precision, ()), held.metric))
    # The loader goes to the bundle's root, so that a page says `import './vitexport.js'`; the page lies beside it.
    shutil.copytree(_HERE / "runtime", into, dirs_exist_ok=True)
    shutil.copytree(_HERE / "page", into, dirs_exist_ok=True)
    copied = request.runtime == "copy"
    runtime = ort_web.copy_into(into / "runtime", "runtime") if copied else ort_web.left_to_the_page()
    return Artifact(tuple(variants), {**_onnx_graph.toolchain(), ort_web.PACKAGE: ort_web.VERSION}, runtime)
