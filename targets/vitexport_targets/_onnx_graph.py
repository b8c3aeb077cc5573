"""From a captured model to an ONNX graph: the lowering that every ONNX-based target shares."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec

from vitexport.contract import INPUT_NAME, Precision, SourceModel
from vitexport.errors import BadRequest, LoweringFailed
from vitexport.progress import step

if TYPE_CHECKING:
    import onnx

#: 20 is the newest opset whose every operator onnxruntime-web's WebGPU provider has a kernel for: 23 brings
#: ``Attention``, which falls to the CPU. It is also the first with ``Gelu`` (18 spells out Erf: 48 more nodes).
OPSET = 20

#: A protobuf message holds less than 2 GiB; above this the weights go to files of their own.
LARGEST_PROTOBUF = 2**31 - 2**20

#: Smaller tensors stay in the graph, as onnx's own writer does: shape inference must be able to read shapes.
INLINE_BELOW = 1024

FP32 = Precision(
    "fp32",
    1e-4,
    "1,700 float32 roundings (2^-24) that all add up; a ViT's are a few hundred and mostly cancel: measured 1e-6",
)

FP16 = Precision(
    "fp16",
    8e-3,
    "float16 rounds 2^13 times as coarsely as float32, whose rounding moves these networks by 1e-6 (42 dB SNR)",
    metric="noise",
)

TOOLCHAIN = ("torch", "onnx", "onnxscript", "onnxsim")


def toolchain(*more: str) -> dict[str, str]:
    return {name: version(name) for name in (*TOOLCHAIN, *more)}


#: What was lowered for one target serves the next: the exporter takes most of a run (33 s for a Swin).
_lowered: WeakKeyDictionary[SourceModel, onnx.ModelProto] = WeakKeyDictionary()


def to_model(source: SourceModel) -> onnx.ModelProto:
    """float32, opset 20, simplified; the same bytes for the same source. Static unless captured otherwise.

    Raises ``LoweringFailed`` with the converter's own first line. Do not write to the result: targets share it.
    """
    if source not in _lowered:
        _lowered[source] = _lower(source)
    return _lowered[source]


def _lower(source: SourceModel) -> onnx.ModelProto:
    import torch

    with step("lower", "onnx"), warnings.catch_warnings():
        # torch's own exporter uses what torch deprecated in 2.13; its users can do nothing about it.
        warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)` is deprecated", FutureWarning)
        try:
            program = torch.onnx.export(
                source.program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT_NAME],
                output_names=[output.name for output in source.outputs],
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # the exporter raises whatever its translation raised
            raise LoweringFailed(f"torch.onnx.export cannot take {source.name}: {_first_line(error)}") from error
        assert program is not None
        model = program.model_proto
    with step("optimise", "onnxsim"):
        return _signed(_anonymous(_simplified(model)), source)


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and activations in float16; inputs and outputs stay float32, as transformers.js expects."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with step("optimise", "fp16"):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        converted: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True)
        return converted


def save(model: onnx.ModelProto, path: Path, max_file_bytes: int | None = None) -> tuple[str, ...]:
    """Write ``model``; the names of the files beside ``path``, the graph first, then its weight shards.

    One self-contained file, unless it would pass ``max_file_bytes`` (or protobuf's 2 GiB). A tensor is never split:
    one that is larger than the cap is a ``BadRequest``.
    """
    cap = min(max_file_bytes or LARGEST_PROTOBUF, LARGEST_PROTOBUF)
    if model.ByteSize() <= cap:
        path.write_bytes(_bytes(model))
        return (path.name,)
    return _save_sharded(model, path, cap)


def with_taps(path: Path, names: Iterable[str]) -> onnx.ModelProto:
    """The stored model with intermediate values as further outputs. An unknown name is a ``BadRequest``."""
    import onnx

    model = onnx.load(path)
    known = {output for node in model.graph.node for output in node.output}
    for name in names:
        if name not in known:
            raise BadRequest(f"'{name}' is no value of {path.name}. Names are those of the ONNX graph's edges.")
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    return model


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxsim: ViT-Ti 380 -> 320 nodes. onnxslim, tried on the same graph, splits MatMul + bias into Reshapes and a
    Gemm and makes 404 of them."""
    import onnxsim

    simplified, valid = onnxsim.simplify(model)
    if not valid:
        raise LoweringFailed("onnxsim's result differs from the graph it was given. This is a bug in onnxsim.")
    result: onnx.ModelProto = simplified
    return result


def _anonymous(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop stack traces, paths and doc strings: they differ between machines and say where a user's files are."""
    del model.metadata_props[:]
    model.doc_string = ""
    model.graph.doc_string = ""
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.value_info):
        part.doc_string = ""
        del part.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    # Shapes of intermediate values are inferred again by every runtime; stale ones break quantisers.
    del model.graph.value_info[:]
    return model


def _signed(model: onnx.ModelProto, source: SourceModel) -> onnx.ModelProto:
    """Carry along what a reader of the bare file needs: preprocessing, outputs, licence."""
    import onnx

    model.producer_name, model.producer_version = "vitexport", version("vitexport")
    model.graph.name = source.name
    facts = {
        "vitexport.model": source.name,
        "vitexport.task": source.task,
        "vitexport.preprocessing": _json(source.preprocessing),
        "vitexport.outputs": _json(source.outputs),
        "vitexport.origin": source.provenance.origin,
        "vitexport.licence": source.provenance.licence,
        "vitexport.weights_sha256": source.provenance.weights_sha256,
    }
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    return model


def _save_sharded(model: onnx.ModelProto, path: Path, cap: int) -> tuple[str, ...]:
    import onnx
    from onnx.external_data_helper import set_external_data

    shards: list[list[Any]] = [[]]
    room = cap
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        length = len(tensor.raw_data)
        if length < INLINE_BELOW:
            continue
        if length > cap:
            raise BadRequest(
                f"--max-file of {cap} bytes is less than the tensor '{tensor.name}' alone ({length} bytes), "
                "and ONNX keeps a tensor in one file. Raise the cap or use a smaller precision."
            )
        if length > room:
            shards.append([])
            room = cap
        shards[-1].append(tensor)
        room -= length
    names = [f"{path.name}_data_{i}" for i in range(len(shards))]
    for name, tensors in zip(names, shards, strict=True):
        offset = 0
        with (path.parent / name).open("wb") as file:
            for tensor in tensors:
                raw = tensor.raw_data
                file.write(raw)
                set_external_data(tensor, name, offset, len(raw))
                tensor.ClearField("raw_data")
                offset += len(raw)
    path.write_bytes(_bytes(copy))
    return (path.name, *names)


def _bytes(model: onnx.ModelProto) -> bytes:
    stored: bytes = model.SerializeToString(deterministic=True)
    return stored


def _json(value: object) -> str:
    return json.dumps(msgspec.to_builtins(value), separators=(",", ":"))


def _first_line(error: BaseException) -> str:
    """The innermost cause's first line: the outer ones are torch's instructions for reporting a bug."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
