"""Faults planted in saved packages, each caught by the gate that is there for it.

The network is a small ViT with all that large ones have. What a plain float16 comparison with PyTorch lets through
(one GELU of the wrong kind) must not pass the stricter gates.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ct = pytest.importorskip("coremltools")

import coremltools.optimize.coreml as cto  # noqa: E402

from coreml_packages import WEIGHTS, message, write  # noqa: E402
from vitexport import parity  # noqa: E402
from vitexport.contract import OutputSpec  # noqa: E402
from vitexport_targets.coreml import FP32, gates  # noqa: E402
from vitexport_targets.coreml.evaluator import Evaluator  # noqa: E402
from vitexport_targets.coreml.package import BadPackage, read  # noqa: E402

#: As many tokens (nine patches and one that is learned) as a head is wide, so that swapped operands fit.
WIDTH, HEADS, PATCH, SIDE = 40, 4, 8, 24
OUTPUT = OutputSpec("scores", "logits", (1, WIDTH))
Model = Any
Plant = Callable[[Model, Path], Any]


class Block(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = torch.nn.LayerNorm(width, 1e-6), torch.nn.LayerNorm(width, 1e-6)
        self.query, self.key, self.value = (torch.nn.Linear(width, width) for _ in range(3))
        self.proj = torch.nn.Linear(width, width)
        self.fc1, self.fc2 = torch.nn.Linear(width, 2 * width), torch.nn.Linear(2 * width, width)

    def forward(self, x: Any) -> Any:
        n, tokens, width = x.shape
        y = self.norm1(x)
        heads = (n, tokens, HEADS, width // HEADS)
        q, k, v = (f(y).reshape(heads).transpose(1, 2) for f in (self.query, self.key, self.value))
        weights = (q @ k.transpose(-1, -2) / (width // HEADS) ** 0.5).softmax(-1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(n, tokens, width))
        return x + self.fc2(torch.nn.functional.gelu(self.fc1(self.norm2(x))))


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.token = torch.nn.Parameter(torch.randn(1, 1, WIDTH))
        self.blocks = torch.nn.Sequential(*(Block(WIDTH) for _ in range(3)))
        self.head = torch.nn.Linear(WIDTH, WIDTH)
        for parameter in self.parameters():  # lively enough that every part matters
            parameter.data.mul_(2 if parameter.ndim > 1 else 1)

    def forward(self, x: Any) -> Any:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = self.blocks(torch.cat([self.token, x], 1))
        return self.head(x[:, 0])


PIXELS = np.random.default_rng(0).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def reference() -> Mapping[str, np.ndarray]:
    with torch.no_grad():
        return {"scores": Net().eval()(torch.tensor(PIXELS)).numpy()}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the float32 and the float16 package, and one with a palette."""
    folder = tmp_path_factory.mktemp("sound")
    traced = torch.jit.trace(Net().eval(), torch.tensor(PIXELS))
    for name, precision in (("fp32", ct.precision.FLOAT32), ("fp16", ct.precision.FLOAT16)):
        converted = ct.convert(
            traced,
            inputs=[ct.TensorType(name="x", shape=PIXELS.shape)],
            outputs=[ct.TensorType(name="scores", dtype=np.float32)],
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=precision,
        )
        converted.save(str(folder / f"{name}.mlpackage"))
    config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(mode="kmeans", nbits=4))
    small = cto.palettize_weights(converted, config)
    small.save(str(folder / "palette.mlpackage"))
    cto.decompress_weights(small).save(str(folder / "unpacked.mlpackage"))
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "planted")
    return tmp_path / "planted"


def answer(package: Any, arithmetic: Any = "exact") -> Mapping[str, np.ndarray]:
    return Evaluator(package, arithmetic=arithmetic).run({"x": PIXELS})


