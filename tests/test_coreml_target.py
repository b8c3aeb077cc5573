"""From a model to a Core ML bundle: what it takes, what it answers, what it says of itself, and what proves it."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import unproven
from conftest import TESTS, TINY, TINY_MASK, Command
from vitexport import ExportRequest, Size, capture, export, parity, photos, pipeline, proof, registry
from vitexport import bundle as bundles
from vitexport import preprocess as preprocessing
from vitexport.bundle import read_golden
from vitexport.contract import Bundle, Placement, Preprocessing, Report, SourceModel
from vitexport.errors import BadRequest, LoweringFailed, RuntimeUnavailable
from vitexport.manifest import read_bundle, read_bundles
from vitexport.models.network import Network
from vitexport.preprocess import preprocess
from vitexport_targets.coreml import floors, inputs, labels
from vitexport_targets.coreml.evaluator import Evaluator
from vitexport_targets.coreml.on_mac import placed
from vitexport_targets.coreml.package import read

ANY_SIZE = f"{TESTS / 'models.py'}:any_size"
PHOTOS = photos.probes(None)
TINY_REQUEST = ExportRequest(model=TINY, targets=("coreml",))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Bundle]:
    out = tmp_path_factory.mktemp("tiny") / "out"
    report = export(replace(TINY_REQUEST, precisions=("fp16", "fp32"), out=str(out)))
    return report, read_bundle(out / "coreml")


def source(network: Network) -> SourceModel:
    return capture.capture(network, "made here", PHOTOS)


# ----------------------------------------------------------------------------------------------------- what is claimed


def test_the_verdict_is_the_evaluators_and_no_devices(tiny: tuple[Report, Bundle]):
    for result in tiny[0].results:
        assert result.verdict == "passed", result.parity
        assert result.parity.runtime == "MIL evaluator (Linux), from the saved package"
        assert (result.device_verdict, result.device_reason) == ("not run", "needs macOS or iOS")
        assert (result.latency.verdict, result.latency.reason) == ("not run", "needs macOS or iOS")
        assert result.latency.median_ms is None


def test_every_gate_is_in_the_report_with_its_bound(tiny: tuple[Report, Bundle]):
    half, single = ({gate.name: gate for gate in result.parity.gates} for result in tiny[0].results)
    assert list(half) == ["A", "B", "C", "range", "labels", "types"]
    assert list(single) == ["A", "labels", "types"]
    assert {gate.verdict for gate in (*half.values(), *single.values())} == {"passed"}
    assert [half[name].bound for name in "AB"] == pytest.approx([110, 110], abs=0.01)
    assert half["C"].bound >= 45
    assert half["range"].bound == 65504


def test_require_proof_takes_it_and_require_device_does_not(tiny: tuple[Report, Bundle]):
    report = tiny[0]
    proven = replace(report, request=replace(report.request, require_proof=True))
    on_device = replace(report, request=replace(report.request, require_device=True))
    assert (pipeline.exit_code(proven), pipeline.exit_code(on_device)) == (0, 5)


def test_the_table_shows_the_gates_and_what_a_device_is_still_to_say(vitexport: Command):
    done = vitexport("--model", TINY, "--target", "coreml", "--out", "out", "--require-device")
    assert done.returncode == 5, done.stderr
    assert "--require-device: coreml fp16 has no verdict of a device (needs macOS or iOS)." in done.stdout
    assert "from the saved package; device: not run (needs macOS or iOS); gates: A 1" in done.stdout
    assert done.stdout.splitlines()[-1] == "Next: python -m vitexport bench out/coreml --device ios --team ID"


def test_a_bundle_is_proven_again_from_its_files_and_never_timed(tiny: tuple[Report, Bundle], vitexport: Command):
    checked = vitexport("check", tiny[1].directory, "--json")
    assert checked.returncode == 0, checked.stderr
    half, _ = json.loads(checked.stdout)
    assert [gate["verdict"] for gate in half["parity"]["gates"]] == ["passed"] * 6
    (timed, _) = json.loads(vitexport("bench", tiny[1].directory, "--json").stdout)
    assert timed["latency"]["reason"] == "latency needs macOS or iOS"


def test_off_a_mac_core_ml_itself_is_not_run(tiny: tuple[Report, Bundle]):
    with pytest.raises(RuntimeUnavailable, match="cpu_and_ne needs macOS"):
        registry.target("coreml").open(tiny[1], "fp16", "cpu_and_ne")


# ------------------------------------------------------------------------------------------------------ what it takes


def test_a_photo_goes_in_as_it_is_and_comes_out_as_pytorchs_answer(tiny: tuple[Report, Bundle]):
    """The package normalises: uint8 pixels in, PyTorch's pipeline on the same pixels out."""
    bundle = tiny[1]
    assert bundle.manifest.input_name == "image"
    package = read(bundle.directory / "model_fp16.mlpackage")
    (feature,) = package.inputs
    assert (feature.name, feature.kind, feature.colour, feature.shape) == ("image", "image", "RGB", (3, 32, 32))
    case = read_golden(bundle)[0]
    pixels = preprocessing.pixels(case.pixel_values, bundle.rung.preprocessing)
    answer = Evaluator(package).run({"image": pixels.transpose(2, 0, 1)[None].astype(np.float32)})
    assert parity.snr_db(answer["logits"], case.reference["logits"]) >= 55


