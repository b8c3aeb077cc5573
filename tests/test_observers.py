"""How activations' ranges are taken from what was seen: beside brute force, beside onnxruntime, and by each target."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import onnx
import pytest

from conftest import TESTS, Command
from vitexport import ExportRequest, capture, export, models, photos
from vitexport.contract import Observer, SourceModel
from vitexport.errors import BadRequest
from vitexport.pipeline import check
from vitexport.quantize import observers
from vitexport.quantize.observers import BINS, PERCENTILE, Grid, Histogram, Range, range_of
from vitexport_targets import _onnx_graph
from vitexport_targets._onnx_bits import in_precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOMY = f"{TESTS / 'models.py'}:roomy"
OBSERVERS: tuple[Observer, ...] = get_args(Observer)
BYTES, SIGNED, WORDS = Grid(8, symmetric=False), Grid(8, symmetric=True), Grid(16, symmetric=True)


def seen(*values: Any) -> Histogram:
    made = Histogram()
    for each in values:
        made.add(np.asarray(each, np.float32))
    return made


def long_tailed(count: int = 200_000, seed: int = 0) -> NDArray[np.float32]:
    """As a layer's results are: nearly normal, with a few that stand out, and more above zero."""
    rng = np.random.default_rng(seed)
    return (rng.standard_t(4, count) + 0.5).astype(np.float32)


# ---------------------------------------------------------------------------------------------------- what was seen


def test_what_is_seen_picture_by_picture_is_counted_as_if_seen_at_once():
    """Of powers of two, so that the limit doubles exactly as far."""
    values = [np.float32(2.0**power) * long_tailed(1000, power).clip(-8, 7.9) / 8 for power in range(6)]
    parts, whole = seen(*values), seen(np.float32([32]), *values)
    assert parts.counts.sum() == 6000
    assert (parts.least, parts.largest) == (min(v.min() for v in values), max(v.max() for v in values))
    assert parts.limit >= max(-parts.least, parts.largest) > parts.limit / 2
    assert parts.sums.sum() == pytest.approx(sum(float(v.sum(dtype=np.float64)) for v in values))
    assert whole.counts.sum() == 6001


