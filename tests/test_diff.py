"""Where it goes wrong: a fault that is planted in one block of an artifact is found in that block, and nowhere else."""

from __future__ import annotations

import atexit
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import models
import unproven
from conftest import TESTS, TINY
from vitexport import ExportRequest, Network, Size, capture, diff, photos, pipeline
from vitexport.commands import COMMANDS
from vitexport.contract import Exam, Report
from vitexport.diff import Trace
from vitexport.diff.places import places
from vitexport.errors import BadRequest
from vitexport.manifest import encode, find_bundles

STACKED = f"{TESTS / 'models.py'}:stacked"
OUTLIERS = f"{TESTS / 'models.py'}:stacked_with_outliers"
BLOCKS = ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]
WHOLE = ["patches", *BLOCKS, "norm", "logits"]

#: The files of each target, within its bundle.
FILES = {
    ("onnx", "fp32"): "onnx/model.onnx",
    ("webgpu", "fp32"): "model_fp32.onnx",
    ("tflite", "fp32"): "model_fp32.tflite",
    ("tflite", "fp16"): "model_fp16.tflite",
    ("coreml", "fp32"): "model_fp32.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
    ("coreml", "fp16"): "model_fp16.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
}


@cache
def captured(model: str, sizes: tuple[Size, ...]) -> tuple[Exam, ...]:
    return pipeline.captured(ExportRequest(model=model, sizes=sizes))


