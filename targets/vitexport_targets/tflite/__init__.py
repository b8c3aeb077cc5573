"""TFLite files (``.tflite``), which LiteRT runs on Android, iOS, embedded Linux and in browsers.

::

    model_fp32.tflite  model_fp16.tflite  manifest.json  golden/

One file holds every size of a ladder: a signature for each, with the weights stored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vitexport.contract import (
    Artifact,
    Attachment,
    Bundle,
    ExportRequest,
    Lint,
    Need,
    Result,
    Session,
    SourceModel,
    Traits,
    Value,
)
from vitexport_targets._precisions import FP16, FP32, W8, W8_DYN, W8A8, fewer_bits

FEWER_BITS = (
    W8,
    W8_DYN,
    W8A8,
    fewer_bits("w8a16", "the same with int16 activations"),
    fewer_bits("w4", "int4 weights in blocks of 32, activations quantised on the fly"),
)

_INSTALL = "Run: pip install 'vitexport[tflite]'"


class TFLite:
    traits = Traits(
        name="tflite",
        summary="one .tflite for LiteRT on Android, iOS, embedded Linux and in browsers",
        precisions=(replace(FP32, default=True), replace(FP16, default=True), *FEWER_BITS),
        providers=("interpreter", "compiled-model", "wasm", "webgpu", "tflite-runtime"),
        older=("tflite-runtime",),
        needs=(Need("python", "litert_torch", _INSTALL), Need("python", "ai_edge_quantizer", _INSTALL)),
        options=("image_input",),
        shows=("interpreter",),
        devices=("adb",),
        threaded=("interpreter", "compiled-model"),
    )

    def lower(self, sources: tuple[SourceModel, ...], request: ExportRequest, into: Path) -> Artifact:
        from vitexport_targets.tflite.lowering import lower

        return lower(self.traits, sources, request, into)

    def open(self, bundle: Bundle, precision: str, provider: str, taps: tuple[str, ...] = ()) -> Session:
        if provider in ("wasm", "webgpu"):
            from vitexport_targets.tflite.web import open_on_the_web

            return open_on_the_web(bundle, precision, provider, taps)
        if provider == "tflite-runtime":
            from vitexport_targets.tflite.legacy import open_in_legacy

            return open_in_legacy(bundle, precision, taps)
        from vitexport_targets.tflite.native import open_natively

        return open_natively(bundle, precision, provider, taps)

    def open_threaded(self, bundle: Bundle, precision: str, provider: str, threads: int) -> Session:
        from vitexport_targets.tflite.native import open_natively

        return open_natively(bundle, precision, provider, threads=threads)

    def values(self, bundle: Bundle, precision: str) -> dict[str, Value]:
        from vitexport_targets.tflite.native import values

        return values(bundle, precision)

    def measure_attached(self, bundles: Sequence[Bundle], asked: Attachment) -> tuple[Result, ...]:
        from vitexport_targets.tflite.android.measure import measured

        return measured(self, bundles, asked)

    def lint(self, bundle: Bundle, precision: str) -> Lint:
        from vitexport_targets.tflite.lint import lint

        return lint(bundle, precision)


TARGET = TFLite()
