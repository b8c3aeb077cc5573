"""Every preset that segments x every target, at float32 and float16: logits, and the mask of people. Slow, so resumable
as the matrix of sizes is: see test_sizes_matrix.

Random weights stand in where no hub is reachable; MediaPipe's are the trained ones. ONNX and Core ML take each network
at its own size. In browsers a software GPU needs minutes for 512 pixels: the three large networks go there at 128, and
to LiteRT, whose runtimes are four, likewise. Chromium's software adapter has no ``shader-f16``: float16 is run on
WebAssembly there, and on a WebGPU adapter that has it outside the browser (``make webgpu-f16``).
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

import vitexport
import webgpu_f16
from test_sizes_matrix import ROWS, row_of
from vitexport import parity
from vitexport.contract import Bundle, ExportRequest, Result, Size
from vitexport.manifest import read_bundle
from vitexport.pipeline import binds

PRECISIONS = ("fp32", "fp16")

#: Preset -> its weights, its size in a browser and in LiteRT, and where its manifest must find people.
PRESETS = {
    "selfie": ("pretrained", None, 0),
    "selfie_landscape": ("pretrained", None, 0),
    "vit_tiny_seg": ("random", None, 1),
    "segformer_b0": ("random", "128", 12),
    "mobilevit_deeplab_xxs": ("random", "128", 15),
    "lraspp_mobilenet_v3": ("random", "128", 15),
}


@dataclass(frozen=True)
class Cell:
    model: str
    target: str
    size: str | None
    """None: the network's own."""

    def __str__(self) -> str:
        return f"{self.model}-{self.target}"


CELLS = [
    Cell(model, target, small if target in ("tflite", "webgpu") else None)
    for model, (_, small, _) in PRESETS.items()
    for target in ("onnx", "coreml", "tflite", "webgpu")
]

BROWSER = {"tflite": [pytest.mark.browser], "webgpu": [pytest.mark.browser]}

#: Preset -> dB that are left on an adapter that adds up products in float16, too, where 38 to 42 are asked for. All
#: have random weights, each layer of which magnifies what the last one rounded; trained ones keep more: MediaPipe's
#: pass here, and ``digits_vit_tiny`` keeps 53 dB on digits (tests/test_half_webgpu.py).
KNOWN_IN_F16 = {"vit_tiny_seg": 37.7, "segformer_b0": 36.7, "mobilevit_deeplab_xxs": 35.4, "lraspp_mobilenet_v3": 36.9}


@pytest.mark.slow
@pytest.mark.timeout(3600)  # minutes alone on two cores
@pytest.mark.parametrize("cell", [pytest.param(cell, marks=BROWSER.get(cell.target, ())) for cell in CELLS], ids=str)
def test_a_segmenter_is_exact_and_so_is_its_mask_of_people(cell: Cell, tmp_path: Path) -> None:
    row = row_of(cell)
    if row.is_file():
        pytest.skip(f"done before: {json.loads(row.read_text())['results']}")
    started = time.monotonic()
    weights, _, person = PRESETS[cell.model]
    report = vitexport.export(
        ExportRequest(
            model=cell.model,
            targets=(cell.target,),
            sizes=(Size.parse(cell.size),) if cell.size else (),
            precisions=PRECISIONS,
            weights=weights,
            out=str(tmp_path / "out"),
        )
    )
    bundle = read_bundle(tmp_path / "out" / cell.target)
    (output,) = bundle.rung.outputs
    assert (output.person, output.scores) == (person, "probabilities" if output.meaning == "mask" else "logits")
    assert people_in_the_golden_photos(bundle) > 0.05, "masks of nobody agree whatever computes them"
    bound = [result for result in report.results if binds(result) and not without_shader_f16(result)]
    assert {result.precision for result in bound} == set(PRECISIONS)
    for result in bound:
        assert result.verdict == "passed", result.parity
        assert result.parity.person_iou > parity.MASK_IOU_FLOOR["noise"]
        if result.provider == "webgpu":
            assert result.placement is not None
            assert not result.placement.fallback
    results = {f"{r.precision} {r.provider}": figures(r) for r in bound}
    if cell.target == "webgpu":
        results["fp16 webgpu outside the browser"] = on_an_adapter_with_f16(bundle, tmp_path)
    done = {**asdict(cell), "results": results, "seconds": round(time.monotonic() - started, 1)}
    ROWS.mkdir(parents=True, exist_ok=True)
    partial = row.with_suffix(".partial")  # a killed run must not leave half a row
    partial.write_text(json.dumps(done) + "\n")
    partial.replace(row)


def without_shader_f16(result: Result) -> bool:
    """What Chromium's software adapter cannot run."""
    return result.verdict == "not run" and result.parity.reason == "fp16 on webgpu: adapter has no shader-f16"


def figures(result: Result) -> dict[str, object]:
    judged, placed = result.parity, result.placement
    return {
        "drift": judged.drift,
        "snr_db": judged.snr_db,
        "person_iou": judged.person_iou,
        "nodes": placed.nodes if placed else None,
        "fallback": len(placed.fallback) if placed else None,
    }


def golden(bundle: Bundle) -> list[tuple[np.ndarray, np.ndarray]]:
    """What PyTorch was given, and what it answered."""
    (output,) = bundle.rung.outputs
    inputs = (1, *bundle.rung.preprocessing.input_shape)
    return [
        (
            np.fromfile(bundle.path(case.input), "<f4").reshape(inputs),
            np.fromfile(bundle.path(case.outputs[output.name]), "<f4").reshape(output.shape),
        )
        for case in bundle.rung.golden
    ]


def people_in_the_golden_photos(bundle: Bundle) -> float:
    (output,) = bundle.rung.outputs
    masks = [parity.person_mask(answer, output) for _, answer in golden(bundle)]
    return float(np.mean([mask > 0.5 for mask in masks if mask is not None]))


def on_an_adapter_with_f16(bundle: Bundle, folder: Path) -> dict[str, object] | str:
    """The bundle's float16 file in onnxruntime-webgpu, which runs all of it on the adapter or raises."""
    (output,) = bundle.rung.outputs
    pairs = golden(bundle)
    variant = bundle.variant("fp16")
    try:
        answers = webgpu_f16.answers(onnx.load(bundle.path(variant.files[0])), [given for given, _ in pairs], folder)
    except webgpu_f16.NotHere as reason:
        return str(reason)
    references = [answer for _, answer in pairs]
    judged = parity.verify(
        (output,),
        [{output.name: reference} for reference in references],
        [{output.name: answer} for answer in answers],
        variant,
        [case.name for case in bundle.rung.golden],
        spread=parity.contrast((output,), [{output.name: reference} for reference in references]),
    )
    if bundle.manifest.model in KNOWN_IN_F16:
        assert judged.verdict == "failed", "it passes: take it off the list"
        assert judged.snr_db is not None
        assert judged.snr_db > KNOWN_IN_F16[bundle.manifest.model] - 2
        assert judged.person_iou is not None
        assert judged.person_iou > 0.95, judged
    else:
        assert judged.verdict == "passed", judged
    return {"drift": judged.drift, "snr_db": judged.snr_db, "person_iou": judged.person_iou, "fallback": 0}