class Stem(torch.nn.Module):
    """A padded convolution with a bias: where a mean folded into the bias would be wrong along the edge."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.conv(pixel_values.contiguous(memory_format=torch.channels_last))).amax((2, 3))


IMAGENET = Preprocessing(Size(24, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_deviations_that_differ_by_channel_go_into_the_first_convolution_exactly(tmp_path: Path):
    network = Network(Stem(), IMAGENET, task="classify", output_name="logits", meaning="logits")
    made = source(network)
    target = registry.target("coreml")
    target.lower((made,), replace(TINY_REQUEST, precisions=("fp32",), image_input=True), tmp_path)
    evaluator = Evaluator(read(tmp_path / "model_fp32.mlpackage"))
    for probe in PHOTOS:
        pixel_values = preprocess(probe.image, IMAGENET)
        pixels = preprocessing.pixels(pixel_values, IMAGENET).transpose(2, 0, 1)[None].astype(np.float32)
        true = made.forward(pixel_values)["logits"]
        assert parity.snr_db(evaluator.run({"image": pixels})["logits"], true) >= 110


def test_a_picture_that_goes_into_no_convolution_is_refused_with_the_way_out(tmp_path: Path):
    class Mean(torch.nn.Module):
        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return pixel_values.mean((2, 3)) * torch.arange(1.0, 4.0)

    made = source(Network(Mean(), IMAGENET, task="classify", output_name="logits", meaning="logits"))
    with pytest.raises(LoweringFailed, match=r"goes into aten\.mean\.dim\. Export it with --tensor-input\."):
        registry.target("coreml").lower((made,), replace(TINY_REQUEST, precisions=("fp32",)), tmp_path)


def test_pixels_are_restored_to_the_last_one_and_nothing_else_passes_for_a_picture():
    for probe in PHOTOS:
        pixel_values = preprocess(probe.image, IMAGENET)
        again = preprocess(preprocessing.pixels(pixel_values, IMAGENET), IMAGENET)
        np.testing.assert_array_equal(again, pixel_values)
    with pytest.raises(BadRequest, match="no normalised uint8 picture"):
        preprocessing.pixels(pixel_values + 0.003, IMAGENET)


def test_a_tensor_input_keeps_the_normalised_batch_and_has_no_labels(tmp_path: Path):
    out = tmp_path / "out"
    (result,) = export(replace(TINY_REQUEST, image_input=False, out=str(out))).results
    assert result.verdict == "passed", result.parity
    package = read(out / "coreml" / "model_fp16.mlpackage")
    assert [(f.name, f.kind) for f in package.inputs] == [("pixel_values", "multi-array")]
    assert [f.name for f in package.outputs] == ["logits"]
    assert read_bundle(out / "coreml").manifest.input_name == "pixel_values"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--coreml-target", "ios18"), "--coreml-target means nothing to onnx"),
        (("--tensor-input",), "--image-input or --tensor-input means nothing to onnx"),
        (("--layout", "ane"), "--layout means nothing to onnx"),
    ],
)
def test_an_option_of_core_mls_alone_is_refused_where_no_target_knows_it(vitexport: Command, option: Any, said: str):
    done = vitexport("--model", TINY, "--target", "onnx", *option)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


# ---------------------------------------------------------------------------------------------------- what it answers


def test_a_classifier_says_the_label_and_probabilities_that_are_probabilities(tiny: tuple[Report, Bundle]):
    package = read(tiny[1].directory / "model_fp16.mlpackage")
    interface = package.interfaces["main"]
    assert (interface.predicted_feature, interface.predicted_probabilities) == ("classLabel", "classLabel_probs")
    case = read_golden(tiny[1])[0]
    answer = Evaluator(package).run(
        {"image": inputs.fed(package.inputs[0], case.pixel_values, tiny[1].rung.preprocessing)}
    )
    assert float(np.sum(answer["classLabel_probs"])) == pytest.approx(1, abs=1e-6)
    assert str(answer["classLabel"]) == tiny[1].rung.outputs[0].labels[int(case.reference["logits"].argmax())]


def test_labels_that_occur_twice_are_told_apart():
    """ImageNet has a crane that flies and one that lifts, and probabilities are keyed by label."""
    assert labels.unique(("crane", "cat", "crane")) == ("crane (0)", "cat", "crane (2)")


def test_a_swapped_label_shuts_its_gate(tiny: tuple[Report, Bundle], tmp_path: Path):
    folder = tmp_path / "coreml"
    shutil.copytree(tiny[1].directory, folder)
    model = folder / "model_fp16.mlpackage/Data/com.apple.CoreML/model.mlmodel"
    stored = model.read_bytes()
    model.write_bytes(stored.replace(b"cat", b"\0\0\0").replace(b"dog", b"cat") if b"dog" in stored else _swap(stored))
    bundle = replace(tiny[1], directory=folder)
    cases = read_golden(bundle)
    with registry.target("coreml").open(bundle, "fp16", "evaluator") as session:
        answers = [session.run(case.pixel_values).outputs for case in cases]
        judged = tiny[0].results[0].parity
        shut = [gate for gate in session.gates(cases, answers, judged) if gate.verdict == "failed"]
    assert [gate.name for gate in shut] == ["labels"]
    assert "has the best score" in shut[0].reason


def _swap(stored: bytes) -> bytes:
    """Every label one place further, in the file itself."""
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString(stored)
    function = spec.mlProgram.functions["main"]
    *_, classify = function.block_specializations[function.opset].operations
    values = classify.inputs["classes"].arguments[0].value.immediateValue.list.values
    names = [value.immediateValue.tensor.strings.values[0] for value in values]
    for value, name in zip(values, [*names[1:], names[0]], strict=True):
        value.immediateValue.tensor.strings.values[0] = name
    return spec.SerializeToString(deterministic=True)


def test_a_mask_is_an_array_under_its_own_name(tmp_path: Path):
    out = tmp_path / "out"
    (result,) = export(ExportRequest(model=TINY_MASK, targets=("coreml",), out=str(out))).results
    assert result.verdict == "passed", result.parity
    (output,) = read(out / "coreml/model_fp16.mlpackage").outputs
    assert (output.name, output.kind, output.shape) == ("mask", "multi-array", (1, 1, 24, 32))


# --------------------------------------------------------------------------------------------- what it says of itself


def test_a_package_carries_its_licence_origin_preprocessing_and_a_line_of_its_proof(tiny: tuple[Report, Bundle]):
    said = read(tiny[1].directory / "model_fp16.mlpackage").metadata
    assert said["licence"] == "Apache-2.0"
    assert said["vitexport.origin"] == "tests/models.py"
    assert json.loads(said["vitexport.preprocessing"])["mean"] == [0.5, 0.5, 0.5]
    first = json.loads(said["vitexport.parity.32x32"])
    assert first["picture"] == "astronaut"
    assert first["device"] == "not run"
    assert first["snr_db"] >= 45
    assert not any("date" in key for key in said)


def test_identical_input_gives_an_identical_package(tiny: tuple[Report, Bundle], tmp_path: Path):
    again = export(replace(TINY_REQUEST, precisions=("fp16", "fp32"), out=str(tmp_path / "again")))
    assert [r.files for r in again.results] == [r.files for r in tiny[0].results]
    published = [path.read_bytes() for path in tiny[1].directory.rglob("*") if path.is_file()]
    assert not any(str(TESTS).encode() in content for content in published), "the folder that the factory lies in"


def test_a_model_card_names_inputs_outputs_and_licence(tiny: tuple[Report, Bundle]):
    card = (tiny[1].directory / "MODEL_CARD.md").read_text()
    for line in ("iOS 17, macOS 14", "licence: Apache-2.0", "`image`: an RGB image, 32 wide, 32 high", "`classLabel`"):
        assert line in card
    assert "no verdict of a device" in card


# -------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(("ios", "packages"), [("ios17", 2), ("ios18", 1)])
def test_a_ladder_is_one_package_with_a_function_for_each_size_or_one_for_each(tmp_path: Path, ios: Any, packages: int):
    sizes = (Size(64, 64), Size(96, 48))
    request = ExportRequest(model=ANY_SIZE, targets=("coreml",), sizes=sizes, coreml_target=ios)
    report = export(replace(request, out=str(tmp_path / "out")))
    assert [(r.size, r.verdict) for r in report.results] == [(size, "passed") for size in sizes]
    folders = {bundle.variant("fp16").files[0] for bundle in read_bundles(tmp_path / "out" / "coreml")}
    assert len(folders) == packages
    package = read(tmp_path / "out/coreml" / Path(min(folders)).parent)
    assert package.specification_version == {"ios17": 8, "ios18": 9}[ios]
    assert set(package.functions) == ({"size_64x64", "size_96x48"} if packages == 1 else {"main"})


@pytest.mark.slow
def test_a_second_size_costs_less_than_three_per_cent(tmp_path: Path):
    sizes = (Size(224, 224), Size(256, 256))
    request = ExportRequest(model="vit_tiny", weights="random", targets=("coreml",), coreml_target="ios18")
    one = export(replace(request, sizes=sizes[:1], out=str(tmp_path / "one")))
    both = export(replace(request, sizes=sizes, out=str(tmp_path / "both")))
    assert both.verdict == "passed"
    alone, together = (sum(file.bytes for file in report.results[0].files) for report in (one, both))
    assert together < 1.03 * alone


# ----------------------------------------------------------------------------------------------------- what it undoes


def test_an_alias_is_dropped_before_coremltools_sees_it(tmp_path: Path):
    class Aliased(Stem):
        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return torch.ops.aten.alias(super().forward(torch.ops.aten.alias(pixel_values)))

    made = source(Network(Aliased(), IMAGENET, task="classify", output_name="logits", meaning="logits"))
    assert any(node.target is torch.ops.aten.alias.default for node in made.program.run_decompositions({}).graph.nodes)
    registry.target("coreml").lower((made,), replace(TINY_REQUEST, precisions=("fp32",)), tmp_path)
    assert (tmp_path / "model_fp32.mlpackage").is_dir()


def test_coremltools_still_stops_at_an_alias():
    """When this fails, coremltools takes a Swin as it is: delete ``alias.py``."""
    from vitexport_targets.coreml.apple import coremltools

    class Alias(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.aten.alias(x) + 1

    program = torch.export.export(Alias(), (torch.zeros(2),)).run_decompositions({})
    with pytest.raises(NotImplementedError, match="Unsupported fx node alias"):
        coremltools().convert(program)


def test_coremltools_still_cannot_label_outputs_that_have_types():
    """When this fails, ``ct.ClassifierConfig`` may do for ``labels.py``."""
    from vitexport_targets.coreml.apple import coremltools

    class Scores(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x * 2, torch.softmax(x * 2, -1)

    ct = coremltools()
    program = torch.export.export(Scores(), (torch.zeros(1, 4),)).run_decompositions({})
    with pytest.raises(IndexError):
        ct.convert(
            program,
            outputs=[ct.TensorType(name="logits"), ct.TensorType(name="probabilities")],
            classifier_config=ct.ClassifierConfig(list("abcd"), predicted_probabilities_output="probabilities"),
            minimum_deployment_target=ct.target.iOS17,
        )


def test_what_float16_cannot_hold_stays_float32(tmp_path: Path):
    """As in EfficientViT: a sum that overflows, divided by another."""

    class Linear(Stem):
        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            scores = torch.relu(self.conv(pixel_values)) * 300
            return (scores * scores).sum((2, 3)) / (scores.sum((2, 3)) + 1e-15)

    out = tmp_path / "out"
    network = Network(Linear(), IMAGENET, task="classify", output_name="logits", meaning="logits")
    exam = proof.exam(source(network))
    (bundle,) = unproven.written(out, replace(TINY_REQUEST, precisions=("fp16",)), [exam])
    result = proof.prove(registry.target("coreml"), bundle, "fp16", "evaluator", exam.cases).result
    assert result.verdict == "passed", result.parity
    declared = {
        output.type.dtype
        for operation in read(out / "model_fp16.mlpackage").functions["main"].operations
        for output in operation.outputs
        if operation.kind in ("conv", "real_div")
    }
    assert declared == {"float16", "float32"}


def test_a_network_that_pytorch_rounds_away_is_held_to_twice_what_pytorch_loses():
    class Steep(Stem):
        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return torch.tanh((self.conv(pixel_values) + 300) - 300).amax((2, 3))

    held = registry.target("coreml").traits.precision("fp32")
    network = Network(Steep(), IMAGENET, task="classify", output_name="logits", meaning="logits")
    own = floors.tolerance(source(network), held, first=1.0)
    assert held.tolerance < own <= 10 * held.tolerance
    gentle = replace(network, module=Stem())
    assert floors.tolerance(source(gentle), held, first=1.0) == held.tolerance
    assert floors.tolerance(source(network), held, first=0.0) == held.tolerance


def test_coremltools_still_makes_a_batch_norm_that_divides_by_more_than_one():
    """When this fails, delete ``passes.py``."""
    from vitexport_targets.coreml.apple import coremltools

    class Affine(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((1, 4, 1, 1), 2.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x * self.weight + self.weight)

    program = torch.export.export(Affine(), (torch.zeros(1, 4, 2, 2),)).run_decompositions({})
    model = coremltools().convert(program, convert_to="milinternal")
    (norm,) = model.functions["main"].find_ops(op_type="batch_norm")
    assert norm.epsilon.val == pytest.approx(1e-5)


# ------------------------------------------------------------------------------------------------------- on the phone


class Predicting:
    """The evaluator in ``MLModel.predict``'s place, so that all of verify.py runs but Core ML."""

    def __init__(self, package: Path, function: str | None, units: str) -> None:
        self._package = read(package)
        self._evaluator = Evaluator(self._package, function or self._package.default_function, arithmetic="fp16")

    def predict(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        fed = {
            name: np.asarray(value).transpose(2, 0, 1)[None].astype(np.float32)
            if isinstance(value, Image.Image)
            else value
            for name, value in given.items()
        }
        return self._evaluator.run(fed)


def test_verify_py_judges_every_package_by_the_answers_beside_it(tiny: tuple[Report, Bundle], tmp_path: Path):
    folder = tmp_path / "coreml"
    shutil.copytree(tiny[1].directory, folder)
    script = runpy.run_path(str(folder / "verify.py"))
    results = list(script["verify"](folder, Predicting, ("ALL",), 1))
    assert [(r["package"], r["verdict"]) for r in results] == [
        ("model_fp16.mlpackage", "passed"),
        ("model_fp32.mlpackage", "passed"),
    ]
    answer = folder / tiny[1].rung.golden[0].outputs["logits"]
    answer.write_bytes(np.roll(np.frombuffer(answer.read_bytes(), "<f4"), 1).tobytes())
    assert {r["verdict"] for r in script["verify"](folder, Predicting, ("ALL",), 1)} == {"failed"}


def test_verify_py_says_that_it_needs_a_mac(tiny: tuple[Report, Bundle]):
    done = subprocess.run(
        [sys.executable, tiny[1].directory / "verify.py"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("verify.py needs macOS")


def test_the_swift_package_is_part_of_the_bundle_with_a_hash_of_its_own(tiny: tuple[Report, Bundle], tmp_path: Path):
    bundle = tiny[1]
    listed = {file.path for file in bundle.manifest.files}
    written = {
        "Package.swift",
        *(p.relative_to(bundle.directory).as_posix() for p in bundle.directory.glob("swift/**/*.*")),
    }
    assert written <= listed
    package = (bundle.directory / "Package.swift").read_text()
    for named in re.findall(r'[.]copy\("([^"]+)"\)', package):
        assert (bundle.directory / named).exists(), named
    for kept_out in re.findall(r'^ {16}"([^"]+)",$', package, re.MULTILINE):
        assert (bundle.directory / kept_out).exists(), kept_out
    changed = read_bundle(shutil.copytree(bundle.directory, tmp_path / "changed"))
    changed.path("swift/Sources/Tiny/Generated.swift").write_text("// another network")
    assert "'swift/Sources/Tiny/Generated.swift' is not the file that was exported" in bundles.damage(changed)


def test_a_plan_of_core_mls_is_counted_by_device_and_what_is_left_to_the_cpu_is_named():
    """Operations and devices are coremltools' own classes; which device takes what is made up here."""
    from coremltools.models import compute_device as devices
    from coremltools.models import compute_plan as plans

    def operation(name: str, kind: str) -> plans.MLModelStructureProgramOperation:
        value = plans.MLModelStructureProgramNamedValueType(name, plans.MLModelStructureProgramValueType())
        return plans.MLModelStructureProgramOperation({}, kind, [value], [], None)

    def usage(kind: type) -> plans.MLComputePlanDeviceUsage:
        device = object.__new__(kind)  # only Core ML makes one
        return plans.MLComputePlanDeviceUsage(device, [device])

    planned = [
        (operation("weight", "const"), None),
        (operation("stem", "ios17.conv"), usage(devices.MLNeuralEngineComputeDevice)),
        (operation("scores", "ios17.linear"), usage(devices.MLNeuralEngineComputeDevice)),
        (operation("rows", "ios17.gather"), usage(devices.MLCPUComputeDevice)),
    ]
    found = placed(planned, accelerated=True)
    assert found == Placement({"Neural Engine": 2, "CPU": 1}, ("ios17.gather (rows)",))
    assert placed(planned, accelerated=False).fallback == ()
