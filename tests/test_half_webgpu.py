"""fp16 files on a WebGPU adapter that computes float16: ONNX Runtime's WebGPU kernels on Mesa's lavapipe.

Chromium's software adapter has no ``shader-f16``, and ONNX Runtime's CPU provider computes in float32 what it has no
float16 kernel for: here alone is seen what a visitor's GPU would make of a file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import unproven
import webgpu_f16
from test_half import WIDE, pictures, plain, safe, worst
from vitexport import parity, pipeline
from vitexport.contract import ExportRequest
from vitexport.digits import pictures as digits
from vitexport.preprocess import preprocess
from vitexport_targets._precisions import FP16


def on_webgpu(model: onnx.ModelProto, name: str, folder: Path) -> list[np.ndarray]:
    try:
        return webgpu_f16.answers(model, pictures(name), folder)
    except webgpu_f16.NotHere as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", WIDE)
def test_webgpu_agrees_with_pytorch(name: str, tmp_path: Path):
    assert worst(name, on_webgpu(safe(name), name, tmp_path)) < FP16.tolerance


@pytest.mark.parametrize("name", ["streaming", "heavy"])
def test_a_plain_conversion_is_wrong_on_webgpu(name: str, tmp_path: Path):
    assert not worst(name, on_webgpu(plain(name), name, tmp_path)) < 10 * FP16.tolerance


def test_a_plain_conversion_of_a_norm_that_is_spelt_out_is_wrong_without_a_nan(tmp_path: Path):
    """Each token becomes zero: the same answer to every picture."""
    name = "outlying_and_spelt_out"
    answers = on_webgpu(plain(name), name, tmp_path)
    assert np.isfinite(answers).all()
    assert np.ptp(np.stack(answers), axis=0).max() == 0
    assert worst(name, answers) > 0.5


def test_a_native_layer_normalization_adds_in_float32_there(tmp_path: Path):
    """Of this runtime and version (onnxruntime-webgpu 1.27): no reason to rely on it elsewhere."""
    assert worst("outlying", on_webgpu(plain("outlying"), "outlying", tmp_path)) < FP16.tolerance


def test_a_trained_vit_reads_digits_as_pytorch_does(tmp_path: Path):
    """Of the exam, in the file of a web bundle: this adapter adds products up in float16, too."""
    request = ExportRequest(model="digits_vit_tiny", targets=("webgpu",), precisions=("fp16",), runtime="none")
    (exam,) = pipeline.captured(request)
    (bundle,) = unproven.written(tmp_path / "bundle", request, [exam])
    images, _ = digits.held_out(40)
    given = [preprocess(image, exam.source.preprocessing) for image in images]
    model = onnx.load(bundle.path(bundle.variant("fp16").files[0]))
    try:
        answers = webgpu_f16.answers(model, given, tmp_path)
    except webgpu_f16.NotHere as reason:
        pytest.skip(str(reason))
    true = [exam.source.forward(x)["logits"] for x in given]
    assert all(parity.noise(parity.snr_db(a, b)) < FP16.tolerance for a, b in zip(answers, true, strict=True))
    best = np.sort(np.concatenate(true), 1)
    sure = best[:, -1] - best[:, -2] > 0.05
    assert sure.mean() > 0.9
    assert (np.concatenate(answers).argmax(1) == np.concatenate(true).argmax(1))[sure].all()
