"""Core ML packages (``.mlpackage``, ML Programs), proven without a Mac: the saved package is read back and evaluated.

::

    model_fp16.mlpackage  model_fp32.mlpackage  verify.py  MODEL_CARD.md  manifest.json  golden/
    Package.swift  swift/

The float32 package is written whatever is asked for: every other one is proven against it, gate by gate.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vitexport.contract import (
    Artifact,
    Attachment,
    Bundle,
    ExportRequest,
    Lint,
    Need,
    Precision,
    Result,
    Session,
    SourceModel,
    Traits,
    Value,
)
from vitexport_targets._precisions import LARGEST_LOSS

#: Core ML's compute units, by coremltools' names; elsewhere the evaluator stands in for all of them.
_COMPUTE_UNITS = ("cpu_only", "cpu_and_gpu", "cpu_and_ne", "all")

FP32 = Precision(
    "fp32",
    3.16e-6,
    "110 dB: float32 rounding leaves 120 to 135 dB of these networks, and one misplaced GELU 85",
    metric="noise",
)

FP16 = Precision(
    "fp16",
    5.6e-3,
    "45 dB with every result rounded to float16: these networks keep 50 to 65 dB, and their graph is held to 110 dB",
    metric="noise",
    default=True,
)


def _fewer_bits(name: str, what: str) -> Precision:
    return Precision(
        name,
        LARGEST_LOSS,
        f"{what}: four times what this network's own rounding explains, at most half the answer's power",
        metric="loss",
    )


FEWER_BITS = (
    _fewer_bits("w8", "int8 weights, a scale for each output channel"),
    _fewer_bits("w6p", "weights from a palette of 64 values"),
    _fewer_bits("w4", "int4 weights, a scale for each 32 (iOS 18)"),
    _fewer_bits("w4p", "weights from a palette of 16 values"),
    _fewer_bits("w8a8", "int8 weights and int8 activations, calibrated on photos"),
)


class CoreMl:
    traits = Traits(
        name="coreml",
        summary="an ML Program package for iOS and macOS, evaluated op by op where there is no Mac",
        precisions=(FP16, FP32, *FEWER_BITS),
        providers=_COMPUTE_UNITS if sys.platform == "darwin" else ("evaluator",),
        needs=(Need("python", "coremltools", "Run: pip install 'vitexport[coreml]'"),),
        options=("coreml_target", "image_input", "layout"),
        shows=("evaluator",),
        devices=("ios",),
    )

    def lower(self, sources: tuple[SourceModel, ...], request: ExportRequest, into: Path) -> Artifact:
        from vitexport_targets.coreml.lowering import lower

        return lower(self.traits, sources, request, into)

    def open(self, bundle: Bundle, precision: str, provider: str, taps: tuple[str, ...] = ()) -> Session:
        if provider == "evaluator":
            from vitexport_targets.coreml.session import open_in_evaluator

            return open_in_evaluator(bundle, precision, taps)
        from vitexport_targets.coreml.on_mac import open_in_core_ml

        return open_in_core_ml(bundle, precision, provider, taps)

    def values(self, bundle: Bundle, precision: str) -> dict[str, Value]:
        from vitexport_targets.coreml.values import values

        return values(bundle, precision)

    def lint(self, bundle: Bundle, precision: str) -> Lint:
        from vitexport_targets.coreml.lint import lint

        return lint(bundle, precision)

    def measure_attached(self, bundles: Sequence[Bundle], asked: Attachment) -> tuple[Result, ...]:
        from vitexport_targets.coreml.ios.measure import measured

        return measured(self, bundles, asked)


TARGET = CoreMl()