def test_bins_join_in_pairs_around_zero():
    small, large = np.linspace(-1, 1, 4001, dtype=np.float32), np.float32([-3.9, 3.9])
    made, at_once = seen(small, large), seen(np.float32([4.0]), small, large)
    assert made.limit == at_once.limit == 4
    middle = slice(BINS // 4, 3 * BINS // 4)
    assert np.abs(made.counts[middle] - at_once.counts[middle]).max() <= 1  # what lies on an edge is rounded to a side
    assert made.counts.sum() == at_once.counts.sum() - 1


def test_what_is_not_finite_is_passed_over():
    assert seen([1.0, np.nan, np.inf, -2.0]).range == Range(-2.0, 1.0)


# ------------------------------------------------------------------------------------------------------- what it makes


@pytest.mark.parametrize("grid", [BYTES, SIGNED, WORDS])
@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize(
    "values",
    [[], [0.0] * 9, [3.5] * 9, [-1e-30] * 9, [1e-42], [3e38, -3e38], [0.0, 7.0], np.arange(5.0, 6.0, 0.01)],
    ids=["nothing", "zeros", "constant", "tiny", "subnormal", "huge", "two", "far from zero"],
)
def test_zero_is_in_every_range_and_no_range_leaves_what_was_seen(observer: Observer, grid: Grid, values: Any):
    with np.errstate(all="raise", under="ignore"):
        found = range_of(seen(values), observer, grid)
    least, largest = min([0.0, *np.float32(values)]), max([0.0, *np.float32(values)])
    assert least <= found.least <= 0.0 <= found.largest <= largest
    assert found.least < found.largest or least == largest


def test_min_max_clips_nothing():
    values = long_tailed()
    assert range_of(seen(values), "min-max", BYTES) == Range(float(values.min()), float(values.max()))


def test_percentile_cuts_its_share_by_halves():
    values = long_tailed(1_000_000)
    found = range_of(seen(*np.split(values, 10)), "percentile", BYTES)
    cut = (100 - PERCENTILE) / 2
    width = 4 * float(np.abs(values).max()) / BINS
    assert found.least == pytest.approx(np.percentile(values, cut), abs=width)
    assert found.largest == pytest.approx(np.percentile(values, 100 - cut), abs=width)


def error(values: NDArray[np.float32], grid: Grid, found: Range) -> float:
    exact = values.astype(np.float64)
    return float(np.mean((grid.rounded(exact, found.least, found.largest) - exact) ** 2))


@pytest.mark.parametrize("grid", [BYTES, SIGNED, Grid(4, symmetric=False)])
def test_mse_loses_no_more_than_the_best_of_all_pairs_of_ends(grid: Grid):
    values = long_tailed()
    shares = np.linspace(0.2, 1, 13)
    best = min(
        error(values, grid, Range(float(values.min()) * a, float(values.max()) * b)) for a, b in product(shares, shares)
    )
    found = range_of(seen(values), "mse", grid)
    assert error(values, grid, found) <= 1.02 * best
    assert error(values, grid, found) <= observers.WORTH * error(values, grid, range_of(seen(values), "min-max", grid))


def test_mse_leaves_a_range_that_is_hardly_better_clipped():
    values = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    found = range_of(seen(values), "min-max", BYTES)
    less = Range(0.98 * found.least, 0.98 * found.largest)
    assert observers.WORTH * error(values, BYTES, found) < error(values, BYTES, less) < error(values, BYTES, found)
    assert range_of(seen(values), "mse", BYTES) == found


def test_mse_clips_nothing_where_all_values_are_alike():
    values = np.linspace(-1, 1, 100_001, dtype=np.float32)
    found = range_of(seen(values), "mse", BYTES)
    assert found.largest - found.least > 1.98


def test_sixteen_bits_clip_next_to_nothing():
    values = long_tailed()
    found = range_of(seen(values), "mse", WORDS)
    assert max(-found.least, found.largest) > 0.9 * np.abs(values).max()


# ------------------------------------------------------------------------------------------------ beside onnxruntime


def theirs(method: str, values: Iterable[NDArray[np.float32]], **options: Any) -> Range:
    from onnxruntime.quantization.calibrate import HistogramCollector

    chosen = {"num_quantized_bins": 128, "percentile": PERCENTILE, "num_bins": 2048, **options}
    collector = HistogramCollector(method=method, symmetric=False, scenario="same", **chosen)
    with contextlib.redirect_stdout(io.StringIO()):
        collector.collect({"x": list(values)})
        found = collector.compute_collection_result()["x"]
    return Range(float(found[0]), float(found[1]))


@pytest.mark.parametrize("seed", range(3))
def test_percentile_is_onnxruntimes(seed: int):
    values = np.split(long_tailed(seed=seed), 8)
    ours, other = range_of(seen(*values), "percentile", BYTES), theirs("percentile", values)
    width = 2 * float(np.abs(values).max()) / 2048  # of onnxruntime's bins
    assert ours.least == pytest.approx(other.least, abs=2 * width)
    assert ours.largest == pytest.approx(other.largest, abs=2 * width)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("shape", ["laplace", "gelu"])
def test_entropy_is_near_onnxruntimes(shape: str, seed: int):
    """Which has half as many bins on either side of zero, and rounds counts to whole numbers: its own threshold moves
    by a tenth to a fifth as its bins are doubled."""
    rng = np.random.default_rng(seed)
    drawn = rng.laplace(size=200_000) if shape == "laplace" else 2 * rng.normal(size=200_000)
    whole = drawn if shape == "laplace" else drawn / (1 + np.exp(-1.7 * drawn))
    values = [each.astype(np.float32) for each in np.split(whole, 8)]
    ours, other = range_of(seen(*values), "entropy", BYTES), theirs("entropy", values, num_quantized_bins=256)
    assert ours.largest == pytest.approx(other.largest, rel=0.12)


def test_entropy_clips_a_few_that_stand_out():
    values = np.concatenate([np.random.default_rng(0).normal(size=200_000), [60.0]]).astype(np.float32)
    assert range_of(seen(values), "entropy", BYTES).largest < 10


# --------------------------------------------------------------------------------------------- by each target


@pytest.fixture(scope="module")
def source() -> SourceModel:
    return capture.capture(models.build(ExportRequest(model=ROOMY)), "made here", photos.probes(None))


def test_ranges_are_those_that_onnxruntime_measures(source: SourceModel, tmp_path: Path):
    """With min-max, every step and zero point is what its own calibration of the same graph makes."""
    from onnxruntime.quantization import QuantType, quantize_static

    from vitexport.quantize import calibration
    from vitexport_targets._onnx_weights import named, weights

    model = named(_onnx_graph.to_model(source))

    class Pictures:
        left = iter(calibration.of(source).pictures)

        def get_next(self) -> dict[str, Any] | None:
            picture = next(self.left, None)
            return None if picture is None else {"pixel_values": picture}

    layers = {node for weight in weights(model) for node in weight.nodes}
    quantize_static(
        model, tmp_path / "theirs.onnx", Pictures(), op_types_to_quantize=["MatMul", "Gemm"],
        nodes_to_quantize=sorted(layers), per_channel=True, reduce_range=True, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )  # fmt: skip
    other = steps(onnx.load(tmp_path / "theirs.onnx"))
    ours = steps(in_precision(_onnx_graph.to_model(source), "w8a8", replace(source, observer="min-max")))
    assert len(ours) == 2
    assert {name: other[name] for name in ours} == ours


def steps(model: onnx.ModelProto) -> dict[str, float]:
    """Of activations, by the value that is quantised."""
    held = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[1] in held]
    return {node.input[0]: float(held[node.input[1]]) for node in nodes if held[node.input[1]].ndim == 0}


