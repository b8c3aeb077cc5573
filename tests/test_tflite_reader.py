"""The TFLite reader, op by op, held to LiteRT's interpreter on one-op files that are written here."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitexport import photos, toolchain
from vitexport.errors import BadRequest, LoweringFailed, VitexportError
from vitexport.models.tflite_reader import read

torch = pytest.importorskip("torch")
interpreter = pytest.importorskip("ai_edge_litert.interpreter")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

SAME, VALID = 0, 1
NONE, RELU, RELU_N1_TO_1, RELU6, TANH = 0, 1, 2, 3, 4
TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.int32): 2, np.dtype(np.int8): 9}
#: Of the op's schema, where the first version lacks what is tested: half-pixel centres, dilation.
VERSIONS = {"RESIZE_BILINEAR": 3, "DEPTHWISE_CONV_2D": 2}

#: One op on values of about 1, float32 on both sides: sums of at most 5 x 5 x 8 products, in another order.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Step:
    """One op: what it takes are indices of earlier values (0 is the input) or constants."""

    kind: str
    takes: Sequence[int | np.ndarray | None]
    makes: tuple[int, ...]
    options: Any = None
    custom: bytes = b""
    dtype: Any = np.float32
    also: Sequence[tuple[int, ...]] = field(default=())
    """Shapes of further outputs."""


def write(path: Path, source: tuple[int, ...], *steps: Step, name: str = "value") -> Path:
    """A .tflite file of ``steps`` in order; its output is the last one's."""
    tensors = [schema.TensorT(shape=list(source), name=f"{name}0")]
    buffers, codes, ops = [schema.BufferT()], [], []
    values = [0]

    def add(shape: Sequence[int], dtype: Any, data: np.ndarray | None = None) -> int:
        if data is not None:
            buffers.append(schema.BufferT(data=np.frombuffer(data.tobytes(), np.uint8)))
        buffer = len(buffers) - 1 if data is not None else 0
        tensors.append(schema.TensorT(list(shape), TYPES[np.dtype(dtype)], buffer, f"{name}{len(tensors)}"))
        return len(tensors) - 1

    for step in steps:
        inputs = [
            -1 if t is None else values[t] if isinstance(t, int) else add(t.shape, t.dtype, t) for t in step.takes
        ]
        outputs = [add(step.makes, step.dtype), *(add(shape, step.dtype) for shape in step.also)]
        values.append(outputs[0])
        number = getattr(schema.BuiltinOperator, step.kind, schema.BuiltinOperator.CUSTOM)
        custom = step.kind.encode() if number == schema.BuiltinOperator.CUSTOM else None
        codes.append(schema.OperatorCodeT(min(number, 127), custom, VERSIONS.get(step.kind, 1), number))
        union = schema.BuiltinOptions
        kind = getattr(union, type(step.options).__name__.removesuffix("T")) if step.options else union.NONE
        ops.append(schema.OperatorT(len(codes) - 1, inputs, outputs, kind, step.options, list(step.custom) or None))
    graph = schema.SubGraphT(tensors, [0], [values[-1]], ops, "main")
    model = schema.ModelT(3, codes, [graph], "written by a test", buffers)
    builder = schema.flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


