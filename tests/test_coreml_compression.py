"""Core ML packages in fewer bits: made, calibrated on every picture, and held to the float32 package.

Among them a test for each defect of coremltools that is worked around: it fails once the defect is gone.
"""

from __future__ import annotations

import shutil
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ct = pytest.importorskip("coremltools")

import coremltools.optimize.coreml as cto  # noqa: E402
from coremltools.optimize.coreml.experimental import _model_debugger as debugger  # noqa: E402
from coremltools.optimize.coreml.experimental import _post_training_quantization as upstream  # noqa: E402

import vitexport  # noqa: E402
from conftest import TESTS  # noqa: E402
from coreml_packages import WEIGHTS, message, write  # noqa: E402
from test_coreml_faults import PIXELS, WIDTH, Net  # noqa: E402
from vitexport import ExportRequest, Preprocessing, Size, photos  # noqa: E402
from vitexport.commands import COMMANDS  # noqa: E402
from vitexport.contract import Clip, Probe, Report  # noqa: E402
from vitexport.errors import BadRequest, LoweringFailed  # noqa: E402
from vitexport.quantize.calibration import PICTURES, calibration  # noqa: E402
from vitexport_targets.coreml import compression, gates, packed  # noqa: E402
from vitexport_targets.coreml.calibration import calibrated, ranges  # noqa: E402
from vitexport_targets.coreml.evaluator import Evaluator  # noqa: E402
from vitexport_targets.coreml.package import read  # noqa: E402

