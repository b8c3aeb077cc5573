"""TFLite files (``.tflite``), which LiteRT runs on Android, iOS, embedded Linux and in browsers.

::

    model_fp32.tflite  model_fp16.tflite  manifest.json  golden/

One file holds every size of a ladder: a signature for each, with the weights stored once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vitexport.contract import Artifact, Bundle, ExportRequest, Need, Session, SourceModel, Traits
from vitexport_targets._precisions import FP16, FP32

_INSTALL = "Run: pip install 'vitexport[tflite]'"


class TFLite:
    traits = Traits(
        name="tflite",
        summary="one .tflite for LiteRT on Android, iOS, embedded Linux and in browsers",
        precisions=(replace(FP32, default=True), replace(FP16, default=True)),
        providers=("interpreter", "compiled-model"),
        needs=(Need("python", "litert_torch", _INSTALL), Need("python", "ai_edge_quantizer", _INSTALL)),
        options=("image_input",),
    )

    def lower(self, sources: tuple[SourceModel, ...], request: ExportRequest, into: Path) -> Artifact:
        from vitexport_targets.tflite.lowering import lower

        return lower(self.traits, sources, request, into)

    def open(self, bundle: Bundle, precision: str, provider: str, taps: tuple[str, ...] = ()) -> Session:
        from vitexport_targets.tflite.native import open_natively

        return open_natively(bundle, precision, provider, taps)


TARGET = TFLite()
