"""The lint's rules for LiteRT's GPU delegate and for the Neural Engine, on operations made for it."""

from __future__ import annotations

import pytest

from vitexport_targets.coreml import lint as neural_engine
from vitexport_targets.coreml.mil import Function, Named, Operation, ValueType
from vitexport_targets.tflite import lint as gpu
from vitexport_targets.tflite.gpu_operators import FILE, RUNTIME, gpu_operators
from vitexport_targets.tflite.litertjs import VERSION
from vitexport_targets.tflite.structure import Graph, Tensor


def test_the_delegates_operators_were_read_from_the_runtime_that_is_pinned() -> None:
    """When this fails the pin has moved on: run `python -m vitexport_targets.tflite.generate_gpu_operators`."""
    assert f'"{RUNTIME}": "{VERSION}"' in FILE.read_text()


def one_operation(kind: str, given: Tensor, made: Tensor) -> Graph:
    return Graph((given, made), frozenset((0,)), frozenset((1,)), (kind,), ((0,),), ((1,),))


def tensor(*shape: int, dtype: str = "float32", stored: int = 0) -> Tensor:
    return Tensor("blocks/0/attn;3", dtype, shape, 0, stored)


@pytest.mark.parametrize(
    ("kind", "given", "why"),
    [
        ("RESHAPE", tensor(1, 4, 8, 8), ""),
        ("RESHAPE", tensor(1, 4, 3, 2, 8), "has a tensor of 5 dimensions (1x4x3x2x8)"),
        ("GATHER_ND", tensor(1, 4), "is refused: Operation is not supported."),
        ("FULLY_CONNECTED", tensor(1, 4, dtype="int8"), ""),
        ("FULLY_CONNECTED", tensor(1, 4, dtype="int16"), "computes with int16"),
        ("SOFTMAX", tensor(1, 4, dtype="int8"), "computes with int8"),
        ("DEQUANTIZE", tensor(4, 4, dtype="float16", stored=32), ""),
        ("EMBEDDING_LOOKUP", tensor(1, 4), "was never tried on it"),
    ],
)
def test_the_gpu_delegates_limits(kind: str, given: Tensor, why: str) -> None:
    found, unfit = gpu.examine(one_operation(kind, given, tensor(1, 4, 8, 8)), gpu_operators())
    assert not unfit
    assert [finding.why for finding in found] == ([why] if why else [])
    if found:
        assert found[0].operation == f"{kind} (blocks/0/attn;3)"
        assert found[0].layer == "blocks/0/attn"
        assert found[0].rewrite.endswith(".")


@pytest.mark.parametrize(
    ("kind", "made", "why"),
    [
        ("linear", ValueType("float16", (1, 197, 192)), ""),
        ("const", ValueType("float32", (1, 2, 3, 4, 5)), ""),
        ("linear", ValueType("float32", (1, 197, 192)), "computes in float32"),
        ("cast", ValueType("float32", (1, 1000)), ""),
        ("gather", ValueType("float16", (1, 4)), "looks values up by index"),
        (
            "reshape",
            ValueType("float16", (1, 197, 3, 3, 64)),
            "has a tensor of 5 dimensions (float16[1, 197, 3, 3, 64])",
        ),
        ("reshape", ValueType("float16", (1, None)), "has a tensor of no fixed shape (float16[1, ?])"),
        ("reshape", ValueType("float16", (1, 20_000)), "has a side of more than 16,384 (float16[1, 20000])"),
    ],
)
def test_the_neural_engines_rules(kind: str, made: ValueType, why: str) -> None:
    operation = Operation(kind, {"x": ("x",)}, (Named("y", made),))
    function = Function("main", "CoreML7", (Named("x", ValueType("float16", (1, 4))),), (operation,), ("y",))
    found = neural_engine.examine(function, "fp32")
    assert [finding.why for finding in found] == ([why] if why else [])
    if found:
        assert (found[0].operation, found[0].layer) == (f"{kind} (y)", "y")


@pytest.mark.parametrize(
    ("precision", "rewrite"), [("fp32", "Ship fp16."), ("fp16", "Leave it: "), ("w8", "Leave it: ")]
)
def test_what_a_package_is_already_is_not_what_is_advised(precision: str, rewrite: str) -> None:
    scaled = Operation("mul", {"x": ("x",)}, (Named("y", ValueType("float32", (1, 3, 8, 8))),))
    function = Function("main", "CoreML7", (Named("x", ValueType("float32", (1, 3, 8, 8))),), (scaled,), ("y",))
    (found,) = neural_engine.examine(function, precision)
    assert found.rewrite.startswith(rewrite)