def test_observers_make_different_onnx_files_of_one_network(source: SourceModel):
    model = _onnx_graph.to_model(source)
    made = {each: in_precision(model, "w8a8", replace(source, observer=each)) for each in (None, *OBSERVERS)}
    default = made.pop(None)
    assert len({str(steps(each)) for each in made.values()}) >= 3
    assert default == made[observers.DEFAULT]


@pytest.mark.parametrize("observer", ["min-max", "percentile"])
def test_litert_rounds_to_what_the_observer_says(observer: Observer, source: SourceModel):
    pytest.importorskip("ai_edge_quantizer")
    from ai_edge_litert.interpreter import Interpreter

    from vitexport.quantize import calibration
    from vitexport_targets.tflite import lowering, quantisation, signature

    interface = [signature.chosen(source, ExportRequest(model=ROOMY), ladder=False)]
    made = quantisation.quantised(
        lowering.convert([source], interface), "w8a8", [replace(source, observer=observer)], interface
    )
    interpreter = Interpreter(model_content=made)
    wanted = range_of(seen(*calibration.of(source).pictures), observer, BYTES)
    found = [
        tensor["quantization"][0] * 255
        for tensor in interpreter.get_tensor_details()
        if tensor["quantization"][0] and tuple(tensor["shape"]) == (1, 32, 32, 3)
    ]
    assert any(span == pytest.approx(wanted.largest - wanted.least, rel=1e-3) for span in found), (found, wanted)


def test_core_ml_steps_are_what_the_observer_says(source: SourceModel, tmp_path: Path):
    pytest.importorskip("coremltools")
    from vitexport_targets.coreml.evaluator import Evaluator
    from vitexport_targets.coreml.package import read

    scales = {}
    for observer in ("min-max", "percentile"):
        asked = ExportRequest(
            model=ROOMY, targets=("coreml",), precisions=("w8a8",), observer=observer, image_input=False,
            out=str(tmp_path / observer),
        )  # fmt: skip
        report = export(asked)
        (path,) = (Path(report.out) / "coreml").glob("*w8a8*.mlpackage")
        package = read(path)
        evaluator = Evaluator(package)
        scales[observer] = [
            float(evaluator.constant(str(operation.inputs["scale"][0])))
            for operation in package.functions["main"].operations
            if operation.kind == "quantize"
        ]
    assert len(scales["min-max"]) == len(scales["percentile"])
    assert scales["min-max"] > scales["percentile"]


# -------------------------------------------------------------------------------------------------- as it is asked for


def test_an_observer_without_a_range_to_take_is_refused(tmp_path: Path):
    asked = ExportRequest(model=ROOMY, targets=("onnx",), precisions=("fp32", "w8-dyn"), observer="mse")
    with pytest.raises(BadRequest, match=r"^--observer means nothing to fp32, w8-dyn, which fix no range"):
        check(asked, tmp_path / "out")


def test_an_unknown_observer_is_named_with_those_there_are(vitexport: Command):
    done = vitexport("--model", ROOMY, "--observer", "median")
    assert done.returncode == 2
    assert "min-max" in done.stderr
