"""What a .tflite says of the runtimes that can run it: TensorFlow Lite's own figures for floats."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("litert_torch")

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.interpreter import Interpreter

from conftest import TESTS
from vitexport import ExportRequest, Size, capture, models, photos
from vitexport_targets.tflite import lowering, quantisation, signature
from vitexport_targets.tflite.quiet import quietly
from vitexport_targets.tflite.sealing import facts, sealed
from vitexport_targets.tflite.versions import TABLE, stated

MODELS = f"{TESTS / 'models.py'}:"

#: Operators of 22 families of timm at float32, as litert-torch 0.10 converted them.
SEEN = (
    "ABS ADD ARG_MAX AVERAGE_POOL_2D BATCH_MATMUL BROADCAST_TO CAST CONCATENATION CONV_2D COS DEPTHWISE_CONV_2D DIV "
    "EXP FULLY_CONNECTED GATHER_ND GELU HARD_SWISH LOGISTIC MAXIMUM MEAN MUL PAD PADV2 REDUCE_MAX RELU RESHAPE "
    "RESIZE_BILINEAR RSQRT SIN SLICE SOFTMAX SQRT SQUARED_DIFFERENCE STRIDED_SLICE SUB SUM TRANSPOSE"
)


@cache
def converted(model: str, size: int | None, weights: str) -> tuple[Any, list[signature.Interface], bytes]:
    asked = ExportRequest(model=model, sizes=(Size(size, size),) if size else (), weights=weights)
    source = capture.capture(models.build(asked), "made here", photos.probes(None))
    interface = [signature.chosen(source, ExportRequest(model="x"), ladder=False)]
    return source, interface, lowering.convert([source], interface)


def unsealed(model: str, precision: str, size: int | None = None, weights: str = "pretrained") -> bytes:
    """A file as the converter or the quantiser left it."""
    source, interface, whole = converted(model, size, weights)
    return quantisation.quantised(whole, precision, [source], interface)


def versions(content: bytes) -> dict[str, int]:
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    return {names[max(c.builtinCode, c.deprecatedBuiltinCode)]: c.version for c in model.operatorCodes}


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (f"{MODELS}tiny", None),
        (f"{MODELS}roomy", None),
        (f"{MODELS}tiny_mask", None),
        (f"{MODELS}any_size", 32),
        pytest.param("selfie", None, marks=pytest.mark.slow),
        pytest.param("vit_tiny", 32, marks=pytest.mark.slow),
    ],
    ids=["tiny", "roomy", "tiny_mask", "any_size", "selfie", "vit_tiny"],
)
def test_of_a_float_file_we_say_what_the_converter_says(model: str, size: int | None):
    content = unsealed(model, "fp32", size, "random" if model == "vit_tiny" else "pretrained")
    made = sealed(content, {})
    assert facts(made)["min_runtime_version"] == facts(content)["min_runtime_version"]
    assert versions(made) == versions(content)


@pytest.mark.parametrize(
    ("precision", "oldest", "raised"),
    [
        ("fp16", "2.9.0", {"DEQUANTIZE": 3}),
        ("w8", "2.9.0", {"DEQUANTIZE": 3}),
        ("w8-dyn", "2.17.0", {"FULLY_CONNECTED": 12, "CONV_2D": 5}),
        ("w8a8", "2.9.0", {"QUANTIZE": 1, "DEQUANTIZE": 2, "CONV_2D": 3}),
        ("w8a16", "2.21.0", {"FULLY_CONNECTED": 14, "QUANTIZE": 2, "DEQUANTIZE": 3, "CONV_2D": 4}),
        ("w4", "2.21.0", {"FULLY_CONNECTED": 14, "CONV_2D": 5}),
    ],
)
def test_fewer_bits_raise_the_versions_of_what_they_change_and_no_answer(
    precision: str, oldest: str, raised: dict[str, int], tmp_path: Path
):
    content = unsealed(f"{MODELS}roomy", precision)
    made = sealed(content, {})
    assert facts(content)["min_runtime_version"] == "2.9.0", "the quantiser leaves the float file's claim"
    assert facts(made)["min_runtime_version"] == oldest
    assert {name: versions(made)[name] for name in raised} == raised
    x = np.random.default_rng(0).standard_normal((1, 32, 32, 3), np.float32)
    interpreted = [_interpreted(file, x) for file in (content, made)]
    compiled = [_compiled(file, x, tmp_path) for file in (content, made)]
    assert np.array_equal(*interpreted)
    assert np.array_equal(*compiled)


def test_what_the_table_does_not_know_is_not_claimed():
    model = schema.ModelT.InitFromPackedBuf(unsealed(f"{MODELS}tiny", "fp32"), 0)
    kinds = schema.TensorType
    (full,) = [op for op in model.subgraphs[0].operators if len(op.inputs) == 3 and _is(model, op, "FULLY_CONNECTED")]
    model.subgraphs[0].tensors[full.inputs[1]].type = kinds.INT2
    assert stated(model) is None


def test_the_table_knows_every_operator_that_was_seen():
    assert set(SEEN.split()) <= TABLE.keys()
    for name, rows in TABLE.items():
        assert [version for version, *_ in rows] == sorted(version for version, *_ in rows), name


def _is(model: Any, operator: Any, name: str) -> bool:
    code = model.operatorCodes[operator.opcodeIndex]
    return max(code.builtinCode, code.deprecatedBuiltinCode) == getattr(schema.BuiltinOperator, name)


def _interpreted(content: bytes, x: Any) -> Any:
    return Interpreter(model_content=content).get_signature_runner("classify")(pixel_values=x)["logits"]


def _compiled(content: bytes, x: Any, folder: Path) -> Any:
    (folder / "m.tflite").write_bytes(content)
    with quietly():
        model = CompiledModel.from_file(str(folder / "m.tflite"))
        given = {"pixel_values": model.create_input_buffer_by_name("classify", "pixel_values")}
        answer = {"logits": model.create_output_buffer_by_name("classify", "logits")}
        given["pixel_values"].write(x)
        model.run_by_name("classify", given, answer)
        found = answer["logits"].read(5, np.float32).copy()
        model.close()
        return found