def snr_db(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> float:
    return parity.snr_db(a["scores"], b["scores"], "logits")


def gate_a(folder: Path, reference: Mapping[str, np.ndarray]) -> Any:
    answers = [answer(read(folder / "fp32.mlpackage"))]
    return gates.from_pytorch((OUTPUT,), answers, [reference], FP32.tolerance)


def gate_b(folder: Path) -> Any:
    half, single = read(folder / "fp16.mlpackage"), read(folder / "fp32.mlpackage")
    return gates.from_twin((OUTPUT,), [answer(half)], [answer(gates.rounded_as(half, single))])


# --------------------------------------------------------------------------------------------------- what is planted


def operations(model: Model, kind: str) -> list[Any]:
    return [o for o in model.mlProgram.functions["main"].block_specializations["CoreML7"].operations if o.type == kind]


def constant(model: Model, operation: Any, parameter: str) -> Any:
    name = operation.inputs[parameter].arguments[0].name
    return next(o for o in operations(model, "const") if o.outputs[0].name == name).attributes["val"]


def one_gelu_by_tanh(model: Model, _: Path) -> None:
    constant(model, operations(model, "gelu")[1], "mode").immediateValue.tensor.strings.values[0] = "TANH_APPROXIMATION"


def a_larger_epsilon(model: Model, _: Path) -> None:
    value = constant(model, operations(model, "layer_norm")[2], "epsilon").immediateValue.tensor
    if value.HasField("floats"):
        value.floats.values[0] = 1e-3
    else:
        value.bytes.values = np.float16(1e-3).tobytes()


def query_and_key_swapped(model: Model, _: Path) -> None:
    product = operations(model, "matmul")[0]
    x, y = product.inputs["x"].arguments[0].name, product.inputs["y"].arguments[0].name
    product.inputs["x"].arguments[0].name, product.inputs["y"].arguments[0].name = y, x


def two_weights_exchanged(model: Model, _: Path) -> None:
    first, second = (constant(model, layer, "weight").blobFileValue for layer in alike(model))
    first.offset, second.offset = second.offset, first.offset


def alike(model: Model) -> tuple[Any, Any]:
    """Two linear layers of one shape: the first of each MLP, which alone are twice as wide as what they take."""
    layers = operations(model, "linear")
    wide = [o for o in layers if o.outputs[0].type.tensorType.dimensions[-1].constant.size == 2 * WIDTH]
    return wide[0], wide[1]


def softmax_over_the_wrong_axis(model: Model, _: Path) -> None:
    constant(model, operations(model, "softmax")[0], "axis").immediateValue.tensor.ints.values[0] = -2


def a_scale_forgotten(model: Model, _: Path) -> None:
    """Attention without its 1 / sqrt(d)."""
    scaled = operations(model, "mul")[0]
    value = constant(model, scaled, "y").immediateValue.tensor
    if value.HasField("floats"):
        value.floats.values[0] = 1.0
    else:
        value.bytes.values = np.float16(1).tobytes()


def blob_of(model: Model, operation: Any, parameter: str, path: Path) -> tuple[bytearray, int]:
    """The weight file, and where an operation's constant begins in it."""
    content = bytearray((path / WEIGHTS).read_bytes())
    header = constant(model, operation, parameter).blobFileValue.offset
    return content, int.from_bytes(content[header + 16 : header + 24], "little")


def an_exponent_bit(model: Model, path: Path) -> None:
    """The highest bit but the sign, of one weight."""
    content, start = blob_of(model, operations(model, "linear")[4], "weight", path)
    width = 2 if path.stem == "fp16" else 4
    content[start + 100 * width + width - 1] ^= 0x40
    (path / WEIGHTS).write_bytes(content)


GRAPH: Mapping[str, Plant] = {
    "an activation of another mode": one_gelu_by_tanh,
    "a larger epsilon": a_larger_epsilon,
    "operands swapped": query_and_key_swapped,
    "weights exchanged": two_weights_exchanged,
    "the wrong axis": softmax_over_the_wrong_axis,
    "a scale forgotten": a_scale_forgotten,
    "a bit flipped": an_exponent_bit,
}


def plant(fault: Plant, path: Path) -> None:
    model = message(path)
    fault(model, path)
    write(model, path)


# --------------------------------------------------------------------------------------------------------- the tests


def test_sound_packages_pass_every_gate(folder: Path, reference: Mapping[str, np.ndarray]):
    assert gate_a(folder, reference).verdict == "passed"
    assert gate_b(folder).verdict == "passed"
    assert snr_db(answer(read(folder / "fp16.mlpackage"), "fp16"), reference) > 45
    np.testing.assert_array_equal(*(answer(read(folder / f"{n}.mlpackage"))["scores"] for n in ("palette", "unpacked")))


@pytest.mark.parametrize("fault", GRAPH)
def test_gate_b_catches(fault: str, folder: Path):
    plant(GRAPH[fault], folder / "fp16.mlpackage")
    gate = gate_b(folder)
    assert gate.verdict == "failed"
    assert "at least 110.0 passes" in gate.reason


@pytest.mark.parametrize("fault", GRAPH)
def test_gate_a_catches_in_the_package_that_all_others_are_held_to(
    fault: str, folder: Path, reference: Mapping[str, np.ndarray]
):
    plant(GRAPH[fault], folder / "fp32.mlpackage")
    assert gate_a(folder, reference).verdict == "failed"


def test_a_plain_comparison_would_let_an_activation_of_another_mode_through(
    folder: Path, reference: Mapping[str, np.ndarray]
):
    """Which is why there is a gate B."""
    before = snr_db(answer(read(folder / "fp16.mlpackage")), reference)
    plant(one_gelu_by_tanh, folder / "fp16.mlpackage")
    after = snr_db(answer(read(folder / "fp16.mlpackage")), reference)
    assert after > 45
    assert before - after < 3


def test_a_truncated_weight_file_is_refused_by_the_reader(folder: Path):
    weights = folder / "fp16.mlpackage" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BadPackage, match="cut short"):
        read(folder / "fp16.mlpackage")


