"""float16 weights of a ``.tflite``: none is infinite, and what a GPU must be told is said."""

from __future__ import annotations

from pathlib import Path

import pytest

import models
import wide_models
from vitexport import ExportRequest, capture, photos, proof, registry
from vitexport import bundle as bundles
from vitexport.contract import Artifact, Result
from vitexport_targets.tflite import half

GPU = (
    "fp16: a .tflite computes blocks.0.norm, blocks.1.norm, blocks.2.norm and 2 more in float32 on a CPU, and must on "
    "a GPU, in whatever precision it is: give LiteRT.js gpuOptions {precision: 'fp32'}, and the GPU delegate no leave "
    "to lose precision (setPrecisionLossAllowed(false))"
)


def made(name: str, out: Path, precisions: tuple[str, ...] = ("fp32", "fp16")) -> tuple[Artifact, Result]:
    """And the last of the precisions, proven in the interpreter."""
    network = getattr(wide_models, name, None) or getattr(models, name)
    source = capture.capture(network(), name, photos.probes(None))
    target, exam = registry.target("tflite"), proof.exam(source)
    out.mkdir()
    artifact = target.lower((source,), ExportRequest(model=name, precisions=precisions), out)
    (bundle,) = bundles.complete(out, "tflite", (exam,), artifact)
    return artifact, proof.prove(target, bundle, precisions[-1], "interpreter", exam.cases).result


def test_a_layer_whose_weight_float16_has_infinity_for_stays_float32_and_litert_agrees(tmp_path: Path):
    artifact, result = made("heavy", tmp_path / "out")
    assert result.verdict == "passed", result.parity
    assert artifact.notes == (
        "fp16: blocks.1.fc2 stays float32: its weight's largest |x| reaches 100,000, and float16 ends at 65,504",
    )
    assert len(half.readers((tmp_path / "out/model_fp32.tflite").read_bytes())) == 1


@pytest.mark.parametrize("name", ["outlying", "streaming"])
def test_values_beyond_float16_are_right_in_litert_on_the_cpu(name: str, tmp_path: Path):
    artifact, result = made(name, tmp_path / "out")
    assert result.verdict == "passed", result.parity
    if name == "outlying":
        assert artifact.notes == (GPU,)


def test_of_a_network_without_danger_nothing_is_spared_or_said(tmp_path: Path):
    artifact, _ = made("stacked", tmp_path / "out")
    assert artifact.notes == ()
    assert half.readers((tmp_path / "out/model_fp32.tflite").read_bytes()) == []


def test_float32_alone_says_nothing(tmp_path: Path):
    artifact, _ = made("outlying", tmp_path / "out", ("fp32",))
    assert artifact.notes == ()
