"""Weights in fewer bits: a compressed package computes exactly what its twin does that coremltools unpacked, bit for
bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ct = pytest.importorskip("coremltools")

import coremltools.optimize.coreml as cto  # noqa: E402
from coremltools.converters.mil import Builder as mb  # noqa: E402, N813
from coremltools.converters.mil.mil import types  # noqa: E402

from coreml_packages import save  # noqa: E402
from vitexport_targets.coreml.evaluator import Evaluator  # noqa: E402
from vitexport_targets.coreml.package import read  # noqa: E402

Compress = Callable[[Any], Any]


class Small(torch.nn.Module):
    """A convolution and a linear layer, each with weights enough to be worth compressing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Conv2d(3, 64, 8, 8)
        self.head = torch.nn.Linear(64, 64)

    def forward(self, x: Any) -> Any:
        return self.head(self.stem(x).flatten(2).transpose(1, 2))


@pytest.fixture(scope="module", params=["iOS16", "iOS18"])
def model(request: pytest.FixtureRequest) -> tuple[str, Any]:
    target = request.param
    traced = torch.jit.trace(Small().eval(), torch.zeros(1, 3, 32, 32))
    inputs = [ct.TensorType(name="x", shape=(1, 3, 32, 32))]
    converted = ct.convert(traced, inputs=inputs, minimum_deployment_target=getattr(ct.target, target))
    return target, converted


def linear(**options: Any) -> Compress:
    config = cto.OptimizationConfig(global_config=cto.OpLinearQuantizerConfig(**options))
    return lambda model: cto.linear_quantize_weights(model, config)


def palette(**options: Any) -> Compress:
    config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(**options))
    return lambda model: cto.palettize_weights(model, config)


def pruned(**options: Any) -> Compress:
    config = cto.OptimizationConfig(global_config=cto.OpThresholdPrunerConfig(**options))
    return lambda model: cto.prune_weights(model, config)


def pruned_then(kind: str) -> Compress:
    """Zeros left out, and the rest in fewer bits."""

    def compress(model: Any) -> Any:
        sparse = pruned(threshold=0.03, minimum_sparsity_percentile=0.1)(model)
        if kind == "linear":
            config = cto.OptimizationConfig(global_config=cto.OpLinearQuantizerConfig(mode="linear_symmetric"))
            return cto.linear_quantize_weights(sparse, config, joint_compression=True)
        config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(mode="kmeans", nbits=4))
        return cto.palettize_weights(sparse, config, joint_compression=True)

    return compress


def palette_then_int8(model: Any) -> Any:
    """A palette whose colours are int8."""
    config = cto.OptimizationConfig(
        global_config=cto.OpLinearQuantizerConfig(mode="linear_symmetric", granularity="per_tensor")
    )
    return cto.linear_quantize_weights(palette(mode="kmeans", nbits=4)(model), config, joint_compression=True)


