"""What float16 cannot hold: found from real photos, kept in float32 in every target, said in the report."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

import models
import wide_models
from conftest import TESTS
from vitexport import ExportRequest, capture, export, photos
from vitexport.contract import Report, SourceModel
from vitexport.parity import noise, snr_db
from vitexport.preprocess import preprocess
from vitexport.quantize import half
from vitexport_targets import _onnx_graph
from vitexport_targets._onnx_half import kept, to_fp16
from vitexport_targets._precisions import FP16
from vitexport_targets.coreml import lowering
from vitexport_targets.coreml.evaluator import Evaluator
from vitexport_targets.coreml.package import read

WIDE = ("outlying", "outlying_and_spelt_out", "streaming", "heavy")


@cache
def captured(name: str) -> SourceModel:
    network = getattr(wide_models, name, None) or getattr(models, name)
    return capture.capture(network(), name, photos.probes(None))


@cache
def plain(name: str) -> onnx.ModelProto:
    """As every converter makes it, without a look at what the network computes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(_onnx_graph.to_model(captured(name)))
    made: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    return made


@cache
def safe(name: str) -> onnx.ModelProto:
    return to_fp16(_onnx_graph.to_model(captured(name)), captured(name))


def pictures(name: str) -> list[Any]:
    source = captured(name)
    return [preprocess(probe.image, source.preprocessing) for probe in source.probes]


