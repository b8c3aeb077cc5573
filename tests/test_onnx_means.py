"""Means over a whole picture in float16: axis by axis, so that sums stay small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import nn

import models
import webgpu_f16
from vitexport import Preprocessing, Size, capture, photos
from vitexport.contract import SourceModel
from vitexport.parity import noise, snr_db
from vitexport.preprocess import preprocess
from vitexport_targets import _onnx_graph
from vitexport_targets._onnx_half import to_fp16
from vitexport_targets._onnx_means import in_steps
from vitexport_targets._precisions import FP16


class Gated(nn.Module):
    """Squeeze and excitation, as MobileNetV3 has it, over 128x128 pixels of about 8: they add up to twice what float16
    holds."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.squeeze = nn.Conv2d(3, 3, 1)
        self.patches = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.Conv2d(8, 8, 4, stride=4))
        self.head = nn.Linear(128, 5)
        for layer in (self.squeeze, self.patches[0], self.patches[2], self.head):
            fan_in = layer.weight[0].numel()
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) / fan_in**0.5
            layer.bias.data.zero_()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        gate = self.squeeze((pixel_values + 8).mean((2, 3), keepdim=True)).sigmoid()
        return self.head(self.patches(pixel_values * gate).flatten(1))


@pytest.fixture(scope="module")
def source() -> SourceModel:
    how = Preprocessing(Size(128, 128), (0.5,) * 3, (0.5,) * 3)
    return capture.capture(replace(models.tiny(), module=Gated(), preprocessing=how), "gated", photos.probes(None))


def means(model: onnx.ModelProto) -> list[list[int]]:
    held = {tensor.name: numpy_helper.to_array(tensor).ravel().tolist() for tensor in model.graph.initializer}
    return [held[node.input[1]] for node in model.graph.node if node.op_type == "ReduceMean"]


def test_a_mean_over_two_axes_is_two_in_float16_and_one_in_float32(source: SourceModel) -> None:
    model = _onnx_graph.to_model(source)
    before = model.SerializeToString()
    assert [sorted(axes) for axes in means(model)] in ([[2, 3]], [[-2, -1]])
    assert [len(axes) for axes in means(to_fp16(model, source))] == [1, 1]
    assert model.SerializeToString() == before


def test_the_mean_of_means_is_the_mean() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 32, 24])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=1)
    for axes in ([2, 3], [-1, -2], [1, 2, 3], [3]):
        held = numpy_helper.from_array(np.array(axes), "axes")
        graph = helper.make_graph([node], "g", [x], [y], [held])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        made = in_steps(model)
        onnx.checker.check_model(made)
        assert [len(each) for each in means(made)] == [1] * len(axes)
        given = np.random.default_rng(0).normal(size=(1, 4, 32, 24)).astype(np.float32)
        (answer,) = onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": given})
        np.testing.assert_allclose(answer, given.mean(tuple(axes), keepdims=True), atol=1e-6)


def test_a_mean_that_drops_its_axes_is_left_alone() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 32, 24])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)
    held = numpy_helper.from_array(np.array([2, 3]), "axes")
    model = helper.make_model(helper.make_graph([node], "g", [x], [y], [held]))
    assert in_steps(model).SerializeToString() == model.SerializeToString()


def test_webgpu_answers_as_pytorch_does_and_not_with_one_mean(source: SourceModel, tmp_path: Path) -> None:
    pictures = [preprocess(probe.image, source.preprocessing) for probe in source.probes]
    true = [source.forward(each)["logits"] for each in pictures]

    def worst(model: onnx.ModelProto) -> float:
        answers = webgpu_f16.answers(model, pictures, tmp_path)
        return max(noise(snr_db(got, wanted)) for got, wanted in zip(answers, true, strict=True))

    model = _onnx_graph.to_model(source)
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    try:
        assert worst(to_fp16(model, source)) < FP16.tolerance
    except webgpu_f16.NotHere as reason:
        pytest.skip(str(reason))
    assert not worst(convert_float_to_float16(plain, keep_io_types=True)) < 10 * FP16.tolerance