#: What -> (compress, the op that unpacks it, the oldest system).
FORMS = {
    "int8 symmetric": (linear(mode="linear_symmetric"), "iOS16"),
    "int8 with zero points": (linear(mode="linear"), "iOS16"),
    "uint8 with zero points": (linear(mode="linear", dtype="uint8"), "iOS16"),
    "int4 in blocks of 32": (
        linear(mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=32), "iOS18"
    ),
    "uint4 with offsets": (linear(mode="linear", dtype="uint4", granularity="per_channel"), "iOS18"),
    "int8, one scale": (linear(mode="linear_symmetric", granularity="per_tensor"), "iOS18"),
    "palette of 8 bits": (palette(mode="uniform", nbits=8), "iOS16"),
    "palette of 6 bits": (palette(mode="uniform", nbits=6), "iOS16"),
    "palette of 4 bits": (palette(mode="kmeans", nbits=4), "iOS16"),
    "palette of 2 bits": (palette(mode="kmeans", nbits=2), "iOS16"),
    "palette of 1 bit": (palette(mode="kmeans", nbits=1), "iOS16"),
    "palette of 3 bits": (palette(mode="kmeans", nbits=3), "iOS18"),
    "palettes by group": (
        palette(mode="kmeans", nbits=4, granularity="per_grouped_channel", group_size=16), "iOS18"
    ),
    "sparse": (pruned(threshold=0.03, minimum_sparsity_percentile=0.1), "iOS16"),
    "sparse and int8": (pruned_then("linear"), "iOS18"),
    "sparse and a palette": (pruned_then("palette"), "iOS18"),
    "palette of int8": (palette_then_int8, "iOS18"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_compressed_equals_unpacked(form: str, model: tuple[str, Any], tmp_path: Path):
    target, converted = model
    compress, oldest = FORMS[form]
    if target < oldest:
        pytest.skip(f"needs {oldest}")
    small = compress(converted)
    small.save(str(tmp_path / "small.mlpackage"))
    cto.decompress_weights(small).save(str(tmp_path / "twin.mlpackage"))
    package, twin = read(tmp_path / "small.mlpackage"), read(tmp_path / "twin.mlpackage")
    unpacked = [o.kind for o in package.functions["main"].operations if o.kind.startswith("constexpr_")]
    assert unpacked
    assert not any(o.kind.startswith("constexpr_") for o in twin.functions["main"].operations)
    x = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    (got,), (wanted,) = (Evaluator(p).run({"x": x}).values() for p in (package, twin))
    np.testing.assert_array_equal(got, wanted)
    assert np.ptp(got) > 0.1


def test_every_way_of_unpacking_occurs(model: tuple[str, Any], tmp_path: Path):
    """So that none of the forms above passes by not being there."""
    target, converted = model
    found: set[str] = set()
    for form, (compress, oldest) in FORMS.items():
        if target >= oldest and form in ("int8 symmetric", "palette of 4 bits", "sparse", "sparse and int8",
                                         "sparse and a palette"):  # fmt: skip
            path = tmp_path / f"{form}.mlpackage"
            compress(converted).save(str(path))
            found |= {o.kind for o in read(path).functions["main"].operations if o.kind.startswith("constexpr_")}
    older = {"constexpr_affine_dequantize", "constexpr_lut_to_dense", "constexpr_sparse_to_dense"}
    newer = {"constexpr_blockwise_shift_scale", "constexpr_lut_to_dense", "constexpr_sparse_to_dense",
             "constexpr_sparse_blockwise_shift_scale", "constexpr_lut_to_sparse"}  # fmt: skip
    assert found == (older if target == "iOS16" else newer)


# --------------------------------------------------------- forms that coremltools' compressors leave out, by the book


def test_a_palette_of_vectors_unpacks_as_its_documentation_shows(tmp_path: Path):
    """Case 2 of ``constexpr_lut_to_dense`` (iOS 18), with a = 10, 11, 12 and b = 20, 21, 22."""
    indices = np.array([[[0, 0], [1, 0]], [[1, 1], [0, 0]]]).astype(types.nptype_from_builtin(types.uint1))
    lut = np.array([10, 11, 12, 20, 21, 22], np.float32).reshape(1, 1, 1, 2, 3)

    @mb.program(input_specs=[mb.TensorSpec((1,))], opset_version=ct.target.iOS18)
    def program(x: Any) -> Any:
        down = mb.constexpr_lut_to_dense(indices=indices, lut=lut, vector_axis=1, name="down")
        across = mb.constexpr_lut_to_dense(indices=indices, lut=lut, vector_axis=2, name="across")
        return mb.add(x=x, y=down, name="y"), mb.add(x=x, y=across, name="z")

    made = Evaluator(read(save(program, tmp_path / "v.mlpackage", 9))).run({"x": np.zeros(1, np.float32)})
    assert made["y"].tolist() == [
        [[10, 10], [11, 11], [12, 12], [20, 10], [21, 11], [22, 12]],
        [[20, 20], [21, 21], [22, 22], [10, 10], [11, 11], [12, 12]],
    ]
    assert made["z"].tolist() == [
        [[10, 11, 12, 10, 11, 12], [20, 21, 22, 10, 11, 12]],
        [[20, 21, 22, 20, 21, 22], [10, 11, 12, 10, 11, 12]],
    ]


def test_activations_come_back_from_eight_bits(tmp_path: Path):
    scales, zeros = np.array([0.5, 0.25], np.float32), np.array([-3, 100], np.int8)

    @mb.program(input_specs=[mb.TensorSpec((1, 2, 3))], opset_version=ct.target.iOS17)
    def program(x: Any) -> Any:
        steps = mb.quantize(input=x, scale=scales, zero_point=zeros, axis=1, output_dtype="int8")
        back = mb.dequantize(input=steps, scale=scales, zero_point=zeros, axis=1, name="back")
        plain = mb.quantize(input=x, scale=np.float32(0.5), output_dtype="int8")
        return back, mb.dequantize(input=plain, scale=np.float32(0.5), name="plain")

    x = np.array([[[0.6, -100, 100], [0.3, 0.124, -60]]], np.float32)
    made = Evaluator(read(save(program, tmp_path / "q.mlpackage"))).run({"x": x})
    # steps of 1/2 in -62.5 .. 65, and of 1/4 in -57 .. 6.75
    assert made["back"].tolist() == [[[0.5, -62.5, 65.0], [0.25, 0.0, -57.0]]]
    assert made["plain"].tolist() == [[[0.5, -64.0, 63.5], [0.5, 0.0, -60.0]]]


def test_a_constant_that_is_cast_when_it_loads(tmp_path: Path):
    @mb.program(input_specs=[mb.TensorSpec((2,))], opset_version=ct.target.iOS16)
    def program(x: Any) -> Any:
        return mb.add(x=x, y=mb.constexpr_cast(source_val=np.array([0.1, 3], np.float16), output_dtype="fp32"))

    (made,) = Evaluator(read(save(program, tmp_path / "c.mlpackage", 7))).run({"x": np.zeros(2, np.float32)}).values()
    assert made.tolist() == [float(np.float16(0.1)), 3.0]


def test_a_classifier_names_the_likeliest(tmp_path: Path):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.Softmax(1)).eval()
    traced = torch.jit.trace(module, torch.zeros(1, 4))
    ct.convert(
        traced, inputs=[ct.TensorType(name="x", shape=(1, 4))], minimum_deployment_target=ct.target.iOS17,
        classifier_config=ct.ClassifierConfig(["cat", "dog", "newt"]), compute_precision=ct.precision.FLOAT32,
    ).save(str(tmp_path / "c.mlpackage"))  # fmt: skip
    package = read(tmp_path / "c.mlpackage")
    interface = package.interfaces["main"]
    x = np.random.default_rng(1).normal(size=(1, 4)).astype(np.float32)
    made = Evaluator(package).run({"x": x})
    wanted = module(torch.tensor(x)).detach().numpy()[0]
    np.testing.assert_allclose(made[interface.predicted_probabilities], wanted, atol=1e-6)
    assert made[interface.predicted_feature] == ["cat", "dog", "newt"][int(wanted.argmax())]