@cache
def exported(model: str, target: str, *precisions: str, sizes: tuple[Size, ...] = ()) -> Path:
    """The bundle in a folder as ``vitexport`` leaves it, but for the proof. Shared: copy it before changing it."""
    home = Path(mkdtemp(prefix="vitexport-test-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    asked = ExportRequest(model=model, targets=(target,), precisions=precisions, sizes=sizes, runtime="none")
    folder, exams = home / target, captured(model, sizes)
    unproven.written(folder, asked, exams)
    report = Report(1, "0", asked, str(home), exams[0].source.provenance, {}, {}, ())
    (home / "report.json").write_bytes(encode(report))
    return folder


def sound(target: str) -> Path:
    return exported(STACKED, target, "fp32", "fp16")


def traced(bundle: Path, precision: str | None = None, provider: str | None = None) -> Trace:
    (trace,) = diff.diff(diff.read(bundle), precision, provider)
    return trace


def planted(bundle: Path, into: Path, precision: str, was: np.ndarray) -> Path:
    """A copy with some numbers of a block's in the reverse order, wherever the format keeps them."""
    shutil.copytree(bundle.parent, into / "planted")
    made = into / "planted" / bundle.name
    path = made / FILES[bundle.name, precision]
    content, now = path.read_bytes(), was.ravel()[::-1].reshape(was.shape)
    assert content.count(was.tobytes()) == 1
    path.write_bytes(content.replace(was.tobytes(), now.tobytes()))
    return made


def layer(block: int) -> nn.Linear:
    return models.Stacked().blocks[block].fc2


def bias(block: int) -> np.ndarray:
    return layer(block).bias.detach().numpy()


# ---------------------------------------------------------------------------------------------------- what is named


@pytest.mark.parametrize("target", ["onnx", "tflite", "coreml"])
def test_a_sound_artifact_is_walked_from_end_to_end_and_no_block_stands_out(target: str):
    """float32 loses no more than presets do anywhere; float16, which rounds otherwise on each processor, no more than
    parity lets the whole artifact."""
    bundle = find_bundles(sound(target))[0]
    for trace in diff.diff(diff.read(sound(target))):
        assert (trace.first, trace.reason) == ("", "")
        assert trace.finding.startswith("None stands out: SNR is ")
        assert [row.place for row in trace.rows] == WHOLE
        assert {row.matched for row in trace.rows} == {"same"}
        assert [row.place for row in trace.rows if row.repeated] == BLOCKS
        allowed = -20 * math.log10(bundle.variant("fp16").tolerance)
        assert min(row.snr_db for row in trace.rows) > (110 if trace.precision == "fp32" else allowed)


@pytest.mark.parametrize("target", ["tflite", "coreml"])
def test_the_block_with_other_weights_is_named_in_a_float16_file(target: str, tmp_path: Path):
    bundle = planted(sound(target), tmp_path, "fp16", layer(2).weight.detach().half().numpy())
    trace = traced(bundle, "fp16")
    assert trace.first == "blocks.2"
    assert {row.matched for row in trace.rows} == {"same"}
    assert [row.place for row in trace.rows if row.own_snr_db < 40] == ["blocks.2"]  # what comes later is sound


@pytest.mark.parametrize(
    ("target", "block"),
    [
        ("onnx", 0),
        pytest.param("tflite", 1, marks=pytest.mark.slow),
        pytest.param("coreml", 1, marks=pytest.mark.slow),
    ],
)
def test_a_float32_file_with_a_fault_is_told_from_one_that_is_made_now(target: str, block: int, tmp_path: Path):
    trace = traced(planted(sound(target), tmp_path, "fp32", bias(block)), "fp32")
    before, there = ["patches", *BLOCKS][block : block + 2]
    assert trace.first == there
    snr = {row.place: row.snr_db for row in trace.rows}
    assert snr[before] > 110
    assert snr[there] < 40
    assert trace.finding.startswith(f"SNR falls from {snr[before]:.1f} dB after {before} to {snr[there]:.1f} dB after")
    assert [row.place for row in trace.rows if row.own_snr_db < 100] == [there]
    assert {row.matched for row in trace.rows} == {"same"}
    assert "is not the file that was exported" in trace.notes[0]


@pytest.mark.parametrize("target", ["onnx", pytest.param("tflite", marks=pytest.mark.slow)])
def test_a_block_with_outliers_is_named_in_int8_and_in_no_float_also_without_a_float32_file(target: str):
    found = diff.diff(diff.read(exported(OUTLIERS, target, "fp16", "w8")))
    assert {trace.precision: trace.first for trace in found} == {"fp16": "", "w8": "blocks.2"}
    assert {row.matched for trace in found for row in trace.rows} == {"same"}


@pytest.mark.browser
def test_in_the_browser_too(tmp_path: Path):
    bundle = planted(exported(STACKED, "webgpu", "fp32"), tmp_path, "fp32", bias(1))
    trace = traced(bundle, "fp32", "webgpu")
    assert trace.first == "blocks.1"
    assert "Chromium" in trace.runtime
    assert {row.matched for row in trace.rows} == {"same"}  # by way of WebAssembly


def test_what_a_provider_does_not_show_is_answered_by_one_that_does():
    trace = traced(sound("tflite"), "fp16", "compiled-model")
    assert "its own kernels" in trace.runtime
    assert trace.notes == (
        "compiled-model shows nothing of what it computes on the way: these are the values of interpreter.",
    )


@pytest.mark.slow
def test_each_size_of_a_ladder_in_one_file_is_walked_by_itself():
    sizes = (Size(64, 64), Size(32, 96))
    found = diff.diff(diff.read(exported(f"{TESTS / 'models.py'}:any_size", "tflite", "fp32", "w8a8", sizes=sizes)))
    assert [(trace.size, trace.precision) for trace in found] == [(s, p) for s in sizes for p in ("fp32", "w8a8")]
    for trace in found:
        assert trace.first == ""
        assert {row.matched for row in trace.rows} == {"same"}
        assert min(row.snr_db for row in trace.rows) > (110 if trace.precision == "fp32" else 20)


def test_a_target_that_shows_nothing_is_not_run_and_says_so():
    trace = traced(exported(TINY, "reference", "fp32"))
    assert trace.reason == "the target 'reference' shows nothing of what it computes on the way"
    assert trace.rows == ()


# ---------------------------------------------------------------------------------------------- where one can look


def looked_at(network: Network) -> list[tuple[str, bool]]:
    source = capture.capture(network, "made here", photos.probes(None)[:2])
    return [(place.name, place.repeated) for place in places(source)]


def test_a_network_without_blocks_is_looked_at_by_its_children_also_in_a_wrapper():
    names = ["layers.0", "layers.1", "layers.2"]
    tied = replace(models.tiny(), module=models.Tied())
    tied = replace(tied, preprocessing=replace(tied.preprocessing, size=Size(64, 64), resize=None))
    assert looked_at(tied) == [(name, False) for name in names]
    assert looked_at(models.tiny()) == [("patches", False), ("norm", False)]


class WithoutModules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(models.Tiny().patches.weight.detach())

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(pixel_values, self.kernel, stride=8).relu().mean((2, 3))


def test_a_network_that_is_made_of_no_modules_is_looked_at_by_its_layers():
    assert looked_at(replace(models.tiny(), module=WithoutModules())) == [("conv2d", False)]


class Stage(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(models.Block(64, 16) for _ in range(depth)))
        self.norm = nn.LayerNorm(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.blocks(x))


def test_the_blocks_of_a_network_with_stages_are_those_within_them():
    module = models.Stacked()
    module.blocks = nn.ModuleList([Stage(1), Stage(2)])
    assert looked_at(replace(models.tiny(), module=module)) == [
        ("patches", False),
        ("blocks.0.blocks.0", True),
        ("blocks.0.norm", False),
        ("blocks.1.blocks.0", True),
        ("blocks.1.blocks.1", True),
        ("blocks.1.norm", False),
        ("norm", False),
    ]


# ------------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def onnx() -> Path:
    return sound("onnx")


def test_the_command_prints_what_was_found_and_draws_it(
    onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert COMMANDS["diff"]([str(onnx.parent), "--precision", "fp32", "--json", "--out", "here.png"]) == 0
    (trace,) = json.loads(capsys.readouterr().out)
    assert (trace["target"], trace["precision"], trace["provider"], trace["first"]) == ("onnx", "fp32", "cpu", "")
    assert [row["place"] for row in trace["rows"]] == WHOLE
    assert {p.name for p in tmp_path.iterdir()} == {"here.json", "here.png"}
    with Image.open("here.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 600


def alone(onnx: Path, folder: Path) -> Path:
    return Path(shutil.copytree(onnx, folder / "alone"))


def of_other_weights(onnx: Path, folder: Path) -> Path:
    shutil.copytree(onnx.parent, folder / "out")
    report = folder / "out" / "report.json"
    report.write_text(report.read_text().replace("models.py:stacked", "models.py:stacked_with_outliers"))
    return folder / "out"


def with_a_broken_report(onnx: Path, folder: Path) -> Path:
    shutil.copytree(onnx.parent, folder / "out")
    (folder / "out" / "report.json").write_text("{}")
    return folder / "out"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (alone, "has no report.json beside it, which says what PyTorch model it is of. Name a folder as vitexport"),
        (with_a_broken_report, "is not a report this version reads"),
        (of_other_weights, "so they would differ everywhere. Restore them, or export again."),
    ],
)
def test_without_its_pytorch_model_there_is_nothing_to_compare(
    onnx: Path, tmp_path: Path, change: Callable[[Path, Path], Path], sentence: str
):
    with pytest.raises(BadRequest) as refusal:
        diff.diff(diff.read(change(onnx, tmp_path)))
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (("int8", None), "No bundle here has the precision 'int8'. There are: fp32, fp16."),
        ((None, "cpi"), "No bundle here has the provider 'cpi'. Did you mean 'cpu'? There are: cpu."),
    ],
)
def test_what_the_bundles_have_not_is_refused_before_torch_is_imported(
    onnx: Path, asked: tuple[str | None, str | None], sentence: str
):
    with pytest.raises(BadRequest) as refusal:
        diff.diff(diff.read(onnx), *asked)
    assert str(refusal.value) == sentence


def test_a_picture_is_never_drawn_into_a_bundle_nor_under_another_name(onnx: Path, tmp_path: Path):
    found = diff.read(onnx)
    for out, sentence in (
        (onnx / "diff.png", "is inside the bundle"),
        (onnx / "onnx" / "diff.png", "is inside the bundle"),
        (tmp_path / "diff.jpg", "is not called .png"),
        (tmp_path / "nowhere" / "diff.png", "cannot be written"),
    ):
        with pytest.raises(BadRequest, match=sentence):
            diff.place(str(out), found)
    assert diff.place(None, found) == onnx.parent / "diff.png"
