"""The ONNX file is proven, the same every time, and opens unchanged where people will open it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from conftest import TESTS, TINY
from vitexport import ExportRequest, capture, export, models, parity, photos, registry
from vitexport.bundle import read_golden
from vitexport.contract import Report, Result, SourceModel
from vitexport.errors import BadRequest, LoweringFailed
from vitexport.manifest import read_bundle
from vitexport.pipeline import shown_name
from vitexport_targets import _onnx_graph
from vitexport_targets._onnx_host import open_on_host

PHOTOS = photos.probes(None)


def only(report: Report) -> Result:
    (result,) = report.results
    return result


@pytest.fixture(scope="module")
def tiny() -> SourceModel:
    return capture.capture(models.build(ExportRequest(model=TINY)), "tiny", PHOTOS)


def test_a_file_that_onnx_runtime_refuses_is_a_lowering_that_failed(tmp_path: Path):
    (tmp_path / "model.onnx").write_bytes(b"no protobuf")
    with pytest.raises(LoweringFailed, match=r"ONNX Runtime refuses model\.onnx: "):
        open_on_host(tmp_path / "model.onnx", "cpu")


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("vit_small", "vit_small"),
        ("hf:ORG/NAME", "hf:ORG/NAME"),
        ("/home/me/net.py:make", "net.py:make"),
        ("{folder}", "checkpoint"),
        ("hf:{folder}/", "checkpoint"),
    ],
)
def test_an_artifact_says_its_models_name_and_not_where_it_lay(tmp_path: Path, asked: str, shown: str):
    (tmp_path / "checkpoint").mkdir()
    assert shown_name(asked.format(folder=tmp_path / "checkpoint")) == shown


def test_identical_input_gives_an_identical_file(tmp_path: Path):
    request = ExportRequest(model=TINY, targets=("onnx",), precisions=("fp32", "fp16"))
    first = export(replace(request, out=str(tmp_path / "a")))
    second = export(replace(request, out=str(tmp_path / "b")))
    assert [r.files for r in first.results] == [r.files for r in second.results]
    assert (tmp_path / "a/onnx/manifest.json").read_bytes() == (tmp_path / "b/onnx/manifest.json").read_bytes()
    published = [p.read_bytes() for p in (tmp_path / "a/onnx").rglob("*") if p.suffix in (".onnx", ".json")]
    assert not any(str(TESTS).encode() in content for content in published), "the folder that the factory lies in"


def test_no_path_name_or_stack_trace_of_this_machine_is_inside(tiny: SourceModel):
    stored = _onnx_graph.to_model(tiny).SerializeToString()
    for trace in (b"site-packages", b"stack_trace", b".py", str(Path.home()).encode(), str(TESTS).encode()):
        # Provenance may name the factory's file, never where it lies.
        assert trace not in stored.replace(b"tests/models.py", b""), trace


def test_the_opset_is_one_whose_every_operator_has_a_webgpu_kernel(tiny: SourceModel):
    (imported,) = _onnx_graph.to_model(tiny).opset_import
    assert (imported.domain, imported.version) == ("", 20)


def test_the_file_carries_its_preprocessing_and_licence(tiny: SourceModel):
    facts = {p.key: p.value for p in _onnx_graph.to_model(tiny).metadata_props}
    assert json.loads(facts["vitexport.preprocessing"])["mean"] == [0.5, 0.5, 0.5]
    assert json.loads(facts["vitexport.outputs"])[0]["labels"][2] == "person"
    assert facts["vitexport.licence"] == "Apache-2.0"


def test_a_dynamic_batch_is_proven_at_a_second_size(tmp_path: Path):
    out = tmp_path / "out"
    report = export(ExportRequest(model=TINY, targets=("onnx",), dynamic=("batch",), out=str(out)))
    assert only(report).verdict == "passed"
    assert only(report).parity.images == len(PHOTOS) + 1
    session = onnxruntime.InferenceSession(out / "onnx/onnx/model.onnx")
    assert session.run(None, {"pixel_values": np.zeros((7, 3, 32, 32), np.float32)})[0].shape == (7, 5)
    assert read_bundle(out / "onnx").rung.input_shape[0] == 0


def test_a_static_batch_stays_static(tiny: SourceModel):
    shape = _onnx_graph.to_model(tiny).graph.input[0].type.tensor_type.shape
    assert [d.dim_value for d in shape.dim] == [1, 3, 32, 32]


def test_taps_return_intermediates_and_unknown_ones_are_refused(tmp_path: Path):
    export(ExportRequest(model=TINY, targets=("onnx",), out=str(tmp_path / "out")))
    bundle = read_bundle(tmp_path / "out" / "onnx")
    graph = onnx.load(tmp_path / "out/onnx/onnx/model.onnx").graph
    gelu = next(node.output[0] for node in graph.node if node.op_type == "Gelu")
    target = registry.target("onnx")
    golden = read_golden(bundle)[0]
    with target.open(bundle, "fp32", "cpu", taps=(gelu,)) as session:
        outputs = session.run(golden.pixel_values).outputs
    assert outputs[gelu].shape == (1, 16, 16)
    np.testing.assert_allclose(outputs["logits"], golden.reference["logits"], atol=1e-5)
    with pytest.raises(BadRequest, match=r"'nonsense' is no value of model\.onnx"):
        target.open(bundle, "fp32", "cpu", taps=("nonsense",))


@pytest.mark.parametrize("cap", [12_500, 16_000])
def test_shards_stay_under_the_cap_and_load_again(tmp_path: Path, tiny: SourceModel, cap: int):
    model = _onnx_graph.to_model(tiny)
    names = _onnx_graph.save(model, tmp_path / "model.onnx", max_file_bytes=cap)
    assert len(names) > 1
    assert all((tmp_path / name).stat().st_size <= cap for name in names)
    whole = onnxruntime.InferenceSession(model.SerializeToString())
    sharded = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    feed = {"pixel_values": np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)}
    np.testing.assert_array_equal(sharded.run(None, feed)[0], whole.run(None, feed)[0])


def test_a_cap_below_one_tensor_says_which(tmp_path: Path, tiny: SourceModel):
    with pytest.raises(BadRequest, match=r"is less than the tensor '.+' alone \(12288 bytes\)"):
        _onnx_graph.save(_onnx_graph.to_model(tiny), tmp_path / "model.onnx", max_file_bytes=4000)


# ------------------------------------------------------------------------------- the same folder, other people's code


#: transformers.js's name for each precision that it can open by name.
DTYPES = {"fp32": "fp32", "fp16": "fp16", "int8": "w8", "q8": "w8-dyn", "q4": "w4"}


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vit") / "out"
    asked = tuple(DTYPES.values())
    report = export(
        ExportRequest(model="vit_tiny", weights="random", targets=("onnx",), precisions=asked, out=str(out))
    )
    assert {r.verdict for r in report.results} == {"passed"}, report.results
    return out / "onnx"


def test_a_vit_in_four_bits_is_a_download_of_3_6_megabytes(vit: Path):
    """Blocks for the products, int8 for the patch embedding and the table of positions: stock MatMulNBits is 4.7 MB."""
    assert (vit / "onnx/model_q4.onnx").stat().st_size <= 3.6e6
    assert (vit / "onnx/model_int8.onnx").stat().st_size <= 0.265 * (vit / "onnx/model.onnx").stat().st_size


def test_a_vit_opens_in_optimum_unchanged(vit: Path):
    from optimum.onnxruntime import ORTModelForImageClassification
    from transformers import AutoImageProcessor

    case = read_golden(read_bundle(vit))[0]
    golden = case.reference
    model = ORTModelForImageClassification.from_pretrained(vit, local_files_only=True)
    processor = AutoImageProcessor.from_pretrained(vit, use_fast=False)
    picture = Image.open(vit / read_bundle(vit).rung.golden[0].photo)
    logits = model(**processor(picture, return_tensors="pt")).logits.numpy()
    # transformers' own pixels through our file: float32 rounding of another order, then the network.
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4 * np.abs(golden["logits"]).max())
    assert model.config.id2label[0] == "tench, Tinca tinca"
    assert case.name == "astronaut"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_vit_opens_in_transformers_js_unchanged(vit: Path, dtype: str):
    if not (TESTS / "js" / "node_modules").is_dir():
        pytest.fail("tests/js/node_modules is missing. Run: make test")
    command = ["node", TESTS / "js" / "classify.mjs", vit, "0", dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["dims"] == [1, 3, 224, 224]
    assert answer["labels"] == 1000
    output, variant = read_bundle(vit).rung.outputs[0], read_bundle(vit).variant(DTYPES[dtype])
    golden = read_golden(read_bundle(vit))[0].reference["logits"]
    got = np.array([answer["logits"]], np.float32)
    off = parity.drift(got, golden) if variant.metric == "drift" else parity.noise(parity.snr_db(got, golden))
    assert off <= variant.tolerance
    if variant.metric != "loss":
        assert parity.agreement(got, golden, output) == 1.0
    # Its pixels come from sharp's cubic filter, which is not Pillow's: measured 0.028 in units of the standard
    # deviation. A crop that is one pixel off is 0.1, another mean is 0.5.
    assert answer["meanPixelDifference"] < 0.05