def picture(shape: tuple[int, ...]) -> np.ndarray:
    """A piece of a real photo, NHWC, its channels repeated and shifted where more than three are wanted."""
    face = photos.probes(None)[0].image.astype(np.float32) / 255
    parts = [face[60 + 9 * i : 60 + 9 * i + shape[1], 150 : 150 + shape[2]] for i in range(-(-shape[3] // 3))]
    return np.concatenate(parts, 2)[None, ..., : shape[3]] * 4 - 2


def litert(path: Path, pixels: np.ndarray) -> np.ndarray:
    session = interpreter.Interpreter(str(path))
    session.allocate_tensors()
    session.set_tensor(session.get_input_details()[0]["index"], pixels)
    session.invoke()
    return session.get_tensor(session.get_output_details()[0]["index"])


def torch_nhwc(path: Path, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        answer = read(path)(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())).numpy()
    return answer.transpose(0, 2, 3, 1) if answer.ndim == 4 else answer


def conv(padding: int, stride: tuple[int, int], activation: int = NONE, dilation: tuple[int, int] = (1, 1)) -> Any:
    return schema.Conv2DOptionsT(padding, stride[1], stride[0], activation, dilation[1], dilation[0])


def depthwise(padding: int, stride: tuple[int, int], multiplier: int, dilation: tuple[int, int] = (1, 1)) -> Any:
    return schema.DepthwiseConv2DOptionsT(padding, stride[1], stride[0], multiplier, NONE, dilation[1], dilation[0])


def pool(padding: int, stride: tuple[int, int], window: tuple[int, int]) -> Any:
    return schema.Pool2DOptionsT(padding, stride[1], stride[0], window[1], window[0], NONE)


def transposed(padding: int, stride: tuple[int, int]) -> bytes:
    return struct.pack("<3i", padding, stride[1], stride[0])


ADD, MUL = schema.AddOptionsT, schema.MulOptionsT
IMAGE = (1, 12, 15, 4)
AXES = np.array([1, 2], np.int32)
CASES: dict[str, tuple[Step, ...]] = {
    "conv, same, stride 1": (Step("CONV_2D", (0, drawn(6, 3, 3, 4), drawn(6)), (1, 12, 15, 6), conv(SAME, (1, 1))),),
    "conv, same, stride 2: uneven margins on the even side only": (
        Step("CONV_2D", (0, drawn(6, 3, 3, 4), drawn(6)), (1, 6, 8, 6), conv(SAME, (2, 2))),
    ),
    "conv, same, a stride for each axis": (
        Step("CONV_2D", (0, drawn(6, 5, 3, 4), drawn(6)), (1, 12, 5, 6), conv(SAME, (1, 3))),
    ),
    "conv, valid": (Step("CONV_2D", (0, drawn(6, 3, 5, 4), drawn(6)), (1, 10, 11, 6), conv(VALID, (1, 1))),),
    "conv, same, dilated": (
        Step("CONV_2D", (0, drawn(6, 3, 3, 4), drawn(6)), (1, 12, 15, 6), conv(SAME, (1, 1), dilation=(2, 3))),
    ),
    "conv, two groups": (Step("CONV_2D", (0, drawn(6, 3, 3, 2), drawn(6)), (1, 12, 15, 6), conv(SAME, (1, 1))),),
    "conv, fused relu": (Step("CONV_2D", (0, drawn(6, 3, 3, 4), drawn(6)), (1, 6, 8, 6), conv(SAME, (2, 2), RELU)),),
    "conv, fused relu6": (
        Step("CONV_2D", (0, 4 * drawn(6, 3, 3, 4), drawn(6)), (1, 12, 15, 6), conv(SAME, (1, 1), RELU6)),
    ),
    "conv, fused relu -1..1": (
        Step("CONV_2D", (0, drawn(6, 3, 3, 4), drawn(6)), (1, 12, 15, 6), conv(SAME, (1, 1), RELU_N1_TO_1)),
    ),
    "conv, float16 weights": (
        Step("DEQUANTIZE", (drawn(6, 3, 3, 4).astype(np.float16),), (6, 3, 3, 4)),
        Step("DEQUANTIZE", (drawn(6).astype(np.float16),), (6,)),
        Step("CONV_2D", (0, 1, 2), (1, 12, 15, 6), conv(SAME, (1, 1))),
    ),
    "depthwise conv, same, stride 2": (
        Step("DEPTHWISE_CONV_2D", (0, drawn(1, 5, 5, 4), drawn(4)), (1, 6, 8, 4), depthwise(SAME, (2, 2), 1)),
    ),
    "depthwise conv, two outputs a channel": (
        Step("DEPTHWISE_CONV_2D", (0, drawn(1, 3, 3, 8), drawn(8)), (1, 10, 13, 8), depthwise(VALID, (1, 1), 2)),
    ),
    "depthwise conv, dilated": (
        Step("DEPTHWISE_CONV_2D", (0, drawn(1, 3, 3, 4), drawn(4)), (1, 12, 15, 4), depthwise(SAME, (1, 1), 1, (2, 2))),
    ),
    "transposed conv with bias, kernel 2, stride 2": (
        Step(
            "Convolution2DTransposeBias",
            (0, drawn(5, 2, 2, 4), drawn(5)),
            (1, 24, 30, 5),
            custom=transposed(1, (2, 2)),
        ),
    ),
    "transposed conv with bias, kernel 4, stride 2, same": (
        Step(
            "Convolution2DTransposeBias",
            (0, drawn(5, 4, 4, 4), drawn(5)),
            (1, 24, 30, 5),
            custom=transposed(1, (2, 2)),
        ),
    ),
    "transposed conv with bias, a stride for each axis": (
        Step(
            "Convolution2DTransposeBias",
            (0, drawn(5, 3, 2, 4), drawn(5)),
            (1, 12, 30, 5),
            custom=transposed(1, (1, 2)),
        ),
    ),
    "transposed conv with bias, valid": (
        Step(
            "Convolution2DTransposeBias",
            (0, drawn(5, 3, 3, 4), drawn(5)),
            (1, 25, 31, 5),
            custom=transposed(2, (2, 2)),
        ),
    ),
    "average pool over everything": (Step("AVERAGE_POOL_2D", (0,), (1, 1, 1, 4), pool(VALID, (12, 15), (12, 15))),),
    "average pool, valid": (Step("AVERAGE_POOL_2D", (0,), (1, 5, 7, 4), pool(VALID, (2, 2), (3, 3))),),
    "average pool, same, padding not counted": (
        Step("AVERAGE_POOL_2D", (0,), (1, 12, 15, 4), pool(SAME, (1, 1), (3, 3))),
    ),
    "mean over height and width": (Step("MEAN", (0, AXES), (1, 1, 1, 4), schema.ReducerOptionsT(True)),),
    "mean over channels": (Step("MEAN", (0, np.array([-1], np.int32)), (1, 12, 15, 1), schema.ReducerOptionsT(True)),),
    "mean to a vector": (Step("MEAN", (0, AXES), (1, 4), schema.ReducerOptionsT(False)),),
    "resize, half-pixel centres, up": (
        Step(
            "RESIZE_BILINEAR",
            (0, np.array([24, 30], np.int32)),
            (1, 24, 30, 4),
            schema.ResizeBilinearOptionsT(False, True),
        ),
    ),
    "resize, half-pixel centres, down and by a fraction": (
        Step(
            "RESIZE_BILINEAR",
            (0, np.array([7, 20], np.int32)),
            (1, 7, 20, 4),
            schema.ResizeBilinearOptionsT(False, True),
        ),
    ),
    "resize, aligned corners": (
        Step(
            "RESIZE_BILINEAR",
            (0, np.array([23, 29], np.int32)),
            (1, 23, 29, 4),
            schema.ResizeBilinearOptionsT(True, False),
        ),
    ),
    "add a value to itself": (Step("ADD", (0, 0), IMAGE, ADD()),),
    "add a constant a channel": (Step("ADD", (0, drawn(4)), IMAGE, ADD(RELU)),),
    "add a constant row": (Step("ADD", (drawn(15, 1), 0), IMAGE, ADD()),),
    "multiply by a constant image": (Step("MUL", (0, drawn(*IMAGE)), IMAGE, MUL(RELU6)),),
    "multiply by a gate, as squeeze-and-excitation does": (
        Step("MEAN", (0, AXES), (1, 1, 1, 4), schema.ReducerOptionsT(True)),
        Step("LOGISTIC", (1,), (1, 1, 1, 4)),
        Step("MUL", (0, 2), IMAGE, MUL()),
    ),
    "relu": (Step("RELU", (0,), IMAGE),),
    "relu6": (Step("MUL", (0, np.float32([5])), IMAGE, MUL()), Step("RELU6", (1,), IMAGE)),
    "hard swish": (Step("MUL", (0, np.float32([3])), IMAGE, MUL()), Step("HARD_SWISH", (1,), IMAGE)),
    "logistic": (Step("MUL", (0, np.float32([5])), IMAGE, MUL()), Step("LOGISTIC", (1,), IMAGE)),
    "concatenation of channels": (
        Step("RELU", (0,), IMAGE),
        Step("CONCATENATION", (0, 1), (1, 12, 15, 8), schema.ConcatenationOptionsT(-1)),
    ),
    "concatenation of rows": (
        Step("RELU", (0,), IMAGE),
        Step("CONCATENATION", (0, 1), (1, 24, 15, 4), schema.ConcatenationOptionsT(1)),
    ),
    "reshape to a vector": (
        Step("RESHAPE", (0, np.array([1, 720], np.int32)), (1, 720), schema.ReshapeOptionsT([1, 720])),
    ),
    "reshape to another image": (
        Step("RESHAPE", (0, np.array([1, 6, 30, 4], np.int32)), (1, 6, 30, 4), schema.ReshapeOptionsT([1, 6, 30, 4])),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_op_computes_what_litert_computes(case: str, tmp_path: Path) -> None:
    path = write(tmp_path / "op.tflite", IMAGE, *CASES[case])
    pixels = picture(IMAGE)
    wanted, made = litert(path, pixels), torch_nhwc(path, pixels)
    assert made.shape == wanted.shape
    assert np.abs(wanted).max() > 0.1
    assert np.abs(made - wanted).max() <= TOLERANCE * max(1.0, float(np.abs(wanted).max()))


def test_every_op_kind_that_is_read_is_tested() -> None:
    from vitexport.models import tflite_ops

    assert {step.kind for case in CASES.values() for step in case} - {"DEQUANTIZE"} == set(tflite_ops._LAYERS)


REFUSED: dict[str, tuple[tuple[Step, ...], str]] = {
    "an unknown op": (
        (Step("TANH", (0,), IMAGE),),
        r"^The op TANH \('value1'\) is not known .* reads ADD, AVERAGE_POOL",
    ),
    "an unknown custom op": ((Step("MaxUnpooling2D", (0,), IMAGE),), "^The op MaxUnpooling2D"),
    "a custom op of two lines": ((Step("Max\nPool", (0,), IMAGE),), "^The op Max\N{REPLACEMENT CHARACTER}Pool "),
    "an unknown activation": (
        (Step("ADD", (0, drawn(4)), IMAGE, ADD(TANH)),),
        "^ADD 'value2' has the fused activation number 4, which vitexport's TFLite reader does not know",
    ),
    "a resize of the oldest kind": (
        (
            Step(
                "RESIZE_BILINEAR",
                (0, np.array([24, 30], np.int32)),
                (1, 24, 30, 4),
                schema.ResizeBilinearOptionsT(False, False),
            ),
        ),
        "align corners False and half-pixel centres False",
    ),
    "a convolution without bias, which LiteRT refuses too": (
        (Step("CONV_2D", (0, drawn(6, 3, 3, 4), None), (1, 12, 15, 6), conv(SAME, (1, 1))),),
        "CONV_2D 'value2' has an operand 2 that is not a constant of type float32",
    ),
    "an integer network": (
        (Step("DEQUANTIZE", (drawn(4).astype(np.int8),), (4,)), Step("ADD", (0, 1), IMAGE, ADD())),
        r"'op.tflite' is quantised: DEQUANTIZE of 'value1' \(int8\)",
    ),
    "integer values": ((Step("RELU", (0,), IMAGE, dtype=np.int8),), "^RELU 'value1' computes with int8 values"),
    "a mean over the batch": (
        (Step("MEAN", (0, np.array([0], np.int32)), IMAGE, schema.ReducerOptionsT(True)),),
        r"averages over the axes \[0\] of NHWC",
    ),
    "an uneven pool": (
        (Step("AVERAGE_POOL_2D", (0,), (1, 6, 8, 4), pool(SAME, (2, 2), (3, 3))),),
        "pads unevenly",
    ),
    "an uneven transposed conv": (
        (
            Step(
                "Convolution2DTransposeBias",
                (0, drawn(5, 3, 3, 4), drawn(5)),
                (1, 24, 30, 5),
                custom=transposed(1, (2, 2)),
            ),
        ),
        r"has a kernel \(3, 3\) that its stride \(2, 2\) does not pad evenly",
    ),
    "an op with two outputs": (
        (Step("SPLIT", (np.int32(3), 0), (1, 12, 15, 2), also=[(1, 12, 15, 2)]),),
        "'op.tflite: SPLIT' has 2 outputs",
    ),
    "a shape that does not come out": (
        (Step("RELU", (0,), (1, 12, 15, 5)),),
        r"RELU 'value1' should give \(1, 5, 12, 15\) \(NCHW\) and gives \(1, 4, 12, 15\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_known_is_refused_with_a_sentence(case: str, tmp_path: Path) -> None:
    steps, sentence = REFUSED[case]
    with pytest.raises(LoweringFailed, match=sentence):
        read(write(tmp_path / "op.tflite", IMAGE, *steps))


def test_names_that_torch_forbids_still_make_distinct_layers(tmp_path: Path) -> None:
    steps = (Step("RELU", (0,), IMAGE), Step("HARD_SWISH", (1,), IMAGE))
    path = write(tmp_path / "op.tflite", IMAGE, *steps, name="block.1/")
    assert list(read(path).layers) == ["block_1/1", "block_1/2"]


def selfie() -> Path:
    return toolchain.npm_package("@mediapipe/selfie_segmentation", "")[0] / "selfie_segmentation.tflite"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not a TensorFlow Lite model"),
        (b"not a flatbuffer at all", "is not a TensorFlow Lite model"),
        (b"\xff\xff\xff\x7fTFL3", "is damaged or cut short"),
    ],
)
def test_garbage_is_refused_with_a_sentence(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(BadRequest, match=sentence):
        read(path)


def test_a_file_cut_short_is_refused_with_a_sentence(tmp_path: Path) -> None:
    whole, path = selfie().read_bytes(), tmp_path / "cut.tflite"
    for share in (0.01, 0.1, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BadRequest, match=r"'.*cut.tflite' is (damaged|not a TensorFlow Lite model)"):
            read(path)


def test_a_damaged_byte_never_escapes_as_anything_but_a_sentence(tmp_path: Path) -> None:
    """Most bytes of a small file are structure, so flipping them meets every accessor."""
    whole = write(tmp_path / "op.tflite", IMAGE, *CASES["conv, float16 weights"]).read_bytes()
    path, refused = tmp_path / "flipped.tflite", 0
    for position in np.random.default_rng(0).choice(len(whole), 300, replace=False):
        content = bytearray(whole)
        content[position] ^= 0xFF
        path.write_bytes(content)
        try:
            read(path)
        except VitexportError:
            refused += 1
    assert refused > 50  # the rest hit weights, names and padding


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"absent.tflite' cannot be read \(No such file or directory\)"):
        read(tmp_path / "absent.tflite")


def test_the_module_is_captured_and_lowered_without_leftovers() -> None:
    """One ONNX node for each TFLite op but the 110 DEQUANTIZE: no Pad, no Transpose, no Cast."""
    module = read(selfie())
    program = torch.export.export(module, (torch.zeros(module.input_shape),), strict=False)
    lowered = torch.onnx.export(program, dynamo=True, opset_version=20, external_data=False, verbose=False)
    kinds = {node.op_type for node in lowered.model_proto.graph.node}
    assert kinds == {"Conv", "Relu", "Add", "HardSwish", "Sigmoid", "ReduceMean", "Mul", "Resize", "ConvTranspose"}
    assert len(lowered.model_proto.graph.node) == 136
