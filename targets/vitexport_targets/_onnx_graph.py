"""From a captured model to an ONNX graph: the lowering that every ONNX-based target shares."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from vitexport.contract import INPUT_NAME, SourceModel, Value
from vitexport.errors import BadRequest, LoweringFailed, root_line
from vitexport.manifest import metadata
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

TOOLCHAIN = ("torch", "onnx", "onnxscript", "onnxsim")


def toolchain(*more: str) -> dict[str, str]:
    return {name: version(name) for name in (*TOOLCHAIN, *more)}


#: What was lowered of a program for one target, or one plan, serves the next: the exporter takes most of a run (33 s of
#: a Swin).
_lowered: WeakKeyDictionary[Any, onnx.ModelProto] = WeakKeyDictionary()


def to_model(source: SourceModel) -> onnx.ModelProto:
    """float32, opset 20, simplified; the same bytes for the same source. Static unless captured otherwise.

    Raises ``LoweringFailed`` with the converter's own first line. Do not write to the result: targets share it.
    """
    if source.program not in _lowered:
        _lowered[source.program] = _lower(source)
    return _lowered[source.program]


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
            raise LoweringFailed(f"torch.onnx.export cannot take {source.name}: {root_line(error)}.") from error
        assert program is not None
        model = program.model_proto
    with step("optimise", "onnxsim"):
        return _signed(_anonymous(_simplified(model)), source)


def save(model: onnx.ModelProto, path: Path, max_file_bytes: int | None = None) -> tuple[str, ...]:
    """Write ``model``; the names of the files beside ``path``, the graph first, then its weight shards.

    One self-contained file, unless it would pass ``max_file_bytes`` (or protobuf's 2 GiB). A tensor is never split:
    one that is larger than the cap is a ``BadRequest``.
    """
    return _save(model, path, frozenset(), Shards(path.parent, f"{path.name}_data", max_file_bytes))


def save_ladder(
    models: Sequence[onnx.ModelProto], paths: Sequence[Path], shared: str, max_file_bytes: int | None = None
) -> list[tuple[str, ...]]:
    """Write one network at several sizes, into one folder; tensors that two of them have in common are stored once.

    They go to files called ``shared``_0, _1, ... beside the graphs. Returns each model's files as :func:`save` does.
    """
    seen = Counter(digest for model in models for digest in {_digest(t) for t in model.graph.initializer})
    common = frozenset(digest for digest, count in seen.items() if count > 1)
    shards = Shards(paths[0].parent, shared, max_file_bytes)
    return [_save(model, path, common, shards) for model, path in zip(models, paths, strict=True)]


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


def values(path: Path, input_shape: Sequence[int]) -> dict[str, Value]:
    """The intermediate values of a stored model that may be floats, in order, for an input of the shape given; where
    shape inference does not know one (onnxruntime's own operators), it has none."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    (given,) = (value for value in model.graph.input if value.name == INPUT_NAME)
    for dimension, size in zip(given.type.tensor_type.shape.dim, input_shape, strict=True):
        dimension.dim_value = size
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    types = {value.name: value.type.tensor_type for value in inferred}
    answers = {value.name for value in model.graph.output}
    made = [name for node in model.graph.node for name in node.output if name and name not in answers]
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return {
        name: Value(name, _static(types[name]) if name in types else None)
        for name in made
        if name not in types or types[name].elem_type in floats
    }


def _static(found: onnx.TypeProto.Tensor) -> tuple[int, ...] | None:
    if not found.HasField("shape") or not all(d.HasField("dim_value") for d in found.shape.dim):
        return None
    return tuple(d.dim_value for d in found.shape.dim)


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
    onnx.helper.set_model_props(model, metadata(source))
    onnx.checker.check_model(model, full_check=True)
    return model


class Shards:
    """Weight files of at most ``cap`` bytes beside a graph. Equal tensors are stored once; none is split."""

    def __init__(self, folder: Path, stem: str, cap: int | None) -> None:
        self.cap = min(cap or LARGEST_PROTOBUF, LARGEST_PROTOBUF)
        self._folder, self._stem = folder, stem
        self._places: dict[str, tuple[str, int]] = {}
        self._count, self._used = 0, self.cap  # full, so that the first tensor opens a file

    def take(self, tensor: onnx.TensorProto) -> str:
        """Move a tensor's bytes out of its graph; the name of the file that holds them."""
        from onnx.external_data_helper import set_external_data

        raw = tensor.raw_data
        digest = _digest(tensor)
        if digest not in self._places:
            self._places[digest] = self._append(tensor.name, raw)
        name, offset = self._places[digest]
        set_external_data(tensor, name, offset, len(raw))
        tensor.ClearField("raw_data")
        return name

    def _append(self, tensor: str, raw: bytes) -> tuple[str, int]:
        if len(raw) > self.cap:
            raise BadRequest(
                f"--max-file of {self.cap} bytes is less than the tensor '{tensor}' alone ({len(raw)} bytes), "
                "and ONNX keeps a tensor in one file. Raise the cap or use a smaller precision."
            )
        if self._used + len(raw) > self.cap:
            self._count, self._used = self._count + 1, 0
        name, offset = f"{self._stem}_{self._count - 1}", self._used
        with (self._folder / name).open("ab") as file:
            file.write(raw)
        self._used += len(raw)
        return name, offset


def _save(model: onnx.ModelProto, path: Path, common: frozenset[str], shards: Shards) -> tuple[str, ...]:
    """``common``: digests of the tensors that must leave the graph; all leave it where it passes the cap."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    large = [tensor for tensor in copy.graph.initializer if len(tensor.raw_data) >= INLINE_BELOW]
    names = [shards.take(tensor) for tensor in large if _digest(tensor) in common]
    if copy.ByteSize() > shards.cap:
        names += [shards.take(tensor) for tensor in large if tensor.HasField("raw_data")]
    path.write_bytes(_bytes(copy))
    return (path.name, *dict.fromkeys(names))


def _digest(tensor: onnx.TensorProto) -> str:
    """Of what a tensor holds, whatever it is called."""
    header = f"{tensor.data_type} {list(tensor.dims)} "
    return hashlib.sha256(header.encode() + tensor.raw_data).hexdigest()


def _bytes(model: onnx.ModelProto) -> bytes:
    stored: bytes = model.SerializeToString(deterministic=True)
    return stored