def on_cpu(model: onnx.ModelProto, name: str) -> float:
    """The worst noise of ONNX Runtime's answers beside PyTorch's."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return worst(name, [session.run(None, {"pixel_values": each})[0] for each in pictures(name)])


def worst(name: str, answers: list[Any]) -> float:
    true = [captured(name).forward(each)["logits"] for each in pictures(name)]
    return float(np.max([noise(snr_db(got, each)) for got, each in zip(answers, true, strict=True)]))


def found(name: str) -> dict[tuple[str, str], float]:
    return {(danger.layer, danger.what): danger.figure for danger in half.dangers(captured(name))}


# ------------------------------------------------------------------------------------------------ what is found


def test_a_norms_sum_of_squares_is_found_where_all_values_are_small():
    dangers = found("outlying")
    norms = {f"blocks.{i}.norm" for i in range(4)} | {"norm"}
    assert {layer for layer, _ in dangers} == norms
    assert {what for _, what in dangers} == {"its sum of squares of x - mean"}
    assert all(1.2e6 < figure < 1.6e6 for figure in dangers.values()), dangers


def test_squares_of_a_norm_that_is_spelt_out_are_found_as_what_they_are():
    dangers = found("outlying_and_spelt_out")
    assert {layer for layer, _ in dangers} == {f"blocks.{i}.norm" for i in range(4)} | {"norm"}
    assert {what for _, what in dangers} == {"its pow's largest |x|"}


def test_a_stream_of_residuals_is_found_at_each_layer_that_carries_it():
    dangers = found("streaming")
    assert dangers["gain", "its linear's largest |x|"] > 9e4
    for i in range(4):
        assert dangers[f"blocks.{i}", "its add's largest |x|"] > 9e4
        assert dangers[f"blocks.{i}.norm", "its sum of squares of x - mean"] > 1e10
    assert not any(layer.endswith("fc1") or layer == "head" for layer, _ in dangers)


def test_a_weight_that_float16_has_infinity_for_is_found():
    assert found("heavy")["blocks.1.fc2", "its weight's largest |x|"] == 1e5


def test_attention_scores_inside_one_operation_are_found():
    class Attention(torch.nn.Module):
        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            tokens = pixel_values.flatten(2).transpose(1, 2)[:, None, :16] * 200
            return torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mean((1, 2))

    source = capture.capture(replace(models.tiny(), module=Attention()), "x", photos.probes(None))
    assert [danger.what for danger in half.dangers(source)] == ["its softmax's largest |x|"]


def test_what_is_infinite_in_float32_is_no_danger_and_nan_is_one():
    masked = torch.tensor([1.0, float("-inf"), 3.0, float("inf")])
    assert half.magnitude(masked) == 3.0
    assert half.beyond(half.magnitude(torch.tensor([1.0, float("nan")])))
    assert half.beyond(float("nan"))
    assert half.magnitude(torch.tensor([70_000])) == half.magnitude(torch.zeros(0)) == half.magnitude(None) == 0.0


def test_the_reason_names_layer_figure_and_bound():
    assert str(half.Danger("blocks.3.norm1", "its sum of squares of x - mean", 1.2e6)) == (
        "fp16: blocks.3.norm1 stays float32: its sum of squares of x - mean reaches 1.2e+06, and float16 ends at 65,504"
    )
    assert str(half.Danger("blocks.3", "its add's largest |x|", 20_000)) == (
        "fp16: blocks.3 stays float32: its add's largest |x| reaches 20,000, and others may pass float16's 65,504"
    )


def test_a_ladder_says_it_once_with_the_worst_figure():
    source = captured("outlying")
    assert half.notes([source, source]) == half.notes([source]) == tuple(map(str, half.dangers(source)))


# ------------------------------------------------------------------------------------------------ ONNX


@pytest.mark.parametrize("name", ["tiny", "roomy", "stacked", "tiny_mask"])
def test_a_network_without_danger_is_converted_as_if_nobody_had_looked(name: str):
    assert half.dangers(captured(name)) == ()
    assert safe(name).SerializeToString(deterministic=True) == plain(name).SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", WIDE)
def test_onnx_runtime_agrees_with_pytorch_on_what_a_plain_conversion_may_lose(name: str):
    onnx.checker.check_model(safe(name), full_check=True)
    assert on_cpu(safe(name), name) < FP16.tolerance
    lost = on_cpu(plain(name), name)
    if name in ("streaming", "heavy"):
        assert not lost < 10 * FP16.tolerance
    else:
        # Its CPU provider has no float16 kernels for these and computes in float32: it hides what a GPU loses, see
        # test_half_webgpu.py.
        assert lost < FP16.tolerance


@pytest.mark.parametrize("name", WIDE)
def test_nothing_on_the_way_is_infinite_and_what_is_wide_is_nowhere_float16(name: str):
    model = onnx.ModelProto()
    model.CopyFrom(safe(name))
    made = [output for node in model.graph.node for output in node.output]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=each) for each in made)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for picture in pictures(name):
        for value in session.run(None, {"pixel_values": picture}):
            assert np.isfinite(value).all()
            assert value.dtype != np.float16 or np.abs(value.astype(np.float32)).max() <= half.LARGEST


def test_values_keep_the_names_of_the_float32_file():
    """By which ``vitexport diff`` finds them."""
    made, true = (
        {output for node in model.graph.node for output in node.output if node.op_type != "Cast"}
        for model in (safe("streaming"), _onnx_graph.to_model(captured("streaming")))
    )
    assert {name for name in true - made if "layer_norm" not in name and name != "logits"} == set()


def test_a_batch_that_is_left_open_is_looked_into_as_well(tmp_path: Path):
    model, out = f"{TESTS / 'wide_models.py'}:streaming", str(tmp_path / "out")
    report = export(ExportRequest(model=model, targets=("onnx",), precisions=("fp16",), dynamic=("batch",), out=out))
    assert report.verdict == "passed", report.results
    assert report.notes


def test_only_the_norms_in_danger_stay_float32_and_each_is_one_operator():
    made = safe("outlying")
    kinds = Counter(node.op_type for node in made.graph.node)
    assert kinds["LayerNormalization"] == 5
    assert kinds["Cast"] == 2 + 2 * 5  # the picture, the answer, and both sides of each norm
    assert set(kept(_onnx_graph.to_model(captured("outlying")), captured("outlying"))) == {
        node.name for node in _onnx_graph.to_model(captured("outlying")).graph.node if "layer_norm" in node.name
    }
    half_precise = [t for t in made.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    layers = captured("outlying").module.modules()
    weights = sum(m.weight.numel() for m in layers if isinstance(m, torch.nn.Linear | torch.nn.Conv2d))
    assert sum(numpy_helper.to_array(t).size for t in half_precise) >= weights


# ------------------------------------------------------------------------------------------------ the whole way


@pytest.fixture(scope="module", params=["outlying", "streaming"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Report:
    out = tmp_path_factory.mktemp(request.param) / "out"
    model = f"{TESTS / 'wide_models.py'}:{request.param}"
    return export(ExportRequest(model=model, targets=("onnx", "coreml"), precisions=("fp32", "fp16"), out=str(out)))


def test_onnx_runtime_and_core_mls_evaluator_agree_and_the_report_names_the_layers(report: Report):
    verdicts = {(r.target, r.precision): (r.verdict, r.parity.reason) for r in report.results}
    assert set(verdicts.values()) == {("passed", "")}, verdicts
    name = report.request.model.rpartition(":")[2]
    assert report.notes == tuple(map(str, half.dangers(captured(name))))
    assert any("blocks.2.norm stays float32: its sum of squares" in note for note in report.notes)


def test_core_ml_keeps_the_norms_in_danger_and_nothing_that_is_not(report: Report):
    package = read(Path(report.out) / "coreml" / "model_fp16.mlpackage")
    declared = {
        (operation.kind, output.type.dtype)
        for operation in package.functions["main"].operations
        for output in operation.outputs
        if operation.kind in ("layer_norm", "conv", "gelu", "linear")
    }
    assert {dtype for kind, dtype in declared if kind == "layer_norm"} == {"float32"}
    assert ("conv", "float16") in declared
    assert ("gelu", "float16") in declared


def test_float32_alone_is_not_looked_into(tmp_path: Path):
    request = ExportRequest(
        model=f"{TESTS / 'wide_models.py'}:outlying", targets=("onnx",), precisions=("fp32",), out=str(tmp_path / "out")
    )
    report = export(request)
    assert report.notes == ()
    assert "fp16 ranges" not in str(report.steps_s)


@pytest.mark.parametrize(("name", "lost"), [("streaming", True), ("outlying_and_spelt_out", True), ("outlying", False)])
def test_what_core_ml_would_make_without_a_look_is_wrong(name: str, lost: bool, tmp_path: Path):
    """Its evaluator rounds each value to float16, and sums inside an operation in float32."""
    source = captured(name)
    plan = lowering.Plan("ios17", "tensor", multifunction=False, layout=None)
    rung = lowering._Rung(source)  # which keeps nothing
    package = read(lowering._convert(rung, "fp16", plan, tmp_path / "plain.mlpackage"))
    evaluator = Evaluator(package, arithmetic="fp16")
    answers = [evaluator.run({"pixel_values": each})["logits"] for each in pictures(name)]
    assert (not worst(name, answers) < FP16.tolerance) is lost