FEWER = tuple(compression.RECIPES)
SAMPLES = [
    {"x": np.random.default_rng(seed).normal(scale=1 + seed % 3, size=PIXELS.shape).astype(np.float32)}
    for seed in range(16)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small ViT of test_coreml_faults, for iOS 18: float32, float16, and every precision of fewer bits."""
    into = tmp_path_factory.mktemp("packages")
    traced = torch.jit.trace(Net().eval(), torch.tensor(PIXELS))
    for name, precision in (("fp32", ct.precision.FLOAT32), ("fp16", ct.precision.FLOAT16)):
        ct.convert(
            traced,
            inputs=[ct.TensorType(name="x", shape=PIXELS.shape)],
            outputs=[ct.TensorType(name="scores", dtype=np.float32)],
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=precision,
        ).save(str(into / f"{name}.mlpackage"))
    half = into / "fp16.mlpackage"
    seen = compression.Seen(SAMPLES, ranges(half, SAMPLES, "min-max"))
    for name in FEWER:
        path, twin = (into / f"{each}.mlpackage" for each in (name, f"{name}-unpacked"))
        compression.compress(half, name, "ios18", seen, frozenset(), path, twin)
    return into


@pytest.fixture
def planted(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "planted"))


def compared(folder: Path, name: str) -> packed.Comparison:
    return packed.compare(*(read(folder / f"{each}.mlpackage") for each in (name, "fp32")), "main")


def unpacked(folder: Path, name: str) -> Any:
    twin = packed.digest(read(folder / f"{name}-unpacked.mlpackage"), "main")
    return gates.unpacked(read(folder / f"{name}.mlpackage"), "main", twin)


# ------------------------------------------------------------------------------------------------- sound packages


@pytest.mark.parametrize("name", FEWER)
def test_a_package_in_fewer_bits_is_the_float32_one_but_for_its_weights(name: str, folder: Path):
    found = compared(folder, name)
    assert gates.same_operations(found).verdict == "passed"
    assert gates.packed_weights(found, compression.RECIPES[name].bits).verdict == "passed"
    assert len(found.weights) > 5
    assert unpacked(folder, name).verdict == "passed"


@pytest.mark.parametrize("name", FEWER)
def test_it_equals_its_decompressed_twin_bit_for_bit(name: str, folder: Path):
    for arithmetic in ("exact", "fp16"):
        ours, twins = (
            Evaluator(read(folder / f"{each}.mlpackage"), arithmetic=arithmetic).run({"x": PIXELS})["scores"]
            for each in (name, f"{name}-unpacked")
        )
        np.testing.assert_array_equal(ours, twins)


def test_fewer_bits_are_fewer_bytes_and_more_noise(folder: Path):
    sizes = {name: (folder / f"{name}.mlpackage" / WEIGHTS).stat().st_size for name in ("fp16", "w8", "w6p", "w4p")}
    assert sizes["fp16"] > sizes["w8"] > sizes["w6p"] > sizes["w4p"]
    lost = {n: packed.explained([w.noise for w in compared(folder, n).weights]) for n in ("w8", "w6p", "w4p")}
    assert lost["w8"] < lost["w6p"] < lost["w4p"]


class Stem(torch.nn.Module):
    """A patch embedding of three channels, and a layer that blocks of 32 divide."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = torch.nn.Conv2d(3, 64, 8, 8), torch.nn.Linear(64, 192)

    def forward(self, x: Any) -> Any:
        return self.head(self.stem(x).mean((2, 3)))


def test_int4_takes_a_quarter_and_what_its_blocks_do_not_divide_is_int8(tmp_path: Path):
    traced = torch.jit.trace(Stem().eval(), torch.zeros(1, 3, 32, 32))
    inputs = [ct.TensorType(name="x", shape=(1, 3, 32, 32))]
    half, path, twin = (tmp_path / f"{name}.mlpackage" for name in ("half", "w4", "twin"))
    ct.convert(traced, inputs=inputs, minimum_deployment_target=ct.target.iOS18).save(str(half))
    compression.compress(half, "w4", "ios18", compression.Seen(), frozenset(), path, twin)
    stored = {
        o.inputs["data"][0].type.shape: o.inputs["data"][0].type.dtype  # type: ignore[union-attr]
        for o in read(path).functions["main"].operations
        if o.kind == "constexpr_blockwise_shift_scale"
    }
    assert stored == {(64, 3, 8, 8): "int8", (192, 64): "int4"}


def test_a_float16_package_compares_equal_and_packs_nothing(folder: Path):
    found = compared(folder, "fp16")
    assert (found.differences, found.weights) == ((), ())
    gate = gates.packed_weights(found, 8)
    assert (gate.verdict, gate.reason) == ("failed", "none is packed")


# --------------------------------------------------------------------------------------------------------- faults


def plant(folder: Path, name: str, fault: Callable[[Any], None]) -> None:
    path = folder / f"{name}.mlpackage"
    model = message(path)
    fault(model)
    write(model, path)


def ops(model: Any, kind: str) -> list[Any]:
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    return [o for o in block.operations if o.type == kind]


def another_activation(model: Any) -> None:
    name = ops(model, "gelu")[1].inputs["mode"].arguments[0].name
    (mode,) = (o for o in ops(model, "const") if o.outputs[0].name == name)
    mode.attributes["val"].immediateValue.tensor.strings.values[0] = "TANH_APPROXIMATION"


def operands_swapped(model: Any) -> None:
    add = next(o for o in ops(model, "matmul"))
    x, y = add.inputs["x"].arguments[0].name, add.inputs["y"].arguments[0].name
    add.inputs["x"].arguments[0].name, add.inputs["y"].arguments[0].name = y, x


def weights_exchanged(model: Any) -> None:
    """Of two layers that are alike: the first of each block's MLP, which alone are twice as wide as what they take."""
    wide = [o for o in ops(model, "linear") if o.outputs[0].type.tensorType.dimensions[-1].constant.size == 2 * WIDTH]
    names = [o.inputs["weight"].arguments[0].name for o in wide[:2]]
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    first, second = (next(o for o in block.operations if o.outputs[0].name == name) for name in names)
    for bound in ("inputs", "attributes"):
        for parameter in getattr(first, bound):
            if parameter != "name":
                one, other = getattr(first, bound)[parameter], getattr(second, bound)[parameter]
                kept = type(one)()
                kept.CopyFrom(one)
                one.CopyFrom(other)
                other.CopyFrom(kept)


@pytest.mark.parametrize("name", ["w8", "w4p", "w8a8"])
@pytest.mark.parametrize("fault", [another_activation, operands_swapped], ids=lambda f: f.__name__)
def test_gate_b_catches(name: str, fault: Callable[[Any], None], planted: Path):
    plant(planted, name, fault)
    gate = gates.same_operations(compared(planted, name))
    assert gate.verdict == "failed"
    assert "differ, the first" in gate.reason


@pytest.mark.parametrize("name", FEWER)
def test_weights_that_were_exchanged_are_no_rounding(name: str, planted: Path):
    plant(planted, name, weights_exchanged)
    found = compared(planted, name)
    assert gates.same_operations(found).verdict == "passed"
    gate = gates.packed_weights(found, compression.RECIPES[name].bits)
    assert gate.verdict == "failed"
    assert "of half a step" in gate.reason


@pytest.mark.parametrize("name", FEWER)
def test_gate_d_catches_a_bit(name: str, planted: Path):
    """The least of one packed weight's bits, far too little for the others."""
    weights = planted / f"{name}.mlpackage" / WEIGHTS
    content = bytearray(weights.read_bytes())
    kind = "constexpr_lut_to_dense" if name.endswith("p") else "constexpr_blockwise_shift_scale"
    operation = ops(message(planted / f"{name}.mlpackage"), kind)[3]
    bound = operation.inputs["indices" if name.endswith("p") else "data"].arguments[0]
    header = bound.value.blobFileValue.offset
    content[int.from_bytes(content[header + 16 : header + 24], "little")] ^= 1
    weights.write_bytes(content)
    gate = unpacked(planted, name)
    assert (gate.verdict, "other constants" in gate.reason) == ("failed", True)


# --------------------------------------------------------------------------------------- calibration, and the defects


def test_calibration_uses_every_picture(folder: Path):
    every, last = (ranges(folder / "fp16.mlpackage", given, "min-max") for given in (SAMPLES, SAMPLES[-1:]))
    assert len(SAMPLES) >= 16
    wider = [
        name for name, found in every.items() if (found.least, found.largest) != (last[name].least, last[name].largest)
    ]
    assert len(wider) > 0.9 * len(every)
    assert all(found.least <= last[name].least and found.largest >= last[name].largest for name, found in every.items())


def test_the_steps_in_the_package_are_those_of_all_pictures(folder: Path):
    """Of the input, whose range is known: 127 steps on either side of zero."""
    package = read(folder / "w8a8.mlpackage")
    (first,) = (
        o
        for o in package.functions["main"].operations
        if o.kind == "quantize" and o.inputs["input"][0] in ("x", "x_to_fp16")
    )
    largest = max(float(np.abs(sample["x"]).max()) for sample in SAMPLES)
    assert largest > float(np.abs(SAMPLES[-1]["x"]).max())
    scale = Evaluator(package).constant(str(first.inputs["scale"][0]))
    assert float(scale) == pytest.approx(largest / 127, rel=1e-3)  # coremltools keeps scales as float16


def test_coremltools_still_keeps_the_range_of_the_last_picture_alone():
    found: dict[str, dict[str, float]] = defaultdict(dict)
    recorded: dict[str, dict[str, float]] = defaultdict(dict)
    for value in (np.array([-5.0, 5.0]), np.array([-1.0, 1.0])):
        upstream._update_tensor_range("x", value, found)
        debugger.ModelDebugger.record_intermediate_output(value, "x", recorded)
    assert found["x"] == recorded["x"] == {"rmin": -1.0, "rmax": 1.0}


@pytest.mark.skipif(sys.platform == "darwin", reason="there it can")
def test_coremltools_still_cannot_calibrate_without_a_mac(folder: Path):
    model = ct.models.MLModel(str(folder / "fp16.mlpackage"), skip_model_load=True)
    config = cto.OptimizationConfig(global_config=cto.OpLinearQuantizerConfig(mode="linear_symmetric"))
    with pytest.raises(Exception, match="macOS"):
        cto.linear_quantize_activations(model, config, [dict(SAMPLES[0])])


def test_the_calibration_of_coremltools_is_itself_again_afterwards():
    from coremltools.optimize.coreml import _post_training_quantization as quantization

    before = quantization._get_activation_calibration_stats
    with calibrated({}):
        assert quantization._get_activation_calibration_stats is not before
    assert quantization._get_activation_calibration_stats is before


# ------------------------------------------------------------------------------------------- pictures to calibrate on


def test_a_few_photos_make_enough_pictures_and_every_photo_takes_part():
    how = Preprocessing(Size(32, 32))
    found = calibration(photos.probes(None), how)
    assert (len(found.pictures), found.photos) == (PICTURES, 4)
    assert {picture.shape for picture in found.pictures} == {(1, 3, 32, 32)}
    assert len({picture.tobytes() for picture in found.pictures}) == PICTURES
    assert calibration(photos.probes(None), how).digest == found.digest
    np.testing.assert_array_equal(found.pictures[4], found.pictures[0][..., ::-1])


def test_all_photos_of_a_large_folder_are_used():
    many = tuple(Probe(str(i), "photo", np.full((8, 8, 3), i, np.uint8)) for i in range(40))
    assert len(calibration(many, Preprocessing(Size(8, 8))).pictures) == 40


def test_clips_are_mirrored_and_cropped_frame_by_frame():
    clip = Probe("pan", "photo", np.random.default_rng(0).integers(0, 256, (4, 20, 24, 3), dtype=np.uint8))
    found = calibration((clip,), Preprocessing(Size(8, 8), clip=Clip(4)))
    assert {picture.shape for picture in found.pictures} == {(1, 4, 3, 8, 8)}
    assert len({picture.tobytes() for picture in found.pictures}) == 12


# ------------------------------------------------------------------------------------------------ the whole product


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A network with labels, so that a classifier is attached to what was compressed."""
    return vitexport.export(
        ExportRequest(
            model=f"{TESTS / 'models.py'}:roomy",
            targets=("coreml",),
            precisions=("w8", "w6p", "w8a8"),
            coreml_target="ios18",
            out=str(tmp_path_factory.mktemp("exported") / "out"),
        )
    )


def test_an_export_in_fewer_bits_passes_every_gate(exported: Report):
    assert {r.precision: r.verdict for r in exported.results} == dict.fromkeys(("w8", "w6p", "w8a8"), "passed")
    for result in exported.results:
        held = {gate.name: gate.verdict for gate in result.parity.gates}
        assert held.keys() >= {"A", "B", "C", "D", "weights", "range", "labels", "types"}
        assert set(held.values()) == {"passed"}
        assert result.parity.metric == "loss"
        assert result.parity.tolerance < 0.707


def test_a_transpose_of_eight_bits_is_followed_to_where_they_are_floats_again(tmp_path: Path):
    request = ExportRequest(
        model=f"{TESTS / 'models.py'}:stacked",
        targets=("coreml",),
        precisions=("w8a8",),
        max_drop=100.0,
        out=str(tmp_path / "out"),
    )
    (result,) = vitexport.export(request).results
    assert result.verdict == "passed", result.parity.reason


def test_check_holds_a_bundle_to_the_same_gates(exported: Report):
    assert COMMANDS["check"]([exported.out]) == 0


@pytest.mark.parametrize(
    ("precision", "ios", "said"),
    [
        ("w4", "ios17", "Core ML has w4 since iOS 18, and the package is to run on iOS 17. Add --coreml-target ios18"),
        ("w4", None, "or ask for w4p"),
        ("w8a8", "ios16", "Core ML has w8a8 since iOS 17"),
    ],
)
def test_a_precision_that_is_newer_than_the_system_is_refused(precision: str, ios: Any, said: str, tmp_path: Path):
    request = ExportRequest(
        model=f"{TESTS / 'models.py'}:tiny", targets=("coreml",), precisions=(precision,), coreml_target=ios,
        out=str(tmp_path / "out"),
    )  # fmt: skip
    with pytest.raises(BadRequest) as refused:
        vitexport.export(request)
    assert said in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_eight_bit_activations_beyond_float16_are_refused(tmp_path: Path):
    request = ExportRequest(
        model=f"{TESTS / 'models.py'}:roomy_and_wide", targets=("coreml",), precisions=("w8a8",),
        out=str(tmp_path / "out"),
    )  # fmt: skip
    with pytest.raises(LoweringFailed, match="Ask for w8 instead of w8a8"):
        vitexport.export(request)
