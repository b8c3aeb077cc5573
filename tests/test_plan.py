"""Which layers stay float, decided by running the file; and a plan used again."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vitexport
import written_reports as written
from conftest import TESTS, Command
from models import Touchy
from vitexport import ExportRequest, pipeline, registry
from vitexport.bench import SOFTWARE_ADAPTER
from vitexport.contract import Report
from vitexport.errors import BadRequest, RuntimeUnavailable
from vitexport.manifest import encode
from vitexport.progress import Step, listen
from vitexport.quantize import plan as plans
from vitexport.quantize import sensitivity
from vitexport.quantize.decide import decide, not_worth_it, told
from vitexport.quantize.layers import fingerprint, layers
from vitexport.quantize.sensitivity import Form

TOUCHY = f"{TESTS / 'models.py'}:touchy"
THROUGHOUT = f"{TESTS / 'models.py'}:touchy_throughout"


def exported(out: Path, target: str = "onnx", model: str = TOUCHY, **options: Any) -> Report:
    return vitexport.export(ExportRequest(model=model, targets=(target,), precisions=("w8",), out=str(out), **options))


def steps_of(run: Any) -> tuple[Report, list[str]]:
    heard: list[Step] = []
    with listen(heard.append):
        report = run()
    return report, [step.name for step in heard]


# --------------------------------------------------------------------------------------------------- the layers


@cache
def captured() -> Any:
    (exam,) = pipeline.captured(ExportRequest(model=TOUCHY))
    return exam.source.program.module()


def test_layers_have_the_names_of_their_modules_and_the_fingerprints_of_their_weights():
    found = layers(captured())
    assert [(layer.name, layer.kind) for layer in found] == [
        ("patches", "convolution"),
        ("hidden", "linear"),
        ("head", "linear"),
    ]
    weight = Touchy("head").head.weight.detach().numpy()
    assert found[2].fingerprint == fingerprint(weight) == fingerprint(weight.T.copy())
    assert found[2].half == fingerprint(weight.astype(np.float16).astype(np.float32)) != found[2].fingerprint
    assert len(found[1].marks) == 2, "as it is, and with the norm before it"


@pytest.mark.parametrize(
    ("precision", "form"),
    [
        ("w8", Form(8)),
        ("w8-dyn", Form(8, 8)),
        ("w8a8", Form(8, 8)),
        ("w8a16", Form(8, 16)),
        ("w4", Form(4)),
        ("w6p", Form(6)),
        ("w4p", Form(4)),
        ("fp16", None),
        ("fp32", None),
    ],
)
def test_a_precisions_name_says_its_numbers(precision: str, form: Form | None):
    assert Form.of(precision) == form


def test_the_layer_that_fewer_bits_ruin_is_found():
    picture = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    found = sensitivity.sensitivities(captured(), [picture], Form(8))
    cost = {each.layer.name: each.snr_db for each in found}
    assert cost["head"] < 10
    assert min(cost["patches"], cost["hidden"]) > 30


def test_a_layer_alone_is_simulated_as_its_numbers_say():
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 3, bias=False).eval().requires_grad_(False)
    x = torch.rand(1, 64)
    module = torch.export.export(linear, (x,)).module()
    with torch.no_grad():
        true = linear(x)
        scale = linear.weight.abs().amax(1, keepdim=True) / 127
        step = x.max() / 255  # zero is among the numbers
        made = ((x / step).round() * step) @ ((linear.weight / scale).round() * scale).T
    (found,) = sensitivity.sensitivities(module, [x.numpy()], Form(8, 8))
    expected = float(((made - true).double() ** 2).mean() / (true.double() ** 2).mean())
    assert found.noise == pytest.approx(expected, rel=1e-3)


# ------------------------------------------------------------------------------------------------------- the plan


@pytest.mark.parametrize("target", ["onnx", "tflite", "coreml"])
def test_a_layer_that_fewer_bits_ruin_stays_float_and_the_plan_says_so(target: str, tmp_path: Path):
    pytest.importorskip({"onnx": "onnx", "tflite": "litert_torch", "coreml": "coremltools"}[target])
    report, steps = steps_of(lambda: exported(tmp_path / "out", target, max_drop=10.0))
    assert report.verdict == "passed", [r.parity.reason for r in report.results]
    assert "plan" in steps
    (cell,) = plans.read(str(tmp_path / "out" / plans.PLAN_NAME)).cells
    assert (cell.target, cell.precision, cell.keep_float) == (target, "w8", ("head",))
    assert cell.reached
    assert cell.agreement is not None
    assert cell.agreement >= 0.9
    assert cell.images == 32
    assert f"{target} w8: head stays float, with {cell.agreement:.1%} agreement on 32 pictures" in report.notes


def test_a_plan_is_used_again_without_a_search(tmp_path: Path):
    exported(tmp_path / "first")
    again, steps = steps_of(lambda: exported(tmp_path / "again", plan=str(tmp_path / "first" / plans.PLAN_NAME)))
    assert "plan" not in steps
    assert again.verdict == "passed"
    files = [(tmp_path / out / "onnx/onnx/model_int8.onnx").read_bytes() for out in ("first", "again")]
    assert files[0] == files[1]


def test_who_allows_everything_gets_every_layer_in_fewer_bits(tmp_path: Path):
    report = exported(tmp_path / "out", model="digits_vit_tiny", max_drop=100.0)
    (cell,) = plans.read(str(Path(report.out) / plans.PLAN_NAME)).cells
    assert cell.keep_float == ()


def test_where_no_choice_of_layers_is_good_enough_the_note_says_it(tmp_path: Path):
    report = exported(tmp_path / "out", model=THROUGHOUT)
    assert any("no choice of layers loses as little as was asked" in note for note in report.notes), report.notes


def test_where_the_runtime_cannot_be_asked_the_note_says_that_there_is_no_plan(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("coremltools")

    def absent(*_: object) -> None:
        raise RuntimeUnavailable("The MIL evaluator does not know the op gather_nd")

    target = registry.target("coreml")
    monkeypatch.setattr(type(target), "open", absent)
    request = ExportRequest(model=TOUCHY, targets=("coreml",), precisions=("w8",), max_drop=10.0)
    (exam,) = pipeline.captured(request)
    made = decide([(target, request)], exam, request)
    assert [(cell.reached, cell.agreement, cell.keep_float) for cell in made.cells] == [(None, None, ())]
    assert list(told(made)) == [
        "coreml w8: no plan was made, for its runtime cannot be asked (not run: The MIL evaluator does not know the op "
        "gather_nd)"
    ]


def test_random_weights_have_no_plan_unless_one_is_asked_for(tmp_path: Path):
    report = exported(tmp_path / "out", model=f"{TESTS / 'models.py'}:roomy")
    assert not (Path(report.out) / plans.PLAN_NAME).exists()


def test_a_plan_of_another_network_names_the_layer_that_is_missing(tmp_path: Path):
    cell = plans.Cell("onnx", "w8", ("blocks.0.attn.qkv",))
    path = tmp_path / "plan.json"
    path.write_bytes(encode(plans.Plan(1, "vit_tiny", None, (cell,))))
    with pytest.raises(BadRequest) as refusal:
        exported(tmp_path / "out", plan=str(path))
    assert str(refusal.value) == (
        f"The plan keeps 'blocks.0.attn.qkv' float, and {Path(TOUCHY).name} has no such layer. Make a plan of this "
        "model, by an export without --plan."
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read (No such file or directory). Name a plan.json."),
        ("{", "is no plan of vitexport's (Input data was truncated)."),
        pytest.param('{"schema_version":1,"x":' + "[" * 200_000, "(it is nested too deeply)", id="nested"),
        (json.dumps({"schema_version": 2}), "is no plan of vitexport's (another version of vitexport wrote it"),
        (json.dumps({"schema_version": 1, "model": "x", "max_drop": 0.5, "cells": [{}]}), "missing required field"),
    ],
)
def test_what_is_no_plan_is_refused_before_anything_is_built(
    vitexport: Command, tmp_path: Path, content: str | None, says: str
):
    path = tmp_path / "some.json"
    if content is not None:
        path.write_text(content)
    run = vitexport("--model", TOUCHY, "--target", "onnx", "--plan", path, "--out", tmp_path / "out")
    assert run.returncode == BadRequest.exit_code
    assert f"--plan '{path}'" in run.stderr
    assert says in run.stderr
    assert "capture" not in run.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("points", ["-1", "101", "nan"])
def test_points_that_cannot_be_lost_are_refused(vitexport: Command, points: str):
    run = vitexport("--model", TOUCHY, "--target", "onnx", f"--max-drop={points}")
    assert run.returncode == BadRequest.exit_code
    assert "is no number of points from 0 to 100." in run.stderr


@pytest.mark.parametrize("option", [{"max_drop": 1.0}, {"plan": "plan.json"}])
def test_where_every_layer_stays_float_there_is_nothing_to_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: dict[str, Any]
):
    monkeypatch.chdir(tmp_path)
    Path("plan.json").write_bytes(encode(plans.Plan(1, "vit_tiny", None, ())))
    request = ExportRequest(model=TOUCHY, targets=("onnx",), precisions=("fp32", "fp16"), **option)
    with pytest.raises(BadRequest, match="says which layers stay float, and in fp32, fp16 all do"):
        pipeline.check(request, Path("out"))


def test_fewer_bits_that_are_slower_on_a_device_are_told_of_and_a_software_adapter_is_none():
    pair = written.result("webgpu", "fp16", "webgpu"), written.result("webgpu", "w8", "webgpu")
    fast, slow = (replace(r, latency=written.measured(ms)) for r, ms in zip(pair, (10.0, 13.0), strict=True))
    (said,) = not_worth_it((fast, slow))
    assert said.startswith("webgpu w8 on webgpu takes 1.30 times as long as fp16 at 224x224")
    assert "(13.0 against 10.0 ms, at least 1.23 times by what the runs tell): prefer fp16" in said
    assert not list(not_worth_it((fast, replace(slow, latency=written.measured(10.4)))))
    emulated = [replace(r, latency=replace(r.latency, device=f"x ({SOFTWARE_ADAPTER})")) for r in (fast, slow)]
    assert not list(not_worth_it(emulated))


def test_two_noisy_medians_are_no_advice():
    pair = written.result("onnx", "fp32"), written.result("onnx", "w8")
    times = tuple(10.0 + ms for ms in range(30))
    fast, slow = (
        replace(r, latency=replace(r.latency, times_ms=tuple(f * ms for ms in times), median_ms=f * 24.5))
        for r, f in zip(pair, (1.0, 1.61), strict=True)
    )
    assert not list(not_worth_it((fast, slow)))
    few = replace(slow, latency=replace(slow.latency, times_ms=(500.0,) * 5, median_ms=500.0))
    assert not list(not_worth_it((fast, few)))
    far = replace(slow, latency=replace(slow.latency, times_ms=tuple(10 * ms for ms in times), median_ms=245.0))
    assert len(list(not_worth_it((fast, far)))) == 1