def test_gate_d_catches_a_colour_of_the_palette_that_is_wrong(folder: Path):
    """One of sixteen, by the least that float16 can tell."""
    path = folder / "palette.mlpackage"
    model = message(path)
    table = operations(model, "constexpr_lut_to_dense")[3].attributes["lut"]
    if table.HasField("blobFileValue"):
        content = bytearray((path / WEIGHTS).read_bytes())
        header = table.blobFileValue.offset
        content[int.from_bytes(content[header + 16 : header + 24], "little")] ^= 1
        (path / WEIGHTS).write_bytes(content)
    else:
        colours = bytearray(table.immediateValue.tensor.bytes.values)
        colours[0] ^= 1
        table.immediateValue.tensor.bytes.values = bytes(colours)
        write(model, path)
    twin = answer(read(folder / "unpacked.mlpackage"))["scores"]
    assert not np.array_equal(answer(read(path))["scores"], twin)


def test_float16_that_overflows_is_seen(folder: Path, reference: Mapping[str, np.ndarray]):
    """Weights a thousand times too large in one layer, small ones in the next: exact arithmetic does not notice."""
    path = folder / "fp16.mlpackage"
    model = message(path)
    first = operations(model, "linear")[0]
    content, start = blob_of(model, first, "weight", path)
    shape = [d.constant.size for d in constant(model, first, "weight").type.tensorType.dimensions]
    weights = np.frombuffer(content, np.float16, int(np.prod(shape)), start)
    content[start : start + weights.nbytes] = (weights * np.float16(30_000)).tobytes()
    (path / WEIGHTS).write_bytes(content)
    largest: dict[str, float] = {}
    package = read(path)
    Evaluator(package, arithmetic="fp16").run(
        {"x": PIXELS}, lambda name, value: largest.update({name: float(np.abs(value).max())})
    )
    gate = gates.headroom(largest)
    assert gate.verdict == "failed"
    assert "float16 ends at 65504" in gate.reason


def test_the_second_opinion_catches_a_type_that_does_not_follow(folder: Path):
    """The evaluator computes in float32 whatever a value is declared: a float32 output of a float16 op passes B."""
    path = folder / "fp16.mlpackage"
    model = message(path)
    operations(model, "gelu")[0].outputs[0].type.tensorType.dataType = 11  # float32
    write(model, path)
    assert gate_b(folder).verdict == "passed"
    gate = gates.retyped(read(path))
    assert gate.verdict == "failed"
    assert gate.reason.startswith("coremltools refuses the program: ")
