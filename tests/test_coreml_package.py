"""The reader of ``.mlpackage`` folders against coremltools' own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ct = pytest.importorskip("coremltools")

from coremltools.converters.mil import Builder as mb  # noqa: E402, N813
from coremltools.converters.mil.frontend.milproto import load as milproto  # noqa: E402

from coreml_packages import WEIGHTS, message, net, save  # noqa: E402
from vitexport.errors import BadRequest  # noqa: E402
from vitexport_targets.coreml.evaluator import Evaluator  # noqa: E402
from vitexport_targets.coreml.package import read  # noqa: E402


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return save(net(), tmp_path / "net.mlpackage")


def test_operations_and_constants_are_those_that_coremltools_own_reader_finds(package: Path):
    spec = message(package)
    theirs = milproto.load(spec, spec.specificationVersion, str(package / WEIGHTS.parent)).functions["main"]
    ours = read(package).functions["main"]
    assert [o.kind for o in ours.operations] == [o.op_type for o in theirs.operations]
    for mine, other in zip(ours.operations, theirs.operations, strict=True):
        assert [v.name for v in mine.outputs] == [v.name for v in other.outputs]
        if mine.kind == "const":
            value = np.asarray(other.outputs[0].val)
            np.testing.assert_array_equal(mine.attributes["val"].data, value)
            assert mine.attributes["val"].data.dtype.kind == value.dtype.kind
    assert ours.outputs == ("scores",)
    assert [(i.name, i.type.shape) for i in ours.inputs] == [("image", (1, 3, 8, 8))]


def test_weights_in_the_file_and_in_the_program_are_told_apart(package: Path):
    constants = [o.attributes["val"] for o in read(package).functions["main"].operations if o.kind == "const"]
    assert [c.stored_bytes for c in constants if c.stored_bytes] == [8 * 3 * 3 * 3 * 4]


@pytest.mark.parametrize(
    "value",
    [
        np.array([True, False, True]),
        np.array([-3, 2**31 - 1], np.int32),
        np.array([-3, 127], np.int8),
        np.array([3, 255], np.uint8),
        np.array([-3, 32767], np.int16),
        np.array([3, 65535], np.uint16),
        np.array([0.1, -65504], np.float16),
        np.array([0.1, -1e38], np.float32),
        np.array("EXACT"),
    ],
    ids=lambda value: value.dtype.name,
)
def test_a_constant_of_each_type_is_read_as_it_was_written(value: np.ndarray, tmp_path: Path):
    @mb.program(input_specs=[mb.TensorSpec((1,))], opset_version=ct.target.iOS17)
    def program(x: Any) -> Any:
        mb.const(val=str(value) if value.dtype.kind == "U" else value, name="held")
        return mb.relu(x=x)

    function = read(save(program, tmp_path / "c.mlpackage")).functions["main"]
    held = next(o.attributes["val"] for o in function.operations if o.outputs[0].name == "held")
    np.testing.assert_array_equal(held.data, value)
    assert held.data.dtype == value.dtype or value.dtype.kind == "U"


def described() -> Any:
    """The same with what an app sees: converted, not just written."""
    return ct.convert(
        net(),
        inputs=[ct.ImageType(name="image", shape=(1, 3, 8, 8), scale=1 / 255, color_layout=ct.colorlayout.BGR)],
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
    )


def test_what_an_app_sees_is_read_too(tmp_path: Path):
    model = described()
    model.author, model.license, model.short_description, model.version = "A", "MIT", "what it is", "3"
    model.user_defined_metadata["parity"] = "62 dB"
    model.save(str(tmp_path / "net.mlpackage"))
    found = read(tmp_path / "net.mlpackage")
    (image,) = found.inputs
    assert (image.kind, image.shape, image.colour) == ("image", (3, 8, 8), "BGR")
    assert [(o.name, o.kind) for o in found.outputs] == [("scores", "multi-array")]
    assert found.specification_version == 8
    wanted = {"author": "A", "licence": "MIT", "description": "what it is", "version": "3", "parity": "62 dB"}
    assert wanted.items() <= found.metadata.items()


@pytest.mark.parametrize(
    ("shape", "allowed", "refused"),
    [
        (lambda: ct.EnumeratedShapes([(1, 3, 8, 8), (1, 3, 8, 16)]), (8, 16), (16, 16)),
        (lambda: (1, 3, ct.RangeDim(4, 12, 8), ct.RangeDim(4, 12, 8)), (4, 12), (4, 13)),
    ],
    ids=["enumerated", "range"],
)
def test_a_size_that_the_app_may_not_hand_over_is_refused(
    shape: Callable[[], Any], allowed: tuple[int, int], refused: tuple[int, int], tmp_path: Path
):
    module = torch.nn.Conv2d(3, 4, 3, padding=1).eval()
    traced = torch.jit.trace(module, torch.zeros(1, 3, 8, 8))
    model = ct.convert(
        traced, inputs=[ct.TensorType(name="x", shape=shape())], minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
    )  # fmt: skip
    model.save(str(tmp_path / "net.mlpackage"))
    evaluator = Evaluator(read(tmp_path / "net.mlpackage"))
    x = np.random.default_rng(0).normal(size=(1, 3, *allowed)).astype(np.float32)
    (made,) = evaluator.run({"x": x}).values()
    np.testing.assert_allclose(made, module(torch.tensor(x)).detach(), atol=2e-6)
    with pytest.raises(BadRequest, match=rf"takes .*, and got the shape \[1, 3, {refused[0]}, {refused[1]}\]"):
        evaluator.run({"x": np.zeros((1, 3, *refused), np.float32)})
